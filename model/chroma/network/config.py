"""What a checkpoint's `config.json` says, typed: the sizes of every part and the ids with a meaning.

A key that the official classes let default has the same default here; every other missing key is a
`CheckpointError` that names it. Nothing else in the engine knows a size.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from model.errors import CheckpointError

ARCHITECTURE: Final = "ChromaForConditionalGeneration"
FULL_SIZE: Final = Path(__file__).with_name("chroma-4b.json")
"""The full model's sizes, reconstructed to agree with the public counts."""


@dataclass(frozen=True, slots=True)
class Llama3Scaling:
    """RoPE frequencies stretched for long contexts, as Llama 3.1 does it."""

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_positions: int


@dataclass(frozen=True, slots=True)
class RopeConfig:
    theta: float
    scaling: Llama3Scaling | None = None


@dataclass(frozen=True, slots=True)
class StackConfig:
    """A Llama-like stack: thinker text, backbone and decoder."""

    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    eps: float
    rope: RopeConfig
    qkv_bias: bool
    out_bias: bool
    mlp_bias: bool
    vocab: int
    positions: int

    @property
    def kv_floats(self) -> int:
        """Floats of keys and values that one position takes."""
        return 2 * self.layers * self.kv_heads * self.head_dim

    @property
    def products(self) -> int:
        """Weights of all layers' matrices, each a product for every position."""
        attention = 2 * self.hidden * (self.heads + self.kv_heads) * self.head_dim
        return self.layers * (attention + 3 * self.hidden * self.intermediate)


@dataclass(frozen=True, slots=True)
class HearingConfig:
    """The audio encoder (Whisper-like, within chunks of `2 * window` mel frames)."""

    mels: int
    hidden: int
    layers: int
    heads: int
    intermediate: int
    window: int
    out: int

    @property
    def chunk(self) -> int:
        """Mel frames that attend to each other."""
        return 2 * self.window


@dataclass(frozen=True, slots=True)
class CodecConfig:
    """Mimi."""

    rate_hz: int
    filters: int
    kernel: int
    last_kernel: int
    residual_kernel: int
    residual_layers: int
    dilation_growth: int
    compress: int
    conv_shortcut: bool
    ratios: tuple[int, ...]
    resample: int
    """transformer positions of one frame"""
    upsample_groups: int
    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    attention_bias: bool
    eps: float
    rope: RopeConfig
    window: int
    quantizers: int
    semantic: int
    codebook_size: int
    codebook_dim: int
    quantizer_dim: int

    @property
    def frame(self) -> int:
        """Samples of one frame."""
        return math.prod(self.ratios) * self.resample


@dataclass(frozen=True, slots=True)
class ChromaConfig:
    """The whole model. Ids are of the thinker's vocabulary unless they say codebook."""

    thinker: StackConfig
    hearing: HearingConfig
    backbone: StackConfig
    decoder: StackConfig
    codec: CodecConfig
    codebooks: int
    codebook_vocab: int
    codebook_eos: int
    im_end: int
    text_start: int
    text_end: int
    audio_token: int
    audio_start: int
    audio_end: int
    pad: int
    specials: frozenset[int]
    """every id above that is no text"""

    @property
    def codebook_size(self) -> int:
        """Ids below this are sound."""
        return self.codec.codebook_size

    @property
    def frame_s(self) -> float:
        return self.codec.frame / self.codec.rate_hz


class _Section:
    """A JSON object that names its keys in errors."""

    def __init__(self, table: Mapping[str, Any], where: str) -> None:
        self._table = table
        self.where = where

    def get(self, key: str, default: Any = None) -> Any:
        value = self._table.get(key)
        return default if value is None else value

    def need(self, key: str) -> Any:
        value = self._table.get(key)
        if value is None:
            raise CheckpointError(f"{self.where}: {key} is missing")
        return value

    def section(self, key: str) -> _Section:
        value = self.need(key)
        if not isinstance(value, Mapping):
            raise CheckpointError(f"{self.where}: {key} must be an object")
        return _Section(value, f"{self.where}: {key}")

    def only(self, key: str, *allowed: Any) -> None:
        """An option that this engine knows in one way only."""
        value = self.get(key, allowed[0])
        if value not in allowed:
            raise CheckpointError(f"{self.where}: {key} = {value!r}; this engine knows {allowed[0]!r} only")


def _rope(section: _Section, default_theta: float | None = None) -> RopeConfig:
    table = {**section.get("rope_scaling", {}), **section.get("rope_parameters", {})}
    given = _Section(table, f"{section.where}: rope_parameters")
    theta = given.get("rope_theta", section.get("rope_theta", default_theta))
    if theta is None:
        raise CheckpointError(f"{given.where}: rope_theta is missing")
    given.only("partial_rotary_factor", 1.0)
    kind = given.get("rope_type", given.get("type", "default"))
    if kind in ("default", "mrope"):  # M-RoPE's three axes are equal where there are no pictures
        return RopeConfig(float(theta))
    if kind != "llama3":
        raise CheckpointError(f"{given.where}: rope_type {kind!r} is unknown; known: default, llama3")
    return RopeConfig(
        float(theta),
        Llama3Scaling(
            float(given.need("factor")),
            float(given.need("low_freq_factor")),
            float(given.need("high_freq_factor")),
            int(given.need("original_max_position_embeddings")),
        ),
    )


def _stack(section: _Section, *, qkv_bias: bool | None = None, default_theta: float) -> StackConfig:
    section.only("hidden_act", "silu")
    section.only("use_sliding_window", False)
    hidden, heads = int(section.need("hidden_size")), int(section.need("num_attention_heads"))
    kv_heads = int(section.get("num_key_value_heads", heads))
    if heads % kv_heads:
        raise CheckpointError(f"{section.where}: {heads} heads cannot share {kv_heads} key-value heads")
    bias = bool(section.get("attention_bias", False))
    return StackConfig(
        hidden=hidden,
        intermediate=int(section.need("intermediate_size")),
        layers=int(section.need("num_hidden_layers")),
        heads=heads,
        kv_heads=kv_heads,
        head_dim=int(section.get("head_dim", hidden // heads)),
        eps=float(section.need("rms_norm_eps")),
        rope=_rope(section, default_theta),
        qkv_bias=bias if qkv_bias is None else qkv_bias,
        out_bias=bias and qkv_bias is None,
        mlp_bias=bool(section.get("mlp_bias", False)),
        vocab=int(section.need("vocab_size")),
        positions=int(section.need("max_position_embeddings")),
    )


def _hearing(section: _Section) -> HearingConfig:
    section.only("activation_function", "gelu")
    section.only("scale_embedding", False)
    return HearingConfig(
        mels=int(section.get("num_mel_bins", 128)),
        hidden=int(section.get("d_model", 1280)),
        layers=int(section.get("encoder_layers", 32)),
        heads=int(section.get("encoder_attention_heads", 20)),
        intermediate=int(section.get("encoder_ffn_dim", 5120)),
        window=int(section.get("n_window", 100)),
        out=int(section.need("output_dim")),
    )


def _codec(section: _Section, frame: int) -> CodecConfig:
    section.only("audio_channels", 1)
    section.only("hidden_act", "gelu")
    section.only("use_causal_conv", True)
    section.only("trim_right_ratio", 1.0)
    section.only("pad_mode", "constant")
    ratios = tuple(int(r) for r in section.get("upsampling_ratios", (8, 6, 5, 4)))
    resample, rest = divmod(frame, math.prod(ratios))
    if rest or resample != 2:  # the official classes know a stride of 2 only
        raise CheckpointError(f"{section.where}: frames of {frame} samples do not follow from {ratios}")
    hidden = int(section.get("hidden_size", 512))
    heads = int(section.get("num_attention_heads", 8))
    dim = int(section.get("codebook_dim", 256))
    return CodecConfig(
        rate_hz=int(section.get("sampling_rate", 24_000)),
        filters=int(section.get("num_filters", 64)),
        kernel=int(section.get("kernel_size", 7)),
        last_kernel=int(section.get("last_kernel_size", 3)),
        residual_kernel=int(section.get("residual_kernel_size", 3)),
        residual_layers=int(section.get("num_residual_layers", 1)),
        dilation_growth=int(section.get("dilation_growth_rate", 2)),
        compress=int(section.get("compress", 2)),
        conv_shortcut=bool(section.get("use_conv_shortcut", False)),
        ratios=ratios,
        resample=resample,
        upsample_groups=int(section.get("upsample_groups", 512)),
        hidden=hidden,
        intermediate=int(section.get("intermediate_size", 2048)),
        layers=int(section.get("num_hidden_layers", 8)),
        heads=heads,
        kv_heads=int(section.get("num_key_value_heads", heads)),
        head_dim=int(section.get("head_dim", hidden // heads)),
        attention_bias=bool(section.get("attention_bias", False)),
        eps=float(section.get("norm_eps", 1e-5)),
        rope=_rope(section, 10_000.0),
        window=int(section.get("sliding_window", 250)),
        quantizers=int(section.get("num_quantizers", 32)),
        semantic=int(section.get("num_semantic_quantizers", 1)),
        codebook_size=int(section.get("codebook_size", 2048)),
        codebook_dim=dim,
        quantizer_dim=int(section.get("vector_quantization_hidden_dimension", dim)),
    )


def parse(table: Mapping[str, Any], where: str = "config.json") -> ChromaConfig:
    """The configuration in a `config.json` object. Raises `CheckpointError` naming the key."""
    top = _Section(table, where)
    kinds = top.get("architectures", [])
    if ARCHITECTURE not in kinds or top.get("model_type", "chroma") != "chroma":
        found = ", ".join(map(str, kinds)) or top.get("model_type", "nothing")
        raise CheckpointError(f"{where}: this is {found}, not {ARCHITECTURE}")
    thinker = top.section("thinker_config")
    text = _stack(thinker.section("text_config"), qkv_bias=True, default_theta=1_000_000.0)
    backbone = _stack(top.section("backbone_config"), default_theta=500_000.0)
    decoder = _stack(top.section("decoder_config"), default_theta=500_000.0)
    codec = _codec(top.section("codec_config"), int(top.need("audio_frame_freq")))
    hearing = _hearing(thinker.section("audio_config"))
    codebooks = int(top.need("audio_num_codebooks"))
    for name, size in (("backbone", backbone.hidden), ("audio encoder", hearing.out)):
        if size != text.hidden:
            raise CheckpointError(
                f"{where}: the {name} is {size} wide and the thinker {text.hidden}; they share embeddings"
            )
    if codec.quantizers < codebooks:
        raise CheckpointError(f"{where}: {codebooks} codebooks, but the codec has {codec.quantizers}")
    ids = {
        "im_end": int(top.need("im_end_token_id")),
        "text_start": int(top.need("text_start_token_id")),
        "text_end": int(top.need("text_end_token_id")),
        "audio_token": int(thinker.need("audio_token_index")),
        "audio_start": int(thinker.need("audio_start_token_id")),
        "audio_end": int(thinker.need("audio_end_token_id")),
        "pad": int(thinker.need("pad_token_id")),
    }
    others = ("image_token_index", "video_token_index", "vision_start_token_id", "vision_end_token_id",
              "user_token_id")  # fmt: skip
    specials = {*ids.values(), *(int(v) for key in others if (v := thinker.get(key)) is not None)}
    for name, token in ids.items():
        if not 0 <= token < text.vocab:
            raise CheckpointError(f"{where}: {name} = {token} is outside the vocabulary of {text.vocab}")
    return ChromaConfig(
        thinker=text,
        hearing=hearing,
        backbone=backbone,
        decoder=decoder,
        codec=codec,
        codebooks=codebooks,
        codebook_vocab=backbone.vocab,
        codebook_eos=int(top.get("codebook_eos_token_id", 0)),
        specials=frozenset(specials),
        **ids,
    )


def read(path: Path) -> ChromaConfig:
    """The configuration in the file. Raises `CheckpointError`."""
    try:
        table = json.loads(path.read_text())
    except OSError as error:
        raise CheckpointError(f"{path}: {error.strerror}") from None
    except ValueError as error:
        raise CheckpointError(f"{path}: no JSON: {error}") from None
    if not isinstance(table, dict):
        raise CheckpointError(f"{path}: no JSON object")
    return parse(table, str(path))
