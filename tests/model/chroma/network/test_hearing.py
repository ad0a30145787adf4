"""Hearing: mel frames and audio tokens of a sound that comes in pieces."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from model.chroma.network import checkpoint
from model.chroma.network.hearing import AudioTower, Ear, Mel, tokens
from model.chroma.serving.chunk_encoder import ChunkEncoder
from tests.model.chroma import toy


@pytest.fixture(scope="module")
def tower(toy_model: checkpoint.Chroma) -> AudioTower:
    return toy_model.thinker.audio_tower


MEL = Mel(80)


def speech(samples: int, seed: int = 0, rising: bool = False) -> Tensor:
    """Noise in syllables, with digital silence between them."""
    draw = torch.Generator().manual_seed(seed)
    at = torch.arange(samples) / 16_000
    level = (0.5 + 0.5 * torch.sin(2 * torch.pi * 3 * at)).clamp(min=0.3) - 0.3
    if rising:
        level = level * torch.linspace(0.01, 1, samples)
    return 0.4 * level * torch.randn(samples, generator=draw)


@torch.inference_mode()
def hear(tower: AudioTower, sound: Tensor, pieces: int | random.Random, **more: Any) -> Ear:
    """Pushes and listens piece by piece."""
    ear = Ear(tower, MEL, **more)
    at = 0
    while at < len(sound):
        size = pieces if isinstance(pieces, int) else pieces.choice([1, 7, 160, 320, 5000])
        ear.push(sound[at : at + size])
        ear.listen()
        at += size
    ear.finish()
    ear.listen()
    return ear


def whisper(sound: Tensor) -> Tensor:
    """The official features: padded with zeros, cut to ceil(samples / 160) frames."""
    from transformers import WhisperFeatureExtractor

    extractor = WhisperFeatureExtractor(feature_size=80)
    frames = -(-len(sound) // 160)
    made = extractor(sound.numpy(), sampling_rate=16_000, return_tensors="pt").input_features[0]
    return made[:, :frames]


LENGTHS = [1, 159, 200, 201, 400, 1600, 9_600, 9_601, 9_640, 33_333]
"""9,600 samples are one chunk of the toy's 60 mel frames."""


@pytest.mark.parametrize("samples", LENGTHS)
@pytest.mark.parametrize("pieces", [320, 10_000, 0], ids=["20ms", "long", "odd"])
def test_mel_frames_are_whispers_whatever_the_pieces(tower: AudioTower, samples: int, pieces: int) -> None:
    sound = speech(samples)
    ear = hear(tower, sound, pieces or random.Random(samples))
    torch.testing.assert_close(ear.features(), whisper(sound), atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("samples", LENGTHS)
@pytest.mark.parametrize("rising", [False, True])
@torch.inference_mode()
def test_hearing_in_pieces_is_hearing_the_whole(tower: AudioTower, samples: int, rising: bool) -> None:
    sound = speech(samples, rising=rising)
    whole = tower.whole(whisper(sound))
    ear = hear(tower, sound, 320)
    assert len(whole) == tokens(-(-samples // 160))
    torch.testing.assert_close(ear.heard(), whole, atol=1e-4, rtol=1e-4)


@torch.inference_mode()
def test_the_tower_is_transformers_audio_encoder(tower: AudioTower) -> None:
    from transformers.models.qwen2_5_omni.configuration_qwen2_5_omni import Qwen2_5OmniAudioEncoderConfig
    from transformers.models.qwen2_5_omni.modeling_qwen2_5_omni import Qwen2_5OmniAudioEncoder

    theirs = Qwen2_5OmniAudioEncoder(
        Qwen2_5OmniAudioEncoderConfig(**toy.TABLE["thinker_config"]["audio_config"])
    )
    missing = theirs.load_state_dict(tower.state_dict(), strict=False)
    assert missing.missing_keys == ["audio_bos_eos_token.weight"]
    for frames in (60, 61, 62, 63, 150):
        mel = torch.randn(80, frames, generator=torch.Generator().manual_seed(frames))
        expected = theirs.eval()(mel, feature_lens=torch.tensor([frames])).last_hidden_state
        torch.testing.assert_close(tower.whole(mel), expected, atol=2e-5, rtol=1e-4)


@torch.inference_mode()
def test_float32_is_near_float64(tower: AudioTower) -> None:
    wide = toy.model(dtype=torch.float64).thinker.audio_tower
    mel = torch.randn(80, 150, generator=torch.Generator().manual_seed(9))
    torch.testing.assert_close(tower.whole(mel).double(), wide.whole(mel), atol=1e-4, rtol=1e-4)


def test_a_rising_voice_makes_chunks_be_encoded_again_and_a_steady_one_does_not(tower: AudioTower) -> None:
    chunks = 5
    steady, rising = speech(9_600 * chunks), speech(9_600 * chunks, rising=True)
    steady[:100] = 1.0  # the loudest comes first
    assert hear(tower, steady, 320).encoded_chunks == chunks
    assert hear(tower, rising, 320).encoded_chunks > chunks
    assert hear(tower, rising, 320, maximum="running").encoded_chunks == chunks


def test_the_running_maximum_differs_where_the_voice_rises(tower: AudioTower) -> None:
    rising = speech(48_000, rising=True)
    exact, running = (hear(tower, rising, 320, maximum=kind).heard() for kind in ("exact", "running"))
    assert exact.shape == running.shape
    assert (exact - running).abs().max() > 1e-3


@torch.inference_mode()
def test_listening_says_from_where_tokens_changed(tower: AudioTower) -> None:
    """A follower that cuts and feeds as told ends with the tokens of the whole."""
    sound = speech(60_000, rising=True)
    ear, followed, chunk = Ear(tower, MEL), torch.zeros(0, 48), 0
    for part in [*sound.split(320), None]:
        if part is None:
            ear.finish()
        else:
            ear.push(part)
        if (chunk := ear.listen()) is not None:  # type: ignore[assignment]
            followed = torch.cat((followed[: ear.before(chunk)], ear.heard(chunk)))
    torch.testing.assert_close(followed, tower.whole(whisper(sound)), atol=1e-4, rtol=1e-4)


def test_mels_equal_the_goldens(golden: Any, chroma_a: checkpoint.Chroma) -> None:
    for path in golden.glob("case-*.npz"):
        case = np.load(path)
        for k in range(len(case["in_thinker_input_features"])):
            sound = torch.from_numpy(case[f"in_user_wave16k_{k}"])
            ear = Ear(chroma_a.thinker.audio_tower, Mel(128))
            for part in sound.split(320):
                ear.push(part)
            ear.finish()
            theirs = case["in_thinker_input_features"][k][
                :, case["in_thinker_feature_attention_mask"][k] == 1
            ]
            np.testing.assert_allclose(ear.features().numpy(), theirs, atol=1e-6)


# ── several at once ──────────────────────────────────────────────────────────────────────────────────────


@torch.inference_mode()
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_chunks_of_any_lengths_in_one_pass_are_what_each_is_alone(dtype: torch.dtype) -> None:
    """Padded and masked, also to more than the longest, as a graph pads them."""
    tower = toy.model(dtype=dtype).thinker.audio_tower
    draw = torch.Generator().manual_seed(4)
    lengths = [60, 1, 2, 3, 4, 37, 59, 60, 5, 32]
    mels = [torch.randn(80, length, generator=draw) for length in lengths]
    near = {"atol": 1e-10, "rtol": 1e-10} if dtype == torch.float64 else {"atol": 1e-5, "rtol": 1e-4}
    for some in (mels, mels[1:5], mels[:1] * 3):
        for mel, heard in zip(some, tower.encode(some), strict=True):
            torch.testing.assert_close(heard, tower(mel[None])[0], **near)
    padded = torch.zeros(len(mels), 80, 60)
    for row, mel in zip(padded, mels, strict=True):
        row[:, : mel.shape[1]] = mel
    graphed = tower(padded, torch.tensor(lengths))
    for mel, heard in zip(mels, graphed, strict=True):
        torch.testing.assert_close(heard[: tokens(mel.shape[1])], tower(mel[None])[0], **near)


@torch.inference_mode()
def test_a_pass_takes_no_more_chunks_than_its_largest_graph(tower: AudioTower) -> None:
    encoder = ChunkEncoder(tower)
    mels = [torch.randn(80, 60 - k, generator=torch.Generator().manual_seed(k)) for k in range(37)]
    sizes: list[int] = []
    whole = tower.encode
    tower.encode = lambda mels: (sizes.append(len(mels)), whole(mels))[1]  # type: ignore[method-assign, func-returns-value]
    try:
        found = encoder(mels)
    finally:
        del tower.encode  # type: ignore[method-assign]
    assert sizes == [16, 16, 5]
    for mel, heard in zip(mels, found, strict=True):
        torch.testing.assert_close(heard, tower(mel[None])[0], atol=1e-5, rtol=1e-4)


def test_an_ear_knows_when_its_next_chunk_is_whole(tower: AudioTower) -> None:
    ear, sound = Ear(tower, MEL), speech(60_000)
    at = 0
    for number in range(1, 6):
        missing = ear.missing
        ear.push(sound[at : at + missing - 1])
        assert ear.chunks == number - 1
        ear.push(sound[at + missing - 1 : at + missing])
        assert ear.chunks == number
        at += missing
