"""What a checkpoint is made of, and the memory that it and its slots take."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Self

from model.chroma.network.cache import PAGE
from model.chroma.network.checkpoint import UNREAD, Stored
from model.chroma.network.config import ChromaConfig
from model.chroma.serving.slots import Positions

PARTS: Final = (
    ("thinker.visual.", "visual tower"),
    ("thinker.audio_tower.", "audio encoder"),
    ("thinker.model.embed_tokens.", "thinker embedding"),
    ("thinker.model.", "thinker layers"),
    ("thinker.lm_head.", "thinker head"),
    ("backbone.audio_embedding.", "shared audio table"),
    ("decoder.audio_embedding.", "shared audio table"),
    ("backbone.", "backbone"),
    ("decoder.", "decoder"),
    ("codec_model.encoder.", "Mimi encoder"),
    ("codec_model.encoder_transformer.", "Mimi encoder"),
    ("codec_model.downsample.", "Mimi encoder"),
    ("codec_model.quantizer.", "Mimi quantizer"),
    ("codec_model.", "Mimi decoder"),
)
"""By the beginning of the official name; the first that fits."""


@dataclass(slots=True)
class Part:
    name: str
    loaded: bool
    tensors: int = 0
    numel: int = 0


def parts(tensors: Mapping[str, Stored]) -> list[Part]:
    """The parts in the model's order; what is never read stands apart."""
    found: dict[tuple[str, bool], Part] = {}
    for name, tensor in tensors.items():
        loaded = not UNREAD.match(name)
        title = next((title for start, title in PARTS if name.startswith(start)), "unknown")
        part = found.setdefault((title, loaded), Part(title, loaded))
        part.tensors += 1
        part.numel += tensor.numel
    order = [title for _, title in PARTS]
    return sorted(found.values(), key=lambda part: (not part.loaded, order.index(part.name)))


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes of conversation state. `promised`: the positions for which there is memory for each slot."""

    promised: Positions
    thinker_position: int
    backbone_position: int
    codec: int
    slot: int
    most: int
    """what a slot would take that had all of its context and of the backbone for itself"""

    @classmethod
    def of(
        cls, config: ChromaConfig, itemsize: int, context: int, promised: Positions, kept: int | None = None
    ) -> Self:
        """What a slot takes, its numbers in `itemsize` bytes and those of thinker's and backbone's caches in
        `kept` (None: the same); Mimi's state is float32."""
        kept = kept or itemsize
        context, reply = min(context, config.thinker.positions), config.backbone.positions
        thinker = config.thinker.kv_floats * kept
        backbone = config.backbone.kv_floats * kept
        codec = config.codec
        ring = codec.window + codec.resample
        kv = 2 * codec.layers * codec.kv_heads * codec.head_dim * ring * 4
        decoder = config.decoder.kv_floats * itemsize * config.codebooks
        sure = Positions(
            -(-min(context, promised.context) // PAGE) * PAGE, -(-min(reply, promised.reply) // PAGE) * PAGE
        )
        slot = sure.context * thinker + sure.reply * backbone + kv + decoder
        most = slot + (context - sure.context) * thinker + (reply - sure.reply) * backbone
        return cls(sure, thinker, backbone, kv, slot, most)
