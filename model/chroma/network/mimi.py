"""Mimi (Défossez et al., arXiv 2410.00037), streaming both ways: 24 kHz sound, 12.5 frames of codes a second.

Weights here, state in `MimiStream`: what the convolutions must remember and the transformer's keys and
values, in slots. Sound in pieces of any number of frames is the sound of the whole.
"""

from __future__ import annotations

from dataclasses import dataclass

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
    """One direction's state for some slots: `pasts[k]` belongs to the k-th convolution."""

    pasts: list[Tensor]
    cache: KVCache

    @property
    def nbytes(self) -> int:
        return sum(past.nbytes for past in self.pasts) + self.cache.nbytes

    def reset(self, slot: int) -> None:
        """The slot's stream begins anew."""
        for past in self.pasts:
            past[slot].zero_()
        self.cache.cut(slot, 0)


@dataclass(frozen=True, slots=True)
class _Walk:
    """One call's way through a stream's pasts."""

    stream: MimiStream
    rows: slice
    active: Tensor | None
    fresh: bool

    def past(self, conv: Conv) -> Tensor:
        return self.stream.pasts[conv.number][self.rows]  # type: ignore[index]  # numbered by `_number`


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
            x = self.shortcut(x, walk.past(self.shortcut), walk.active, walk.fresh)
        return x + y


def _through(layers: nn.ModuleList, x: Tensor, walk: _Walk) -> Tensor:
    """`x` through convolutions, residual blocks and what needs no state."""
    for layer in layers:
        if isinstance(layer, CausalConv):
            x = layer(x, walk.past(layer), walk.active, walk.fresh)
        elif isinstance(layer, CausalConvTranspose):
            x = layer(x, walk.past(layer), walk.active)
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
        x = x + self.self_attn_layer_scale.scale * attended
        mixed: Tensor = self.mlp(self.post_attention_layernorm(x))
        return x + self.mlp_layer_scale.scale * mixed


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


def _number(*parts: nn.Module) -> list[Conv]:
    """Gives each convolution its place in a stream."""
    convs = [m for part in parts for m in part.modules() if isinstance(m, CausalConv | CausalConvTranspose)]
    for number, conv in enumerate(convs):
        conv.number = number  # type: ignore[assignment]  # a plain attribute of a module
    return convs


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
        self._encoding = _number(self.encoder, self.downsample)
        self._decoding = _number(self.upsample, self.decoder)

    def _stream(self, convs: list[Conv], slots: int, frames: int, window: int | None) -> MimiStream:
        config, weight = self.config, self.downsample.conv.weight
        positions = frames * config.resample
        cache = KVCache(
            config.layers, slots, config.kv_heads, config.head_dim,
            positions if window is None else window + positions - 1,
            window=window, device=weight.device, dtype=weight.dtype,
        )  # fmt: skip
        return MimiStream([conv.past(slots) for conv in convs], cache)

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
        walk = _Walk(stream, slice(0, 1), None, fresh)
        x = self.encoder(pcm.to(self.downsample.conv.weight.dtype), walk)
        width = x.shape[-1]
        x = self.encoder_transformer(x, stream.cache, stream.cache.span(walk.rows, [width], width))
        x = self.downsample(x, walk.past(self.downsample), None, fresh)
        return self.quantizer.encode(x, books)

    def decode(
        self,
        codes: Tensor,
        stream: MimiStream,
        rows: slice,
        active: Tensor | None = None,
        live: int | None = None,
    ) -> Tensor:
        """`(B, books, T)` codes of `rows` to `(B, T * frame)` samples; rows not `active` `(B,)` stand still.

        None is all, decided by the host; with a mask only the device knows, and no row's positions in the
        cache's ring go behind `live` (None: its capacity). Ids that are no codeword become the last one, as
        the goldens have it.
        """
        walk = _Walk(stream, rows, active, fresh=False)
        x = self.quantizer.decode(codes.clamp(max=self.config.codebook_size - 1))
        x = self.upsample(x.to(self.upsample.conv.weight.dtype), walk.past(self.upsample), active)
        cache, width = stream.cache, x.shape[-1]
        if active is None:
            span = cache.span(rows, [width] * len(codes), width)
        else:
            span = cache.device_span(rows, active * width, width, cache.capacity if live is None else live)
        x = self.decoder_transformer(x, cache, span)
        return self.decoder(x, walk).flatten(1)  # type: ignore[no-any-return]  # nn.Module's call
