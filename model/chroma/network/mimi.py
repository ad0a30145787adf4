"""Mimi (Défossez et al., arXiv 2410.00037), streaming both ways: 24 kHz sound, 12.5 frames of codes a second.

Weights here, state in `MimiStream`: what the convolutions must remember and the transformer's keys and
values, in slots. Sound in pieces of any number of frames is the sound of the whole.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.chroma.network.attention import Angles, Attention
from model.chroma.network.cache import KVCache, Span
from model.chroma.network.config import CodecConfig
from model.chroma.network.conv import CausalConv, CausalConvTranspose
from model.chroma.network.quantizer import SplitQuantizer
from model.chroma.network.rope import Rope

Conv = CausalConv | CausalConvTranspose


@dataclass(slots=True)
class MimiStream:
    """One direction's state for some slots and the scratch slot.

    `past` `(slots + 1, n)`: all convolutions' pasts side by side, so that one gather takes a step's rows.
    """

    past: Tensor
    cache: KVCache

    @property
    def nbytes(self) -> int:
        return self.past.nbytes + self.cache.nbytes

    def reset(self, slot: int) -> None:
        """The slot's stream begins anew."""
        self.past[slot].zero_()
        self.cache.cut(slot, 0)


@dataclass(frozen=True, slots=True)
class _Walk:
    """One call's way past the convolutions: `before` and `after` `(B, n)`, as `MimiStream` has them."""

    before: Tensor
    after: Tensor
    fresh: bool

    def through(self, conv: Conv, x: Tensor) -> Tensor:
        first, last = conv.columns  # type: ignore[misc]  # set by `_columns`
        shape = len(x), *conv.past
        past, kept = (state[:, first:last].view(shape) for state in (self.before, self.after))
        if isinstance(conv, CausalConvTranspose):
            return conv(x, past, kept)  # type: ignore[no-any-return]  # nn.Module's call
        return conv(x, past, kept, self.fresh)  # type: ignore[no-any-return]  # the same


class Resnet(nn.Module):
    """Two convolutions beside a residual."""

    def __init__(self, config: CodecConfig, channels: int, dilation: int) -> None:
        super().__init__()
        hidden = channels // config.compress
        self.block = nn.ModuleList(
            [
                nn.ELU(),
                CausalConv(channels, hidden, config.residual_kernel, dilation=dilation),
                nn.ELU(),
                CausalConv(hidden, channels, 1),
            ]
        )
        self.shortcut = CausalConv(channels, channels, 1) if config.conv_shortcut else None

    def forward(self, x: Tensor, walk: _Walk) -> Tensor:
        y = _through(self.block, x, walk)
        if self.shortcut is not None:
            x = walk.through(self.shortcut, x)
        return x + y


def _through(layers: nn.ModuleList, x: Tensor, walk: _Walk) -> Tensor:
    """`x` through convolutions, residual blocks and what needs no state."""
    for layer in layers:
        if isinstance(layer, Conv):
            x = walk.through(layer, x)
        elif isinstance(layer, Resnet):
            x = layer(x, walk)
        else:
            x = layer(x)
    return x


class _Layers(nn.Module):
    """Named as the checkpoint has it: `encoder.layers.N`."""

    def __init__(self, layers: list[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor, walk: _Walk) -> Tensor:
        return _through(self.layers, x, walk)


def _encoder(config: CodecConfig) -> _Layers:
    channels = config.filters
    layers: list[nn.Module] = [CausalConv(1, channels, config.kernel)]
    for ratio in reversed(config.ratios):
        layers += [Resnet(config, channels, config.dilation_growth**j) for j in range(config.residual_layers)]
        layers += [nn.ELU(), CausalConv(channels, 2 * channels, 2 * ratio, ratio)]
        channels *= 2
    layers += [nn.ELU(), CausalConv(channels, config.hidden, config.last_kernel)]
    return _Layers(layers)


def _decoder(config: CodecConfig) -> _Layers:
    channels = config.filters * 2 ** len(config.ratios)
    layers: list[nn.Module] = [CausalConv(config.hidden, channels, config.kernel)]
    for ratio in config.ratios:
        layers += [nn.ELU(), CausalConvTranspose(channels, channels // 2, 2 * ratio, ratio)]
        channels //= 2
        layers += [Resnet(config, channels, config.dilation_growth**j) for j in range(config.residual_layers)]
    layers += [nn.ELU(), CausalConv(channels, 1, config.last_kernel)]
    return _Layers(layers)


class _LayerScale(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(channels))


class _MLP(nn.Module):
    def __init__(self, config: CodecConfig) -> None:
        super().__init__()
        self.fc1 = nn.Linear(config.hidden, config.intermediate, bias=False)
        self.fc2 = nn.Linear(config.intermediate, config.hidden, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))  # type: ignore[no-any-return]  # nn.Module's call


class CodecBlock(nn.Module):
    """Mimi's own transformer block: layer norms, a plain MLP, scaled residuals."""

    def __init__(self, config: CodecConfig) -> None:
        super().__init__()
        self.self_attn = Attention(
            config.hidden,
            config.heads,
            config.kv_heads,
            config.head_dim,
            qkv_bias=config.attention_bias,
            out_bias=config.attention_bias,
        )
        self.mlp = _MLP(config)
        self.input_layernorm = nn.LayerNorm(config.hidden, eps=config.eps)
        self.post_attention_layernorm = nn.LayerNorm(config.hidden, eps=config.eps)
        self.self_attn_layer_scale = _LayerScale(config.hidden)
        self.mlp_layer_scale = _LayerScale(config.hidden)

    def forward(self, x: Tensor, angles: Angles, cache: KVCache, layer: int, span: Span) -> Tensor:
        attended = self.self_attn(self.input_layernorm(x), angles, cache, layer, span)
        x = torch.addcmul(x, self.self_attn_layer_scale.scale, attended)
        mixed: Tensor = self.mlp(self.post_attention_layernorm(x))
        return torch.addcmul(x, self.mlp_layer_scale.scale, mixed)


class CodecTransformer(nn.Module):
    def __init__(self, config: CodecConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(CodecBlock(config) for _ in range(config.layers))
        self._rope = Rope(config.rope, config.head_dim)

    def forward(self, x: Tensor, cache: KVCache, span: Span) -> Tensor:
        """`(B, C, T)` to `(B, C, T)`; the cache is written and advanced."""
        x = x.transpose(1, 2)
        angles = self._rope.angles(span.positions, x.dtype)
        for number, layer in enumerate(self.layers):
            x = layer(x, angles, cache, number, span)
        cache.advance(span)
        return x.transpose(1, 2)


def _columns(*parts: nn.Module) -> int:
    """Gives each convolution its columns of a stream's past; how many there are."""
    convs = [m for part in parts for m in part.modules() if isinstance(m, Conv)]
    ends = list(accumulate(math.prod(conv.past) for conv in convs))
    for conv, first, last in zip(convs, [0, *ends], ends, strict=False):
        conv.columns = first, last  # type: ignore[assignment]  # a plain attribute of a module
    return ends[-1]


class Mimi(nn.Module):
    """The codec. `encode` and `decode` take pieces; a stream remembers what was before."""

    def __init__(self, config: CodecConfig) -> None:
        super().__init__()
        self.config = config
        stride = config.resample
        self.encoder = _encoder(config)
        self.encoder_transformer = CodecTransformer(config)
        self.downsample = CausalConv(
            config.hidden, config.hidden, 2 * stride, stride, bias=False, replicate=True
        )
        self.quantizer = SplitQuantizer(config)
        self.upsample = CausalConvTranspose(
            config.hidden, config.hidden, 2 * stride, stride, groups=config.upsample_groups, bias=False
        )
        self.decoder_transformer = CodecTransformer(config)
        self.decoder = _decoder(config)
        self._encoding = _columns(self.encoder, self.downsample)
        self._decoding = _columns(self.upsample, self.decoder)

    def _stream(self, columns: int, slots: int, frames: int, window: int | None) -> MimiStream:
        config, weight = self.config, self.downsample.conv.weight
        positions = frames * config.resample
        cache = KVCache(
            config.layers, slots, config.kv_heads, config.head_dim,
            positions if window is None else window + positions - 1,
            window=window, device=weight.device, dtype=weight.dtype,
        )  # fmt: skip
        past = torch.zeros(slots + 1, columns, device=weight.device, dtype=weight.dtype)
        return MimiStream(past, cache)

    def encoding(self, frames: int, window: int | None) -> MimiStream:
        """State to encode one sound in pieces of up to `frames` frames (all of it without a window)."""
        return self._stream(self._encoding, 1, frames, window)

    def decoding(self, slots: int, frames: int, window: int | None) -> MimiStream:
        """State to decode in `slots`, in pieces of up to `frames` frames (all of it without a window)."""
        return self._stream(self._decoding, slots, frames, window)

    def encode(self, pcm: Tensor, stream: MimiStream, books: int) -> Tensor:
        """`(1, 1, N)` samples in [-1, 1] to codes `(1, books, ceil(N / frame))`.

        Only a stream's last piece may end within a frame.
        """
        fresh = stream.cache.lengths[0] == 0
        walk = _Walk(stream.past[:1], stream.past[:1], fresh)
        x = self.encoder(pcm.to(self.downsample.conv.weight.dtype), walk)
        width = x.shape[-1]
        x = self.encoder_transformer(x, stream.cache, stream.cache.span([0], [width], width))
        x = walk.through(self.downsample, x)
        return self.quantizer.encode(x, books)

    def decode(
        self,
        codes: Tensor,
        stream: MimiStream,
        rows: Tensor,
        active: Tensor | None = None,
        live: int | None = None,
    ) -> Tensor:
        """`(B, books, T)` codes of the slots `rows` `(B,)` to `(B, T * frame)` samples.

        Rows not `active` `(B,)` (None: all are) stand still. No row's positions in the cache's ring go behind
        `live` (None: its capacity). Only the device knows how far a stream is, until the host is told. Ids
        that are no codeword become the last one, as the goldens have it.
        """
        if active is None:
            active = torch.ones_like(rows, dtype=torch.bool)
        before = stream.past.index_select(0, rows)
        walk = _Walk(before, torch.empty_like(before), fresh=False)
        x = self.quantizer.decode(codes.clamp(max=self.config.codebook_size - 1))
        x = walk.through(self.upsample, x.to(self.upsample.conv.weight.dtype))
        cache, width = stream.cache, x.shape[-1]
        span = cache.device_span(
            rows, cache.starts(rows), active * width, width, cache.capacity if live is None else live
        )
        x = self.decoder_transformer(x, cache, span)
        pcm: Tensor = self.decoder(x, walk).flatten(1)
        stream.past.index_copy_(0, rows, torch.where(active[:, None], walk.after, before))
        return pcm
