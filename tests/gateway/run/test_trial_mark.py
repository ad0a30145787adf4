"""A recording in which the mark would not be found is refused before any call falls silent over it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gateway.dialplan import Dialplan
from gateway.errors import DialplanError
from gateway.run.trial_mark import check_marks
from tests.gateway.dialplan.test_dialplan import ANSWER, load, route
from tests.gateway.dialplan.test_played import FILE, NO_VOICE, gather, play
from watermark import sound

RATE_HZ = 8_000


def plan_of(folder: Path, samples: np.ndarray, *lines: str) -> Dialplan:
    sound.write(folder / "a.wav", samples.astype(np.float32), RATE_HZ)
    return load(folder, route(do=ANSWER + play(NO_VOICE, *lines)))


def chord(seconds: float) -> np.ndarray:
    at = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    return 0.05 * sum(np.sin(2 * np.pi * hz * at) for hz in (220.0, 277.2, 329.6, 440.0))  # type: ignore[no-any-return]


def test_a_sustained_chord_is_refused_with_its_route(tmp_path: Path) -> None:
    with pytest.raises(
        DialplanError, match=r"0\.toml:1: route 'demo': 'a\.wav' .* the mark would not be found"
    ):
        check_marks(plan_of(tmp_path, chord(12.0)))


def test_a_recording_that_asks_in_a_gather_is_tried_too(tmp_path: Path) -> None:
    sound.write(tmp_path / "a.wav", chord(12.0).astype(np.float32), RATE_HZ)
    plan = load(tmp_path, route("menu", do=ANSWER + gather(FILE, NO_VOICE)))
    with pytest.raises(DialplanError, match=r"route 'menu': 'a\.wav' .* the mark would not be found"):
        check_marks(plan)


def test_noise_like_sound_and_a_short_chime_are_not(tmp_path: Path) -> None:
    check_marks(plan_of(tmp_path, np.clip(np.random.default_rng(1).normal(0, 0.1, 12 * RATE_HZ), -0.9, 0.9)))
    check_marks(plan_of(tmp_path, chord(2.0)))


def test_a_chime_that_goes_on_and_on_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DialplanError, match="mark would not be found"):
        check_marks(plan_of(tmp_path, chord(2.0), "loop = true", "max_s = 60"))
