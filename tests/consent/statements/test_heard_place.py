"""Asking the sound about other words than those that were heard: which texts it is asked about."""

from __future__ import annotations

from collections.abc import Sequence

from consent.statements.heard_place import NEVER, HeardPlace

WORDS = ("I", "consent", "to", "acting", "making", "a", "copy.")


class AskedSound:
    """Double: notes what it was asked, and finds likely what has the words."""

    def __init__(self, likely: str = "") -> None:
        self.asked: list[tuple[int, list[str]]] = []
        self._likely = likely

    def __call__(self, piece: int, texts: Sequence[str]) -> list[float]:
        self.asked.append((piece, list(texts)))
        return [-1.0 if self._likely in text else -20.0 for text in texts]


def test_a_text_is_asked_about_with_the_words_of_its_piece_around_it() -> None:
    sound = AskedSound(likely="Acme")
    place = HeardPlace(WORDS, (range(3), range(3, 7)), 4, 4)
    assert place.heard == ""
    within = HeardPlace(WORDS, (range(1), range(1, 7)), 3, 4)
    assert within.heard == "acting"
    assert within.fits(["acting", "Acme"], sound) == [-20.0, -1.0]
    assert sound.asked == [(1, ["consent to Acme making a copy.", "consent to acting making a copy."])]


def test_a_text_over_the_border_of_two_pieces_is_split_where_it_fits_best() -> None:
    sound = AskedSound(likely="to Delta")
    place = HeardPlace(WORDS, (range(4), range(4, 7)), 3, 4)
    assert place.fits(["Delta Travel"], sound) == [-21.0]
    assert dict(sound.asked) == {
        0: ["I consent to", "I consent to Delta", "I consent to Delta Travel"],
        1: ["Delta Travel making a copy.", "Travel making a copy.", "making a copy."],
    }


def test_pieces_without_words_are_not_asked() -> None:
    sound = AskedSound(likely="Acme")
    place = HeardPlace(WORDS, (range(0), range(7), range(7, 7)), 3, 4)
    assert place.fits(["Acme"], sound) == [-1.0]
    assert [piece for piece, _ in sound.asked] == [1]


def test_nobody_is_asked_about_a_place_over_three_pieces_or_none() -> None:
    sound = AskedSound()
    assert HeardPlace(WORDS, (range(2), range(2, 4), range(4, 7)), 1, 5).fits(["x"], sound) == [NEVER]
    assert HeardPlace((), (range(0),), 0, 0).fits(["x"], sound) == [NEVER]
    assert sound.asked == []
