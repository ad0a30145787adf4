"""A toy checkpoint: the official names and layout, small sizes, drawn weights, and cases to verify it with.

It lets an engine, its benchmarks and a whole gateway run where there is no checkpoint; its words and its
sound mean nothing. Its cases hold what this engine computes one-shot in float64. They show that streaming, a
batch, a device or a coarser dtype give the same answer; that the answer is the official one only goldens of
the official code can show.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from model.chroma.network import checkpoint, config
from model.chroma.network.config import ChromaConfig
from model.chroma.network.hearing import EAR_HZ, HOP, tokens
from model.chroma.network.weights import Chroma
from model.chroma.serving import chat
from model.chroma.tools import golden
from model.errors import CheckpointError

SMALL: Final[dict[str, Any]] = {
    "im_end_token_id": 256,
    "text_start_token_id": 257,
    "text_end_token_id": 258,
    "codebook_pad_token_id": 34,
    "thinker_config": {
        "text_config": {
            "vocab_size": 272,
            "hidden_size": 128,
            "intermediate_size": 192,
            "num_hidden_layers": 2,
            "num_attention_heads": 8,
            "num_key_value_heads": 2,
            "rope_parameters": {"mrope_section": [2, 3, 3]},
        },
        "audio_config": {
            "d_model": 32,
            "encoder_layers": 2,
            "encoder_attention_heads": 2,
            "encoder_ffn_dim": 48,
            "output_dim": 128,
        },
        "audio_token_index": 259,
        "audio_start_token_id": 260,
        "audio_end_token_id": 261,
        "pad_token_id": 262,
        "image_token_index": 263,
        "video_token_index": 264,
        "vision_start_token_id": 265,
        "vision_end_token_id": 266,
        "user_token_id": 267,
    },
    "backbone_config": {
        "vocab_size": 35,
        "hidden_size": 128,
        "intermediate_size": 192,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
    },
    "decoder_config": {
        "audio_embedding_dim": 128,
        "vocab_size": 35,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
    },
    "codec_config": {
        "codebook_dim": 16,
        "codebook_size": 32,
        "head_dim": 16,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_attention_heads": 4,
        "num_filters": 4,
        "num_hidden_layers": 2,
        "num_key_value_heads": 4,
        "upsample_groups": 64,
        "vector_quantization_hidden_dimension": 16,
    },
}
"""What differs from the full size: widths, depths and the vocabulary, in which every byte is a word."""

LAST_CONVOLUTION: Final = "codec_model.decoder.layers.14.conv.weight"
VOLUME: Final = 0.1
"""By which that convolution is turned down, so that a call to a toy hurts nobody's ears."""
MARGIN: Final = 2 * golden.LOGITS
"""By how much each likeliest id of a case leads, so that rounding within the limits cannot change it."""


@dataclass(frozen=True, slots=True)
class Plan:
    """One case to record: `heard_s` seconds of each of the user's turns, `reference_s` of the voice's clip,
    `frames` of the answer."""

    name: str
    heard_s: tuple[float, ...]
    reference_s: float
    frames: int


PLANS: Final = (
    Plan("one_turn", (1.7,), 1.2, 24),
    Plan("two_turns", (1.1, 2.3), 1.2, 24),
    Plan("long", (6.4,), 3.1, 140),
)


def table() -> dict[str, Any]:
    """A `config.json` object: the full size's with the sizes of `SMALL`."""
    full: dict[str, Any] = json.loads(config.FULL_SIZE.read_text())
    del full["_comment"]
    return _changed(full, SMALL)


def _changed(table: Mapping[str, Any], by: Mapping[str, Any]) -> dict[str, Any]:
    """`table` with the leaves of `by`."""
    changed = dict(table)
    for key, value in by.items():
        changed[key] = _changed(changed[key], value) if isinstance(value, dict) else value
    return changed


def fill(model: Chroma, seed: int = 0, dtype: torch.dtype = torch.float32) -> Chroma:
    """A blueprint with drawn weights, loud enough that words and codes vary."""
    draw = torch.Generator().manual_seed(seed)

    def drawn(name: str, like: Tensor) -> Tensor:
        noise = torch.randn(like.shape, generator=draw, dtype=torch.float64)
        if name.endswith("cluster_usage"):
            return noise.abs() + 0.5
        if "norm" in name or "ln_post" in name:
            return 1 + 0.1 * noise if name.endswith("weight") else 0.1 * noise
        if name.endswith("scale"):
            return 0.3 + 0.1 * noise
        if like.dim() == 1:
            return 0.1 * noise
        fan_in = like[0].numel() if not name.startswith("decoder.codebook_head") else like.shape[1]
        gain = 3.0 if "head" in name or "embed" in name or name == "audio_table" else 1.2
        return gain * noise if name == "audio_table" else gain * noise / fan_in**0.5

    for name, like in model.state_dict().items():
        checkpoint.place(model, name, drawn(name, like).to(dtype))
    return model.eval()


def tensors(model: Chroma, name: str = checkpoint.TABLE[0]) -> dict[str, Tensor]:
    """The model's tensors as the official release stores them, the shared table as `name`, with tensors that
    the official release has and nobody reads."""
    hearing = model.config.hearing
    return {
        **{
            name if ours == "audio_table" else ours: tensor.clone()
            for ours, tensor in model.state_dict().items()
        },
        "thinker.audio_tower.audio_bos_eos_token.weight": torch.zeros(2, hearing.out),
        "thinker.visual.patch_embed.proj.weight": torch.zeros(4, 3, 2, 2, 2),
        "codec_model.quantizer.semantic_residual_vector_quantizer.layers.0.codebook.initialized": (
            torch.ones(1)
        ),
    }


def write(directory: Path) -> list[str]:
    """Writes a checkpoint and its cases into a new or empty directory; returns the cases' names.

    Raises `CheckpointError` when the directory holds something already or cannot be written.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if any(directory.iterdir()):
            raise CheckpointError(f"{directory} is not empty; name a new directory")
        (directory / checkpoint.CONFIG).write_text(json.dumps(table(), indent=1) + "\n")
        model = fill(checkpoint.blueprint(config.parse(table())))
        checkpoint.place(model, LAST_CONVOLUTION, VOLUME * model.state_dict()[LAST_CONVOLUTION])
        save_file(tensors(model), directory / checkpoint.SINGLE)
        exact = model.double()
        for plan in PLANS:
            case = record(exact, plan)
            np.savez(directory / f"case-{case.name}.npz", allow_pickle=False, **case.arrays)
    except OSError as error:
        raise CheckpointError(f"{directory} cannot be written: {error.strerror or error}") from None
    return [plan.name for plan in PLANS]


def record(model: Chroma, plan: Plan) -> golden.Case:
    """What the model answers to drawn sound, one-shot; drawn again until each id leads by `MARGIN`."""
    for seed in itertools.count():
        asked = _question(model.config, plan, seed)
        (answer,) = golden.run(model, [asked], "one-shot")
        if _margin(answer) >= MARGIN:
            return _answered(asked, answer)
    raise AssertionError("itertools.count ends nowhere")


def _question(sizes: ChromaConfig, plan: Plan, seed: int) -> golden.Case:
    """The inputs of a case, and how many frames to answer with at the most."""
    draw = np.random.default_rng([seed, *plan.name.encode()])
    waves = [_speech(draw, seconds, EAR_HZ) for seconds in plan.heard_s]
    words = chat.stand_in(sizes)
    ids = words.system("A toy.")
    for number, wave in enumerate(waves):
        if number:
            ids += words.answer(words.encode("What a toy says."))
        sound = [sizes.audio_token] * _positions(sizes, len(wave))
        ids += [*words.user_open, *words.sound_open, *sound, *words.sound_close, *words.user_close]
    ids += words.answer_open
    reference = _speech(draw, plan.reference_s, sizes.codec.rate_hz)
    return golden.Case(
        plan.name,
        {
            "in_thinker_input_ids": np.array([ids]),
            "in_thinker_attention_mask": np.ones((1, len(ids)), np.int64),
            **{f"in_user_wave16k_{k}": wave for k, wave in enumerate(waves)},
            "in_input_ids": np.array([words.encode("What the clip says.")]),
            "in_input_values": reference[None, None],
            "in_input_values_cutoffs": np.array([len(reference)]),
            "all_step_codes": np.zeros((plan.frames, sizes.codebooks), np.int64),
        },
    )


def _speech(draw: np.random.Generator, seconds: float, rate_hz: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Noise under syllables that grow louder, and a pause; mono."""
    at = np.arange(round(seconds * rate_hz)) / rate_hz
    syllables = np.abs(np.sin(2 * np.pi * draw.uniform(1.5, 3.0) * at)) * (0.2 + at / seconds)
    pause = (at < 0.6 * seconds) | (at > 0.7 * seconds)
    sound = 0.2 * draw.standard_normal(len(at)) * syllables * pause
    return sound.astype(np.float32)


def _positions(sizes: ChromaConfig, samples: int) -> int:
    """The thinker's positions that a sound of so many samples takes."""
    chunks, rest = divmod(-(-samples // HOP), sizes.hearing.chunk)
    return chunks * tokens(sizes.hearing.chunk) + tokens(rest)


def _margin(answer: golden.Answer) -> float:
    """By how much the likeliest id leads, in the closest step of all."""
    seen = answer.seen
    steps: Sequence[Tensor] = [*seen.thinker_logits, *seen.backbone_logits, *seen.decoder_logits]
    tops = [logits.topk(2, dim=-1).values for logits in steps]
    return min(float((top[..., 0] - top[..., 1]).min()) for top in tops)


def _answered(asked: golden.Case, answer: golden.Answer) -> golden.Case:
    """The case with the arrays that `golden.verify` and `golden.agree` compare with."""
    seen = answer.seen
    longest = max(mel.shape[1] for mel in answer.mels)
    features = np.zeros((len(answer.mels), len(answer.mels[0]), longest), np.float32)
    mask = np.zeros((len(answer.mels), longest), np.int64)
    for at, mel in enumerate(answer.mels):
        features[at, :, : mel.shape[1]], mask[at, : mel.shape[1]] = mel.numpy(), 1
    tensors = {
        "all_step_codes": torch.stack(answer.steps),
        "frames": torch.stack(answer.frames),
        "ref_codes": answer.reference.T,
        "audio_tower_out": answer.heard.float(),
        "prefill_embeddings": answer.prompt.float(),
        "thinker_logits": torch.stack(seen.thinker_logits),
        "thinker_hidden": torch.stack(seen.thinker_hidden),
        "backbone_logits": torch.stack(seen.backbone_logits),
        "backbone_hidden": torch.stack(seen.backbone_hidden),
        "decoder_logits": torch.stack(seen.decoder_logits),
        "wave": answer.wave.float(),
    }
    return golden.Case(
        asked.name,
        {
            **asked.arrays,
            "in_thinker_input_features": features,
            "in_thinker_feature_attention_mask": mask,
            "text_tokens": np.array(answer.words),
            "backbone_step_lengths": np.array([len(answer.prompt), *answer.lengths]),
            **{name: tensor.cpu().numpy() for name, tensor in tensors.items()},
        },
    )
