"""What verbs say: all that stands in a plan to be spoken, and what a verb begins with."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from typing import Any, Final

from gateway.dialplan.plan_facts import facts_in
from gateway.dialplan.verbs import (
    Converse,
    Disclose,
    Gather,
    Hangup,
    Record,
    Say,
    Transfer,
    Verb,
    recording_of,
)

NOT_SAID: Final = frozenset(
    {
        "verb", "intent", "ask", "library", "tool", "instructions", "language", "target", "transfer", "voice",
        "otherwise",
    }
)  # fmt: skip
"""Fields with words that nobody hears."""


def texts_of(verb: Any) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """(path, text) of each text that a verb may say, and of the facts that stand in them."""
    told = [one for one in _texts(verb, ()) if one[1]]
    yield from told
    if isinstance(verb, Converse):
        used = {fact for _, text in told for fact in facts_in(text)}
        yield from ((("facts", fact), verb.facts[fact]) for fact in verb.facts if fact in used)


def _texts(part: Any, path: tuple[str | int, ...]) -> Iterator[tuple[tuple[str | int, ...], str]]:
    for one in () if recording_of(part) else fields(part):
        value = getattr(part, one.name)
        if one.name in NOT_SAID:
            continue
        if isinstance(value, str):
            yield (*path, one.name), value
        elif isinstance(value, tuple):
            for at, item in enumerate(value):
                here = (*path, one.name, at)
                if isinstance(item, str):
                    yield here, item
                else:
                    yield from _texts(item, here)


def first_words(verb: Verb | None, *, cloned: bool) -> str:
    """What a verb says first, verbatim; empty when it begins with silence. `cloned`: in a person's voice."""
    match verb:
        case Disclose():
            return verb.words(cloned=cloned)
        case Say():
            return verb.text
        case Converse():
            return verb.greeting
        case Gather():
            return "" if verb.recorded else verb.prompt
        case Record():
            return verb.announce
        case Transfer() | Hangup():
            return verb.say
    return ""
