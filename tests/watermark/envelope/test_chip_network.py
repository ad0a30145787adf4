"""The network that was trained by torch, by numpy."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from watermark.envelope import chip_network
from watermark.envelope.chip_network import PATH, REACH, SHA256, ChipNetwork, soft
from watermark.errors import WeightsError

KEPT = Path(__file__).with_name("torch_chips.npz")
"""Inputs, and what torch made of them with these weights; `benchmarks/envelope_net.py` writes both."""


def test_numpy_gives_what_torch_gives() -> None:
    with np.load(KEPT) as kept:
        inputs, chips = kept["inputs"].astype(np.float32), kept["chips"]
    np.testing.assert_allclose(ChipNetwork.load().chips(inputs), chips, atol=1e-4)
    assert np.abs(chips).max() > 0.1


def test_the_weights_are_small_and_are_those_of_the_recipe() -> None:
    content = PATH.read_bytes()
    recipe = json.loads(PATH.with_suffix(".json").read_text())
    assert len(content) <= 300_000
    assert hashlib.sha256(content).hexdigest() == SHA256 == recipe["sha256"]
    assert sum(len(voices) for voices in recipe["voices"].values()) >= 50
    assert all(source["licence"] for source in recipe["sources"])


def test_no_voice_of_a_test_was_learnt_from() -> None:
    recipe = json.loads(PATH.with_suffix(".json").read_text())
    assert not {"Asterisk", "hibari", "flite", "MSU"} & recipe["voices"].keys()
    assert not [family for family in recipe["voices"] if family.startswith("festival")]
    assert not [
        voice for voice in recipe["voices"]["espeak-ng, other voices"] if voice.startswith(("en", "de"))
    ]


def test_other_weights_are_refused(tmp_path: Path) -> None:
    other = tmp_path / "weights.npz"
    other.write_bytes(PATH.read_bytes()[:-1])
    with pytest.raises(WeightsError, match="not this release's"):
        ChipNetwork.load(other)
    with pytest.raises(WeightsError, match="No such file"):
        ChipNetwork.load(tmp_path / "missing.npz")


def test_a_chip_depends_on_what_is_near_alone() -> None:
    rng = np.random.default_rng(3)
    inputs = rng.standard_normal((32, 200)).astype(np.float32)
    changed = inputs.copy()
    changed[:, 100] += 1.0
    moved = np.abs(ChipNetwork.load().chips(changed) - ChipNetwork.load().chips(inputs)).max(axis=0)
    assert moved[100] > 0
    assert not moved[: 100 - REACH].any()
    assert not moved[101 + REACH :].any()


def test_silence_says_nothing_and_sound_says_something_in_each_frame() -> None:
    assert not soft(np.zeros(8_000, np.float32)).any()
    said = soft(np.random.default_rng(1).standard_normal(8_000).astype(np.float32))
    assert said.shape == (chip_network.loudness.BANDS, 101)
    assert np.isfinite(said).all()
