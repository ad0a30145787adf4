"""Who speaks, from judgements of speech."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.hall.media.turns import WINDOW_S, TurnEvent, TurnRules, Turns
from model.api import EarlyHearing, HearingState

FRAME = np.full(480, 0.1, np.float32)


def run(
    turns: Turns,
    judged: list[float],
    *,
    we_talk: bool = False,
    levels: list[float] | None = None,
    early: dict[int, EarlyHearing] | None = None,
) -> list[tuple[int, TurnEvent]]:
    """Feeds one judgement every 32 ms, with the 20 ms frames in between; answers (window, event).

    `levels`: the sound's amplitude during each window, 1 being the ordinary one. `early`: what the engine
    tells, from which window on; None: it never does.
    """
    told = None
    events = []
    heard_s = 0.0
    for window, p in enumerate(judged):
        frame = FRAME * np.float32(levels[window] if levels else 1.0)
        told = (early or {}).get(window, told)
        how = {"we_talk": we_talk, "knows_asides": early is not None}
        while heard_s + 0.02 < (window + 1) * WINDOW_S - 1e-9:
            assert turns.hear(frame, None, early=told, **how) is None
            heard_s += 0.02
        heard_s += 0.02
        if event := turns.hear(frame, p, early=told, **how):
            events.append((window, event))
    return events


def test_a_sentence_is_one_turn() -> None:
    events = run(Turns(), [0.0] * 10 + [0.9] * 30 + [0.0] * 20)
    assert [event for _, event in events] == [TurnEvent.ONSET, TurnEvent.SPEECH, TurnEvent.END]
    assert events[0][0] == 11, "the second window of speech"
    quiet_windows = events[2][0] - 39
    assert quiet_windows * WINDOW_S == pytest.approx(0.512, abs=WINDOW_S)


def test_the_judge_notices_the_end_late_and_the_caller_does_not_wait_for_it() -> None:
    judged = [0.9] * 20 + [0.9] * 5 + [0.0] * 20
    events = run(Turns(), judged, levels=[1.0] * 20 + [0.01] * 25)
    ends = [window for window, event in events if event is TurnEvent.END]
    assert (ends[0] - 19) * WINDOW_S == pytest.approx(0.512, abs=WINDOW_S), "counted from the sound's end"


def test_soft_words_after_a_loud_one_are_still_the_turn() -> None:
    judged = [0.9] * 10 + [0.9] * 30 + [0.0] * 4 + [0.9] * 10 + [0.0] * 20
    events = run(Turns(), judged, levels=[1.0] * 10 + [0.05] * 64)
    assert [event for _, event in events].count(TurnEvent.END) == 1
    assert events[-1][0] > 54


def test_a_pause_inside_a_sentence_does_not_end_it() -> None:
    events = run(Turns(), [0.9] * 10 + [0.0] * 9 + [0.9] * 10 + [0.0] * 20)
    assert [event for _, event in events].count(TurnEvent.END) == 1


def test_a_cough_while_we_talk_is_a_trifle_and_a_sentence_is_not() -> None:
    assert [e for _, e in run(Turns(), [0.9] * 5 + [0.0] * 20, we_talk=True)] == [
        TurnEvent.ONSET,
        TurnEvent.TRIFLE,
    ]
    events = run(Turns(), [0.9] * 20 + [0.0] * 20, we_talk=True)
    assert [e for _, e in events] == [TurnEvent.ONSET, TurnEvent.SPEECH, TurnEvent.END]
    assert events[1][0] * WINDOW_S < 0.35


def test_a_short_yes_while_we_listen_is_a_turn() -> None:
    assert [e for _, e in run(Turns(), [0.9] * 4 + [0.0] * 20)] == [
        TurnEvent.ONSET,
        TurnEvent.SPEECH,
        TurnEvent.END,
    ]


def test_one_noisy_window_is_nothing() -> None:
    assert run(Turns(), [0.0, 0.9, 0.0, 0.0, 0.9, 0.1, 0.0]) == []


def test_the_turn_holds_the_preroll_and_everything_after_it() -> None:
    turns = Turns()
    run(turns, [0.0] * 20 + [0.9] * 10)
    sound = turns.take()
    assert sound is not None
    assert len(sound) / 24_000 == pytest.approx(0.3 + 8 * WINDOW_S, abs=0.04)
    assert turns.take() is None


def test_an_endless_turn_is_ended_at_a_minute() -> None:
    events = run(Turns(), [0.9] * 2000)
    ends = [window * WINDOW_S for window, event in events if event is TurnEvent.END]
    assert ends[0] == pytest.approx(60.0, abs=0.2)


def test_sound_that_stops_arriving_ends_the_turn() -> None:
    turns = Turns()
    run(turns, [0.9] * 10)
    events = [turns.hear(None, None, we_talk=False) for _ in range(30)]
    assert TurnEvent.END in events


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans(), st.booleans()), max_size=200))
@settings(max_examples=100)
def test_every_turn_begins_once_and_ends_once(windows: list[tuple[float, bool, bool]]) -> None:
    turns = Turns()
    state = "quiet"
    for judged, arrives, we_talk in windows:
        event = turns.hear(FRAME if arrives else None, judged if arrives else None, we_talk=we_talk)
        if event is TurnEvent.ONSET:
            assert state == "quiet"
            state = "begun"
        elif event is TurnEvent.SPEECH:
            assert state == "begun"
            state = "counts"
        elif event is TurnEvent.TRIFLE:
            assert state == "begun"
            state = "quiet"
        elif event is TurnEvent.END:
            assert state == "counts"
            state = "quiet"
        assert turns.speaking == (state != "quiet")
        if not turns.speaking and event is None:
            assert turns.take() is None
        elif event is not None:
            turns.take()


def test_a_turn_that_is_forgotten_leaves_nothing_for_the_next() -> None:
    turns = Turns()
    run(turns, [0.9] * 10)
    turns.reset()
    assert not turns.speaking
    assert turns.take() is None
    assert run(turns, [0.0] * 3) == []
    assert next(event for _, event in run(turns, [0.9] * 3)) is TurnEvent.ONSET


def test_a_cough_into_our_last_word_is_a_trifle_and_a_sentence_there_is_not() -> None:
    turns = Turns()
    assert [e for _, e in run(turns, [0.9] * 4, we_talk=True)] == [TurnEvent.ONSET]
    assert [e for _, e in run(turns, [0.0] * 20, we_talk=False)] == [TurnEvent.TRIFLE]
    turns = Turns()
    assert [e for _, e in run(turns, [0.9] * 4, we_talk=True)] == [TurnEvent.ONSET]
    assert [e for _, e in run(turns, [0.9] * 4 + [0.0] * 20)] == [TurnEvent.SPEECH, TurnEvent.END]


# ── by words ────────────────────────────────────────────────────────────────────────────────────────────────

PREROLL_S = 0.3
SPOKEN = 30
"""windows of speech before the pause"""


def said(windows: int, state: HearingState, *, aside: bool = False) -> EarlyHearing:
    """What an engine tells of a turn's first so many windows, and of .1 s of quiet after them."""
    return EarlyHearing(state, PREROLL_S + windows * WINDOW_S + 0.1, aside)


def ended_after_s(state: HearingState | None) -> float:
    """The quiet that ends a sentence of which the engine tells this."""
    early = {} if state is None else {SPOKEN + 4: said(SPOKEN, state)}
    levels = [1.0] * SPOKEN + [0.01] * 60
    events = run(Turns(), [0.9] * SPOKEN + [0.0] * 60, levels=levels, early=early)
    assert [event for _, event in events] == [TurnEvent.ONSET, TurnEvent.SPEECH, TurnEvent.END]
    return (events[-1][0] + 1 - SPOKEN) * WINDOW_S


def test_words_decide_how_long_a_pause_may_last() -> None:
    rules = TurnRules()
    for state, wait_s in {
        None: rules.plain_s,
        "plain": rules.plain_s,
        "answered": rules.answered_s,
        "unfinished": rules.unfinished_s,
    }.items():
        assert ended_after_s(state) == pytest.approx(wait_s, abs=WINDOW_S + 0.02), state  # type: ignore[arg-type]


def test_speech_that_goes_on_makes_what_was_heard_stale() -> None:
    for state in ("answered", "unfinished"):
        early = {SPOKEN: said(SPOKEN, state)}  # type: ignore[arg-type]
        judged = [0.9] * SPOKEN + [0.0] * 5 + [0.9] * 20 + [0.0] * 40
        levels = [1.0] * SPOKEN + [0.01] * 5 + [1.0] * 20 + [0.01] * 40
        if state == "answered":
            early = {SPOKEN + 5: early[SPOKEN]}  # it comes when the caller has spoken on already
        events = run(Turns(), judged, levels=levels, early=early)
        assert [event for _, event in events].count(TurnEvent.END) == 1
        quiet_s = (events[-1][0] + 1 - SPOKEN - 25) * WINDOW_S
        assert quiet_s == pytest.approx(TurnRules().plain_s, abs=WINDOW_S + 0.02), state


def over_us(speech: int, early: dict[int, EarlyHearing], quiet: int = 30) -> list[tuple[int, TurnEvent]]:
    """So many windows of speech while we talk."""
    levels = [1.0] * speech + [0.01] * quiet
    return run(Turns(), [0.9] * speech + [0.0] * quiet, we_talk=True, levels=levels, early=early)


def test_an_aside_over_our_voice_is_a_trifle_as_soon_as_it_is_understood() -> None:
    events = over_us(15, {20: said(15, "plain", aside=True)})
    assert [event for _, event in events] == [TurnEvent.ONSET, TurnEvent.TRIFLE]
    assert events[-1][0] == 20


def test_other_words_over_our_voice_are_a_turn_as_soon_as_they_are_understood() -> None:
    events = over_us(15, {20: said(15, "plain")})
    assert [event for _, event in events] == [TurnEvent.ONSET, TurnEvent.SPEECH, TurnEvent.END]
    assert events[1][0] == 20


def test_a_sure_answer_over_our_voice_counts_however_short_it_is() -> None:
    assert [event for _, event in over_us(6, {11: said(6, "answered")})][1] is TurnEvent.SPEECH
    assert [event for _, event in over_us(6, {11: said(6, "plain")})] == [TurnEvent.ONSET, TurnEvent.TRIFLE]


def test_who_speaks_on_over_our_voice_is_not_kept_waiting_for_words() -> None:
    events = over_us(60, {})
    assert events[1][1] is TurnEvent.SPEECH
    assert (events[1][0] + 1) * WINDOW_S == pytest.approx(TurnRules().barge_s, abs=WINDOW_S)


def test_words_that_do_not_come_are_waited_for_as_long_as_for_a_trifle() -> None:
    events = over_us(15, {})
    assert [event for _, event in events] == [TurnEvent.ONSET, TurnEvent.SPEECH, TurnEvent.END]
    assert (events[1][0] + 1 - 15) * WINDOW_S == pytest.approx(TurnRules().trifle_s, abs=WINDOW_S + 0.02)


@given(
    st.lists(
        st.tuples(
            st.floats(0, 1),
            st.booleans(),
            st.sampled_from(["answered", "unfinished", "plain", None]),
            st.floats(0, 8),
            st.booleans(),
        ),
        max_size=200,
    )
)
@settings(max_examples=100)
def test_whatever_an_engine_tells_turns_begin_and_end_once(
    windows: list[tuple[float, bool, HearingState | None, float, bool]],
) -> None:
    turns, open_ = Turns(), False
    for judged, we_talk, state, heard_s, aside in windows:
        early = None if state is None else EarlyHearing(state, heard_s, aside)
        event = turns.hear(FRAME, judged, we_talk=we_talk, early=early, knows_asides=True)
        if event is not None:
            assert open_ == (event is not TurnEvent.ONSET)
            open_ = event in (TurnEvent.ONSET, TurnEvent.SPEECH)
        assert turns.speaking == open_
