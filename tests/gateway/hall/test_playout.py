"""What was said, what was heard."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.hall.parts.playout import FRAME, Item, Playout, PlayoutFull


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


async def test_a_cut_fades_out_over_the_pieces_that_waited() -> None:
    playout, item = Playout(0.0), Item("a")
    for _ in range(4):
        playout.put(item, sound(0.25))
    playout.cut()
    fade = playout.pull()
    assert fade is not None
    np.testing.assert_allclose(fade, np.linspace(0.5, 0, FRAME), atol=1e-6)
    assert playout.waiting_s == 0.0


async def test_sound_that_was_given_is_never_changed() -> None:
    """A prompt is one array for all calls that play it."""
    prompt = sound(3)
    for _ in range(2):
        playout, item = Playout(0.0), Item("a")
        playout.put(item, prompt)
        playout.end(item)
        playout.pull()
        playout.cut()
        playout.pull()
    assert (prompt == 0.5).all()


async def test_what_follows_is_called_when_all_was_heard_and_not_when_it_was_cut() -> None:
    heard: list[str] = []
    for name, cut in (("whole", False), ("cut", True)):
        playout, item = Playout(0.0), Item(name, then=lambda item: heard.append(item.id))
        playout.put(item, sound(2))
        playout.end(item)
        playout.pull()
        playout.pull()
        if cut:
            playout.cut()
        playout.played(2 * FRAME)
    assert heard == ["whole"]


async def test_an_item_that_is_dropped_plays_what_waits_and_takes_no_more() -> None:
    playout, item, never = Playout(0.0), Item("a"), Item("b")
    playout.put(item, sound(1))
    playout.drop(item)
    playout.drop(never)
    assert never.done.is_set()
    playout.put(item, sound(1))
    assert playout.pull() is not None
    assert playout.pull() is None
    playout.played(FRAME)
    assert item.done.is_set()


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.integers(1, 4 * FRAME)),
        st.tuples(st.just("end"), st.just(0)),
        st.tuples(st.just("tick"), st.integers(1, 8)),
        st.tuples(st.just("lose"), st.integers(1, 4)),
        st.tuples(st.just("cut"), st.just(0)),
    ),
    max_size=60,
)


@given(STEPS)
@settings(max_examples=150)
def test_whatever_happens_nobody_heard_more_than_was_played_and_everything_ends(
    steps: list[tuple[str, int]],
) -> None:
    playout = Playout(0.004)
    items = [Item("0")]
    played = 0

    def tick(times: int, *, lost: bool = False) -> None:
        nonlocal played
        for _ in range(times):
            if playout.pull() is not None and not lost:
                played += FRAME
            playout.played(played)

    for step, count in steps:
        item = items[-1]
        if step == "put":
            playout.put(item, sound(count / FRAME))
        elif step == "end":
            playout.end(item)
            items.append(Item(str(len(items))))
        elif step == "cut":
            playout.cut()
            items.append(Item(str(len(items))))
        else:
            tick(count, lost=step == "lose")
        for known in items:
            assert 0 <= known.heard <= known.reached <= known.pulled <= known.queued
        assert sum(known.heard for known in items) <= playout._sent
    for known in items:
        playout.end(known)
    tick(2_000)
    assert not playout.busy
    assert playout.waiting_s == 0.0
    assert all(known.done.is_set() for known in items)
