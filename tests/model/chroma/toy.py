"""A checkpoint unlike the goldens and `model.chroma.tools.toy` in every size: widths, heads, ratios, RoPE.

Its weights are drawn, so there is no official answer; tests compare ways of computing the same with it, and
parts of it with transformers' own modules.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from model.chroma.network import checkpoint, config
from model.chroma.network.weights import Chroma
from model.chroma.tools.toy import fill

ROPE = {"rope_type": "default", "rope_theta": 10_000.0}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500_000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}

TABLE: dict[str, Any] = {
    "model_type": "chroma",
    "architectures": ["ChromaForConditionalGeneration"],
    "audio_num_codebooks": 5,
    "audio_frame_freq": 48,
    "codebook_eos_token_id": 0,
    "im_end_token_id": 299,
    "text_start_token_id": 301,
    "text_end_token_id": 302,
    "thinker_config": {
        "audio_token_index": 303,
        "audio_start_token_id": 304,
        "audio_end_token_id": 305,
        "pad_token_id": 306,
        "text_config": {
            "vocab_size": 310,
            "hidden_size": 48,
            "intermediate_size": 80,
            "num_hidden_layers": 3,
            "num_attention_heads": 6,
            "num_key_value_heads": 3,
            "max_position_embeddings": 4096,
            "rms_norm_eps": 1e-6,
            "rope_parameters": {**ROPE, "mrope_section": [1, 1, 2]},
        },
        "audio_config": {
            "num_mel_bins": 80,
            "d_model": 24,
            "encoder_layers": 3,
            "encoder_attention_heads": 3,
            "encoder_ffn_dim": 40,
            "n_window": 30,
            "output_dim": 48,
        },
    },
    "backbone_config": {
        "vocab_size": 67,
        "hidden_size": 48,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 1,
        "head_dim": 12,
        "max_position_embeddings": 600,
        "rms_norm_eps": 1e-5,
        "rope_parameters": ROPE,
    },
    "decoder_config": {
        "vocab_size": 67,
        "hidden_size": 20,
        "intermediate_size": 36,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "head_dim": 10,
        "max_position_embeddings": 33,
        "rms_norm_eps": 1e-5,
        "rope_parameters": ROPE,
    },
    "codec_config": {
        "sampling_rate": 24_000,
        "num_filters": 3,
        "kernel_size": 5,
        "last_kernel_size": 3,
        "residual_kernel_size": 3,
        "num_residual_layers": 2,
        "dilation_growth_rate": 2,
        "compress": 1,
        "upsampling_ratios": [4, 3, 2],
        "upsample_groups": 16,
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "norm_eps": 1e-5,
        "rope_parameters": ROPE,
        "sliding_window": 10,
        "num_quantizers": 5,
        "num_semantic_quantizers": 2,
        "codebook_size": 64,
        "codebook_dim": 12,
        "vector_quantization_hidden_dimension": 12,
    },
}


def model(seed: int = 0, dtype: torch.dtype = torch.float32) -> Chroma:
    return fill(checkpoint.blueprint(config.parse(TABLE)), seed, dtype)


def save(directory: Path, stored: dict[str, Tensor], shards: int = 1) -> Path:
    """A checkpoint's directory."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").write_text(json.dumps(TABLE))
    if shards == 1:
        save_file(stored, directory / checkpoint.SINGLE)
        return directory
    where = {name: f"model-{k % shards + 1:05}-of-{shards:05}.safetensors" for k, name in enumerate(stored)}
    for file in set(where.values()):
        save_file({name: stored[name] for name, place in where.items() if place == file}, directory / file)
    (directory / checkpoint.INDEX).write_text(json.dumps({"weight_map": where}))
    return directory
