"""Heads: what a sentence asks for, near misses, and what a plan's own examples do."""

from __future__ import annotations

from model.meaning.heads import Examples, Heads

PLAN = [
    Examples("hours", ("when are you open",), "hours"),
    Examples("person", ("a person please",), "person"),
]


def test_a_sentence_that_no_plan_lists_is_understood(heads: Heads) -> None:
    head = heads.head(PLAN)
    assert (judged := head.judge("Until what time are you open on Saturday?")).intent == "hours"
    assert judged.sure
    assert head.judge("Could I talk to a real human being?").intent == "person"
