"""How a Chroma engine runs: what operators set, the device and precision that it comes to, and the memory
that each conversation is promised.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, Self, get_args

import torch

from model.chroma.network.precision import KV, Weights
from model.chroma.serving.conductor import LEAD_S
from model.chroma.serving.slots import Positions
from model.errors import CheckpointError, EngineError

VOICE: Final = 256
"""Positions that a voice takes, for which there is memory: 15 s of clip with its words."""
AUTO: Final[Literal["auto"]] = "auto"
FP8_FROM: Final = (8, 9)
"""The compute capability from which a GPU's own instructions know e4m3, which kernels ask for."""
DTYPES: Final = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def _calls(value: str) -> int | Literal["auto"]:
    return AUTO if value == AUTO else int(value)


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """How the engine runs. `context`: the thinker's positions of each conversation at most."""

    conversations: int | Literal["auto"] = 4
    """"auto": as many as are measured to keep time and to fit in memory"""
    device: str = "auto"
    """"auto": the GPU where there is one"""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """"auto": bfloat16 on a GPU, float32 elsewhere"""
    weights: Weights = "full"
    """"int8" or "fp8": linear layers in bytes, see `precision`"""
    kv: KV = "full"
    """"fp8": keys and values of thinker and backbone in bytes, see `precision`"""
    context: int = 4096
    promised: int = 1536
    """positions of the context that each conversation is sure to have; it has more while others leave it"""
    reply_s: float = 60.0
    lead_s: float = LEAD_S
    """how far a reply may be ahead of its playout"""
    temperature: float = 0.7
    top_k: int = 50
    top_p: float = 1.0
    mel_maximum: Literal["exact", "running"] = "exact"
    """"running" never encodes a chunk twice; it hears four utterances of ten a little differently"""
    text_lead_s: float = 0.0
    """how far text runs ahead of the sound that says it; not measured, since that takes the real weights"""
    voices_bytes: int = 2 << 30

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Self:
        """As the gateway's settings of the same names say. Raises `EngineError` for a wrong one."""
        given: dict[str, Any] = {}
        for name, field, kind in (
            ("VOICEGATE_ENGINE_CALLS", "conversations", _calls),
            ("VOICEGATE_CHROMA_LEAD_S", "lead_s", float),
            ("VOICEGATE_CHROMA_DEVICE", "device", str),
            ("VOICEGATE_CHROMA_DTYPE", "dtype", str),
            ("VOICEGATE_CHROMA_WEIGHTS", "weights", str),
            ("VOICEGATE_CHROMA_KV", "kv", str),
            ("VOICEGATE_CHROMA_CONTEXT", "context", int),
            ("VOICEGATE_CHROMA_PROMISED", "promised", int),
            ("VOICEGATE_CHROMA_REPLY_S", "reply_s", float),
        ):
            if value := environ.get(name):
                try:
                    given[field] = kind(value)
                except ValueError:
                    raise EngineError(f"{name}={value} is not a number") from None
                if not isinstance(given[field], str) and given[field] <= 0:
                    raise EngineError(f"{name}={value} must be above 0")
        return cls(**given)


def reply_positions(frames: int) -> int:
    """The backbone's for a reply: every second frame brings a state and a word besides itself."""
    return 2 * frames + 2


def frames_of(reply_s: float, frame_s: float) -> int:
    """The most frames of a reply."""
    return max(1, round(reply_s / frame_s))


def promises(context: int, reply_s: float, frame_s: float) -> Positions:
    """For how many positions each conversation has memory."""
    return Positions(context, VOICE + reply_positions(frames_of(reply_s, frame_s)))


def place(settings: EngineSettings) -> tuple[torch.device, torch.dtype]:
    """Where to run and how precisely. Raises `CheckpointError` for what is not there.

    float32 is float32 on every device from here on, in serving as in the proof: torch would let cuDNN round
    what goes into Mimi's convolutions to TF32's 10 bits.
    """
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    name = settings.device
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise CheckpointError(f"Chroma cannot run on {name}: torch sees no GPU here")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise CheckpointError(f"{name} is not a device of torch: cpu, cuda, cuda:1, …") from None
    dtype = settings.dtype
    if dtype == "auto":
        dtype = "bfloat16" if device.type == "cuda" else "float32"
    if dtype not in DTYPES:
        raise CheckpointError(f"Chroma runs in {' or '.join(DTYPES)}, not in {dtype}")
    if settings.weights not in get_args(Weights):
        raise CheckpointError(f"Chroma keeps weights {', '.join(get_args(Weights))}, not {settings.weights}")
    if settings.kv not in get_args(KV):
        raise CheckpointError(f"Chroma keeps keys and values {', '.join(get_args(KV))}, not {settings.kv}")
    narrow = "fp8" in (settings.weights, settings.kv)
    if narrow and device.type == "cuda" and torch.cuda.get_device_capability(device) < FP8_FROM:
        raise CheckpointError(
            f"{torch.cuda.get_device_name(device)} has no fp8: there weights are full or int8, and keys and "
            "values are full"
        )
    return device, DTYPES[dtype]
