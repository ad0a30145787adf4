"""What was said, what was heard."""

from __future__ import annotations

import numpy as np
import pytest

from gateway.hall.playout import FRAME, Item, Playout, PlayoutFull


def sound(frames: float, level: float = 0.5) -> np.ndarray:
    return np.full(round(frames * FRAME), level, np.float32)


async def test_an_item_is_heard_when_the_line_says_it_was_played() -> None:
    playout, item = Playout(0.0), Item("a")
    playout.put(item, sound(2.5))
    playout.end(item)
    frames = [playout.pull() for _ in range(4)]
    assert [f is not None for f in frames] == [True, True, True, False]
    assert frames[2] is not None
    assert np.count_nonzero(frames[2]) == FRAME // 2
    playout.played(2 * FRAME)
    assert item.started.is_set()
    assert not item.done.is_set()
    assert item.heard == 2 * FRAME
    playout.played(3 * FRAME)
    assert item.done.is_set()
    assert item.heard == item.queued
    assert not playout.busy


async def test_a_short_piece_waits_while_its_item_goes_on() -> None:
    playout, item = Playout(0.0), Item("a")
    playout.put(item, sound(0.5))
    assert playout.pull() is None
    playout.put(item, sound(0.5))
    assert playout.pull() is not None


async def test_an_interrupted_item_counts_only_what_the_line_reported() -> None:
    delay_s = 0.013
    playout, item = Playout(delay_s), Item("a")
    playout.put(item, sound(50))
    for _ in range(10):
        playout.pull()
    playout.played(8 * FRAME)
    cut = playout.cut()
    assert cut == [item]
    assert item.heard_s == pytest.approx(8 * 0.02 - delay_s)
    assert item.done.is_set()
    fade = playout.pull()
    assert fade is not None, "what was cut fades out instead of clicking"
    assert fade[0] == pytest.approx(0.5)
    assert fade[-1] == pytest.approx(0.0)
    assert playout.pull() is None


async def test_late_sound_of_a_cut_item_is_dropped() -> None:
    playout, item = Playout(0.0), Item("a")
    playout.put(item, sound(3))
    playout.cut()
    playout.pull()
    playout.put(item, sound(3))
    assert playout.pull() is None


async def test_frames_that_the_line_never_played_do_not_hold_up_the_call() -> None:
    playout, first, second = Playout(0.0), Item("a"), Item("b")
    playout.put(first, sound(3))
    playout.end(first)
    for _ in range(3):
        playout.pull()
    playout.played(2 * FRAME)  # the line skipped one frame
    for _ in range(20):
        playout.pull()
    assert first.done.is_set()
    playout.put(second, sound(4))
    for _ in range(4):
        playout.pull()
    playout.played(3 * FRAME)
    assert second.heard == FRAME, "the skipped frame is not taken for one of the next item"


async def test_two_items_in_one_frame_are_told_apart() -> None:
    playout, first, second = Playout(0.0), Item("a"), Item("b")
    playout.put(first, sound(0.5))
    playout.end(first)
    playout.put(second, sound(1.5))
    playout.end(second)
    assert playout.pull() is not None
    playout.played(FRAME)
    assert first.done.is_set()
    assert not second.done.is_set()
    assert second.heard == FRAME // 2


async def test_a_queue_that_would_hold_a_minute_says_so() -> None:
    playout, item = Playout(0.0), Item("a")
    playout.put(item, sound(50 * 59))
    with pytest.raises(PlayoutFull):
        playout.put(item, sound(50 * 2))
