"""What the thinker was fed and what it must be fed again."""

from __future__ import annotations

import torch

from model.chroma.network import config
from model.chroma.serving import chat
from model.chroma.serving.history import History, Turn
from tests.model.chroma import toy

CHAT = chat.stand_in(config.parse(toy.TABLE))
OPENING = len(CHAT.answer_open)


def history() -> History:
    return History(CHAT, "Be brief.")


def feed(past: History, *, opening: bool) -> int:
    """Everything pending; answers how much that was."""
    at, pieces = past.pending(opening=opening)
    past.fed(at + sum(map(len, pieces)))
    return sum(map(len, pieces))


def user(tokens: int = 10) -> Turn:
    return Turn("user", list(CHAT.user_open), sound=torch.zeros(tokens, 4), after=list(CHAT.user_close))


def test_what_was_fed_is_not_fed_again() -> None:
    past = history()
    assert feed(past, opening=False) == len(past)
    assert feed(past, opening=False) == 0
    past.append(user())
    assert feed(past, opening=True) == len(past.turns[1]) + OPENING
    assert feed(past, opening=True) == 1, "the last position, for the state after it"


def test_an_answer_keeps_what_the_thinker_was_fed_of_it() -> None:
    past = history()
    past.append(answer := Turn("assistant", list(CHAT.answer_open)))
    feed(past, opening=True)
    words = CHAT.encode("Good day to you")
    past.close(answer, [*words, CHAT.im_end], fed=len(words))
    assert past.filled == past.start(answer) + OPENING + len(words)
    assert feed(past, opening=False) == len(CHAT.answer_close)


def test_an_answer_that_was_cut_keeps_the_first_of_its_words() -> None:
    past = history()
    past.append(answer := Turn("assistant", list(CHAT.answer_open)))
    feed(past, opening=True)
    words = CHAT.encode("Good day to you")
    past.close(answer, words[:6], fed=5)
    assert past.filled == past.start(answer) + OPENING + 5
    feed(past, opening=True)
    past.close(answer, words[:4], fed=4)
    assert past.filled == past.start(answer) + OPENING + 4
    past.close(answer, [], fed=0)
    assert answer not in past.turns
    assert past.filled == len(past)


def test_an_edit_while_a_feed_is_under_way_is_not_lost() -> None:
    past = history()
    past.append(user())
    at, pieces = past.pending(opening=True)
    past.changed(7)
    past.fed(at + sum(map(len, pieces)))
    assert past.filled == 7


def test_new_instructions_are_fed_from_the_start_and_the_same_are_not() -> None:
    past = history()
    feed(past, opening=True)
    past.instruct("Be brief.")
    assert past.filled == len(past) + OPENING
    past.instruct("Be long.")
    assert past.filled == 0


def test_an_opening_that_was_fed_ahead_serves_an_answer_and_gives_way_to_a_caller() -> None:
    past = history()
    feed(past, opening=True)
    answering = Turn("assistant", list(CHAT.answer_open))
    past.append(answering)
    assert past.filled == len(past)
    past.remove(answering)
    feed(past, opening=True)
    past.append(user())
    assert past.filled == past.start(past.turns[1])


def test_the_thinker_stands_before_an_answer_until_the_answer_is_over() -> None:
    past = history()
    past.append(user())
    feed(past, opening=False)
    assert not past.told, "not the opening"
    feed(past, opening=True)
    assert past.told
    for words in ([], [5, 6]):
        answering = Turn("assistant", list(CHAT.answer_open))
        past.append(answering)
        assert past.told
        past.close(answering, words, fed=len(words))
        assert not past.told
        feed(past, opening=True)
        assert past.told
    past.append(user())
    assert not past.told


def test_the_oldest_turns_go_and_the_system_stays() -> None:
    past = history()
    for _ in range(4):
        past.append(user(50))
    feed(past, opening=False)
    assert past.drop_oldest(len(past.turns[0]) + 2 * len(past.turns[1])) == 2
    assert [turn.role for turn in past.turns] == ["system", "user", "user"]
    assert past.filled == len(past.turns[0])
    assert past.drop_oldest(1) == 1, "the last turn stays, fit or not"
