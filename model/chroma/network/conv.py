"""Causal convolutions whose past is kept outside, so that pieces give what the whole would.

A plain convolution keeps the inputs that its next output still needs; a transposed one keeps the tail that
its next output adds to. Both are `(B, channels, n)`: a call reads one and writes the next past into `kept`,
which may be the same.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class CausalConv(nn.Module):
    """A convolution that sees the present and `context` inputs before it."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        stride: int = 1,
        dilation: int = 1,
        *,
        bias: bool = True,
        replicate: bool = False,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv1d(inputs, outputs, kernel, stride, dilation=dilation, bias=bias)
        self.context = (kernel - 1) * dilation + 1 - stride
        self.replicate = replicate
        """the first input stands in for what was before it (and the last for what is missing after it)"""

    @property
    def past(self) -> tuple[int, int]:
        """Channels and inputs; zeros are silence before the first input."""
        return self.conv.in_channels, self.context

    def forward(self, x: Tensor, past: Tensor, kept: Tensor, fresh: bool = False) -> Tensor:
        """`x` `(B, C, T)` to `(B, C', ceil(T / stride))`; only a stream's last piece may be uneven.

        `fresh` says that the stream begins here; only `replicate` cares.
        """
        missing = -x.shape[-1] % self.conv.stride[0]
        if missing:
            x = F.pad(x, (0, missing), mode="replicate" if self.replicate else "constant")
        left = x[..., :1].expand_as(past) if self.replicate and fresh else past
        if not self.context:
            return self.conv(x)  # type: ignore[no-any-return]  # nn.Module's call
        joined = torch.cat((left, x), dim=-1)
        kept.copy_(joined[..., joined.shape[-1] - self.context :])
        return self.conv(joined)  # type: ignore[no-any-return]  # nn.Module's call


class CausalConvTranspose(nn.Module):
    """A transposed convolution cut at its right, so that each output comes with its input."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int, *, groups: int = 1, bias: bool = True
    ) -> None:
        super().__init__()
        self.conv = nn.ConvTranspose1d(inputs, outputs, kernel, stride, groups=groups, bias=bias)
        self.overlap = kernel - stride

    @property
    def past(self) -> tuple[int, int]:
        """Channels and outputs; zeros are no tail before the first input."""
        return self.conv.out_channels, self.overlap

    def forward(self, x: Tensor, past: Tensor, kept: Tensor) -> Tensor:
        """`x` `(B, C, T)` to `(B, C', T * stride)`."""
        conv = self.conv
        # the bias is added at the end: an output of two pieces must get it once
        y = F.conv_transpose1d(x, conv.weight, None, conv.stride, groups=conv.groups)
        y[..., : self.overlap] += past
        whole = x.shape[-1] * conv.stride[0]
        kept.copy_(y[..., whole:])
        out = y[..., :whole]
        return out if conv.bias is None else out + conv.bias[:, None]
