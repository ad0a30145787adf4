"""What is kept of the last two turns, and whose it is."""

from __future__ import annotations

import numpy as np

from gateway.rtp.media.concealment import past_samples
from gateway.rtp.media.last_turns import LastTurns


def rows(slots: list[int], level: int, frame: int = 160) -> tuple[list[int], np.ndarray]:
    """Each slot hears its own number and the level."""
    return slots, np.stack([np.full(frame, 100 * slot + level, np.int16) for slot in slots])


def test_each_call_finds_its_own_sound_the_newest_last() -> None:
    last = LastTurns()
    last.note([rows([3, 5], 1)])
    last.note([rows([5], 2), rows([3], 3)])
    for slot, before, now in ((3, 301, 303), (5, 501, 502)):
        past = last.past(slot, 8_000)
        assert len(past) == past_samples(8_000)
        assert set(past[-160:].tolist()) == {now}
        assert set(past[:-160].tolist()) == {before}


def test_where_nothing_came_there_are_zeros() -> None:
    last = LastTurns()
    assert not last.past(1, 8_000).any()
    last.note([rows([1], 7)])
    last.note([])
    past = last.past(1, 8_000)
    assert not past[-160:].any()
    assert set(past[:-160].tolist()) == {107}


def test_sound_of_another_rate_is_not_the_calls() -> None:
    last = LastTurns()
    last.note([rows([1], 7, 320)])
    assert not last.past(1, 8_000).any()
    assert last.past(1, 16_000)[-320:].all()
    assert len(last.past(1, 16_000)) == past_samples(16_000)


def test_who_gets_a_slot_hears_nothing_of_who_had_it() -> None:
    last = LastTurns()
    last.note([rows([1, 2], 7)])
    last.forget(1)
    assert not last.past(1, 8_000).any()
    assert last.past(2, 8_000).any()
