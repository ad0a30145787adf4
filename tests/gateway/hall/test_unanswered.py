"""What another engine has to hear again."""

from __future__ import annotations

import numpy as np

from gateway.hall.dialogue.unanswered import Unanswered
from gateway.hall.media.audio import Floats


def sound(level: float) -> Floats:
    return np.full(480, level, np.float32)


def test_what_the_caller_said_is_a_question_until_the_engine_begins_to_answer() -> None:
    heard, first, second = Unanswered(), sound(0.1), sound(0.2)
    heard.append(first)
    heard.commit(1)
    heard.append(second)
    assert heard.question == [first]
    assert heard.utterance == [second], "the caller speaks on already"
    assert heard.answered() == [first]
    assert heard.question == heard.answered() == []


def test_what_was_nothing_is_not_asked() -> None:
    heard = Unanswered()
    heard.append(sound(0.1))
    heard.clear()
    heard.commit(1)
    assert heard.question == []


def test_turns_are_understood_in_their_order() -> None:
    heard = Unanswered()
    heard.commit(1)
    heard.commit(2)
    assert [heard.understood() for _ in range(3)] == [1, 2, 0]


def test_another_engine_understands_only_the_question_that_it_is_asked_again() -> None:
    heard = Unanswered()
    heard.commit(1)
    heard.append(sound(0.1))
    heard.commit(2)
    heard.start_over()
    assert [heard.understood() for _ in range(2)] == [2, 0]
    heard.commit(3)
    heard.answered()
    heard.start_over()
    assert heard.understood() == 0, "it was answered: nobody asks it again"


def test_an_utterance_is_known_by_what_the_engine_was_told_before() -> None:
    heard = Unanswered()
    assert heard.closed == 0
    heard.append(sound(0.1))
    heard.clear()
    heard.append(sound(0.1))
    heard.commit(1)
    assert heard.closed == 2
    heard.append(sound(0.2))
    heard.start_over()
    assert heard.closed == 1, "the next engine is told the question again"
    heard.answered()
    heard.start_over()
    assert heard.closed == 0
