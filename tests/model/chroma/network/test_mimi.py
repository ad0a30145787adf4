"""Mimi in pieces, in slots and past its window, against transformers' own Mimi on the whole."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from torch import Tensor

from model.chroma.network import checkpoint, config
from model.chroma.network.mimi import Mimi
from tests.model.chroma import toy

CONFIG = config.parse(toy.TABLE).codec
FRAME, BOOKS, WINDOW = CONFIG.frame, 5, CONFIG.window
ALONE = torch.tensor([0])


@pytest.fixture(scope="module")
def mimi(toy_model: checkpoint.Chroma) -> Mimi:
    return toy_model.codec_model


@pytest.fixture(scope="module")
def theirs(mimi: Mimi) -> Any:
    """transformers' Mimi with the same weights; it applies the window."""
    from transformers import MimiConfig, MimiModel

    table = {key: value for key, value in toy.TABLE["codec_config"].items() if key != "rope_parameters"}
    # its frame rate follows from the strides here, as Chroma's 12.5 Hz does
    made = MimiModel(MimiConfig(**table, rope_parameters=toy.ROPE, frame_rate=24_000 / FRAME))
    missing = made.load_state_dict(mimi.state_dict(), strict=False)
    assert all(name.endswith("initialized") for name in missing.missing_keys)
    assert not missing.unexpected_keys
    return made.eval()


def codes(frames: int, seed: int = 0, rows: int = 1) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    return torch.randint(0, CONFIG.codebook_size, (rows, BOOKS, frames), generator=draw)


def wave(samples: int, seed: int = 0) -> Tensor:
    return 0.3 * torch.randn(1, 1, samples, generator=torch.Generator().manual_seed(seed))


@torch.inference_mode()
def decode(mimi: Mimi, c: Tensor, pieces: list[int], window: int | None = WINDOW) -> Tensor:
    stream = mimi.decoding(1, c.shape[2] if window is None else max(pieces), window)
    return torch.cat([mimi.decode(part, stream, ALONE) for part in c.split(pieces, dim=2)], dim=1)


@torch.inference_mode()
def encode(mimi: Mimi, x: Tensor, pieces: list[int], window: int | None = WINDOW) -> Tensor:
    frames = -(-x.shape[2] // FRAME)
    stream = mimi.encoding(frames if window is None else max(pieces), window)
    parts = x.split([piece * FRAME for piece in pieces[:-1]] + [x.shape[2] - FRAME * sum(pieces[:-1])], dim=2)
    return torch.cat([mimi.encode(part, stream, BOOKS) for part in parts], dim=2)


CHUNKINGS = [[40], [1] * 40, [2] * 20, [3, 1, 7, 20, 9], [39, 1]]


@pytest.mark.parametrize("pieces", CHUNKINGS)
@pytest.mark.parametrize("window", [WINDOW, None], ids=["window", "official"])
def test_decoding_in_pieces_is_decoding_the_whole(mimi: Mimi, pieces: list[int], window: int | None) -> None:
    """80 positions, eight windows: the ring goes round and round."""
    c = codes(40)
    torch.testing.assert_close(
        decode(mimi, c, pieces, window), decode(mimi, c, [40], window), atol=2e-5, rtol=1e-4
    )


@pytest.mark.parametrize("pieces", CHUNKINGS)
@pytest.mark.parametrize("rest", [0, 1, 29], ids=["even", "one-missing", "19-left"])
def test_encoding_in_pieces_is_encoding_the_whole(mimi: Mimi, pieces: list[int], rest: int) -> None:
    x = wave(40 * FRAME - rest)
    assert torch.equal(encode(mimi, x, pieces), encode(mimi, x, [40]))


@torch.inference_mode()
def test_the_whole_is_what_transformers_decodes(mimi: Mimi, theirs: Any) -> None:
    c = codes(40)
    expected = theirs.decode(c).audio_values[0]
    torch.testing.assert_close(decode(mimi, c, [1] * 40), expected, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("rest", [0, 1, 29])
@torch.inference_mode()
def test_the_whole_is_what_transformers_encodes(mimi: Mimi, theirs: Any, rest: int) -> None:
    x = wave(40 * FRAME - rest, seed=3)
    assert torch.equal(encode(mimi, x, [1] * 40), theirs.encode(x).audio_codes)


def test_the_window_matters_only_past_it(mimi: Mimi) -> None:
    c, inside = codes(12), FRAME * WINDOW // CONFIG.resample
    windowed, official = decode(mimi, c, [1] * 12), decode(mimi, c, [12], window=None)
    torch.testing.assert_close(windowed[:, :inside], official[:, :inside], atol=2e-5, rtol=1e-4)
    assert (windowed - official).abs().max() > 1e-3


def test_float32_is_near_float64(mimi: Mimi) -> None:
    wide = toy.model(dtype=torch.float64).codec_model
    c = codes(30)
    torch.testing.assert_close(
        decode(mimi, c, [1] * 30).double(), decode(wide, c, [30]), atol=1e-4, rtol=1e-4
    )


@torch.inference_mode()
def test_rows_that_rest_stand_still(mimi: Mimi) -> None:
    """Four streams, each stepping when its coin says so, sound as each would alone."""
    total, draw = 30, random.Random(1)
    c = codes(total, rows=4)
    stream, done, out = mimi.decoding(4, 1, WINDOW), [0] * 4, [[] for _ in range(4)]  # type: ignore[var-annotated]
    while min(done) < total:
        active = [draw.random() < 0.6 and at < total for at in done]
        step = torch.stack([c[row, :, min(at, total - 1)] for row, at in enumerate(done)])[..., None]
        y = mimi.decode(step, stream, torch.arange(4), torch.tensor(active))
        for row in range(4):
            if active[row]:
                out[row].append(y[row])
                done[row] += 1
    for row in range(4):
        alone = decode(mimi, c[row : row + 1], [1] * total)[0]
        torch.testing.assert_close(torch.cat(out[row]), alone, atol=3e-5, rtol=1e-4)


@torch.inference_mode()
def test_a_slot_that_is_reset_begins_anew_and_its_neighbour_goes_on(mimi: Mimi) -> None:
    c, stream = codes(20, rows=2), mimi.decoding(2, 1, WINDOW)
    both = torch.arange(2)
    for at in range(8):
        mimi.decode(c[:, :, at : at + 1], stream, both)
    stream.reset(0)
    fresh = torch.cat([mimi.decode(c[:, :, at : at + 1], stream, both) for at in range(8, 20)], dim=1)
    torch.testing.assert_close(fresh[0], decode(mimi, c[:1, :, 8:], [1] * 12)[0], atol=2e-5, rtol=1e-4)
    whole = decode(mimi, c[1:], [1] * 20)[0]
    torch.testing.assert_close(fresh[1], whole[8 * FRAME :], atol=3e-5, rtol=1e-4)


def test_ids_that_are_no_codeword_become_the_last(mimi: Mimi) -> None:
    c = codes(5)
    wild = c.clone()
    wild[0, 1, 2] = CONFIG.codebook_size + 2
    c[0, 1, 2] = CONFIG.codebook_size - 1
    assert torch.equal(decode(mimi, wild, [5]), decode(mimi, c, [5]))
