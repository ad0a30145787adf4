"""Which language a caller is taken to speak, by what a model finds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from consent.whisper.whisper import Whisper
from model.api import RATE_HZ
from model.ears.hearers import ENOUGH_S, Hearers
from model.ears.language_choice import LEAST, LIKELY, STRANGER, SURE, chosen

TWO = ("en", "es")


@pytest.mark.parametrize(
    ("found", "language"),
    [
        ([("es", 0.97), ("en", 0.01)], "es"),
        ([("en", 0.97), ("es", 0.01)], "en"),
        ([("gl", 0.6), ("es", 0.35), ("en", 0.001)], "es"),
        ([("gl", 0.75), ("es", 0.21), ("pt", 0.03), ("en", 0.0001)], "es"),
        ([("ru", 0.98), ("en", 0.003), ("es", 0.001)], "ru"),
        ([("ru", 0.98)], "ru"),
    ],
    ids=["es", "en", "near to one", "nearer still", "a stranger", "none of ours at all"],
)
def test_a_language_that_leads_somewhere_is_told_from_strangers(
    found: list[tuple[str, float]], language: str
) -> None:
    assert chosen(found, TWO)[0] == language


@pytest.mark.parametrize(
    "found",
    [
        [("es", 0.5), ("en", 0.45)],
        [("es", SURE - 0.01), ("en", 1.01 - SURE)],
        [("nn", LIKELY - 0.01), ("la", 0.3), ("en", 0.0002), ("es", 0.0001)],
        [("ru", 0.4), ("en", 0.3), ("es", 0.3)],
        [("gl", 0.7), ("es", LEAST - 0.01), ("pt", 0.11)],
    ],
    ids=["two alike", "not sure enough", "noise", "all alike", "hardly ours"],
)
def test_what_is_not_clear_is_left_open(found: list[tuple[str, float]]) -> None:
    assert chosen(found, TWO)[0] == ""


def test_the_chance_is_a_share_among_those_that_lead_somewhere() -> None:
    assert chosen([("gl", 0.6), ("es", 0.3), ("en", 0.01)], TWO) == ("es", pytest.approx(0.3 / 0.31))
    assert chosen([("es", 0.3), ("en", 0.3)], TWO) == ("", 0.5)


def test_a_stranger_is_far_likelier_than_all_of_ours_together() -> None:
    ours = 0.97 / STRANGER
    assert chosen([("ru", 0.969), ("en", ours)], TWO)[0] == ""
    assert chosen([("ru", 0.971), ("en", ours)], TWO)[0] == "ru"


def test_without_a_choice_it_is_the_likeliest() -> None:
    assert chosen([("gl", 0.6), ("es", 0.4)], ()) == ("gl", 0.6)
    assert chosen([], TWO) == chosen([], ()) == ("", 0.0)


class Galician:
    """Weights that take everything for Galician, and perhaps Spanish."""

    def languages(self, pcm_16k: object) -> list[tuple[str, float]]:
        return [("gl", 0.6), ("es", 0.39)]


def test_the_ears_tell_it_so_of_enough_sound(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(Whisper, "load", lambda *_: Galician())
    hearers = Hearers(tmp_path, 1)
    enough = np.zeros(round(ENOUGH_S * RATE_HZ), np.float32)
    assert hearers.language(enough, TWO) == ("es", 1.0)
    assert hearers.language(enough, ()) == ("gl", 0.6)
    assert hearers.language(enough[1:], TWO) == ("", 0.0)
