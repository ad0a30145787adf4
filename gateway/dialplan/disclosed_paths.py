"""Whether a caller knows that a machine speaks before it says anything, on each way through a dialplan.

Where what callers say is sent off this machine, they must know who processes it, too.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Container, Mapping
from dataclasses import dataclass, replace
from typing import Final

from gateway.dialplan.disclosure import WORDINGS, spoken_language
from gateway.dialplan.routes import Route, persons_voice
from gateway.dialplan.verbs import Converse, Disclose, Hangup, Transfer, Verb, branches_of, recording_of

SILENT: Final = ("answer", "disclose")
"""Verbs that say nothing before a disclosure; `transfer` and `hangup` say what their `say` holds."""


@dataclass(frozen=True, slots=True)
class Knowledge:
    """What a caller knows at a place of a plan: by whom, in which languages, of which voices."""

    principal: str = ""
    of: frozenset[tuple[str, str]] = frozenset()
    """(language, voice); the voice is empty for the stock voice"""
    processed: frozenset[str] = frozenset()
    """languages in which it was said who processes the caller's words"""


@dataclass(frozen=True, slots=True)
class Undisclosed:
    """Words that would come too early: the verb `at` of the route, on the way over the routes `way`."""

    route: Route
    at: int
    way: tuple[str, ...]
    """the routes before it, the first one first; empty where the call enters by the route itself"""
    told: Knowledge
    lacks_processor: bool = False
    """all is said but who processes the caller's words"""

    @property
    def why(self) -> str:
        """What is wrong there."""
        verb, voice = self.route.do[self.at].verb, self.route.voice
        came = f" when it comes from {' → '.join(self.way)}" if self.way else ""
        if self.lacks_processor:
            return (
                f"{verb} sends what the caller says off this machine (VOICEGATE_LLM_URL), and the "
                f"caller{came} was not told who processes it"
            )
        if not self.told.of:
            return f"{verb} speaks here to a caller{came} who was not told that this is a machine"
        if persons_voice(voice) not in {known for _, known in self.told.of}:
            return f"{verb} speaks here{came} in the voice {voice}, and the caller was told of another"
        if (spoken_language(self.route.language), persons_voice(voice)) in self.told.of:
            return f"{verb} speaks here{came} for another than {self.told.principal}, as the caller was told"
        told = ", ".join(sorted({language for language, _ in self.told.of}))
        return f"{verb} speaks {self.route.language!r} here{came}, and the caller was told in {told} only"


def first_undisclosed(routes: Mapping[str, Route], *, words_leave: bool = False) -> Undisclosed | None:
    """The first verb that speaks too early on some way; None when none does.

    `words_leave`: a `converse` sends what the caller says off this machine.

    A disclosure holds for the routes that a `gather` goes on to, as long as they speak the same language in
    the same kind of voice.
    """
    waiting: deque[tuple[Route, Knowledge, tuple[str, ...]]] = deque(
        (route, Knowledge(), ()) for route in routes.values() if route.called
    )
    seen: set[tuple[str, Knowledge]] = set()
    while waiting:
        route, told, way = waiting.popleft()
        if (route.name, told) in seen:
            continue
        seen.add((route.name, told))
        needed = (spoken_language(route.language), persons_voice(route.voice))
        own = {verb.principal for verb in route.do if isinstance(verb, Disclose)}
        for at, verb in enumerate(route.do):
            if isinstance(verb, Disclose):
                of = told.of if told.principal == verb.principal else frozenset()
                told = replace(told, principal=verb.principal, of=of | {(verb.language, needed[1])})
                if verb.processor:
                    told = replace(told, processed=told.processed | {verb.language})
            elif speaks(verb) and (needed not in told.of or (own and told.principal not in own)):
                return Undisclosed(route, at, way, told)
            elif words_leave and isinstance(verb, Converse) and needed[0] not in told.processed:
                return Undisclosed(route, at, way, told, lacks_processor=True)
            for _, name in branches_of(verb):
                waiting.append((routes[name], told, (*way, route.name)))
    return None


def speaks(verb: Verb) -> bool:
    """Whether a verb says anything in a synthetic voice, a disclosure apart."""
    if isinstance(verb, Transfer | Hangup):
        return bool(verb.say)
    if (recording := recording_of(verb)) is not None:
        return recording.synthetic
    return verb.verb not in SILENT


def principal_lines(language: str, given: Container[str]) -> list[str]:
    """The lines that a disclosure in a route of this language lacks, as they are written in a plan."""
    spoken = spoken_language(language)
    lines = {
        "principal": 'principal = "Example Ltd"',
        "language": f'language = "{spoken if spoken in WORDINGS else "en"}"',
    }
    return [line for key, line in lines.items() if key not in given]
