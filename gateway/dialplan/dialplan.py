"""The dialplan: which call is treated how. Ordered, the first route that fits wins.

A folder of TOML files, read in the order of their names; see `docs/dialplans.md` for how they are written,
`gateway.dialplan.verbs` for the verbs and `gateway.dialplan.routes` for routes.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from pathlib import Path

from gateway.config.emergency import EMERGENCY, NO_HELP, is_emergency
from gateway.dialplan.disclosure import sentence
from gateway.dialplan.loading import read_folder
from gateway.dialplan.routes import Route
from gateway.dialplan.spoken_texts import first_words
from gateway.dialplan.verbs import Answer, Converse, Disclose, branches_of
from gateway.errors import CallRefused, DialplanError


@dataclass(frozen=True, slots=True)
class Match:
    """The route that takes a call; `explain` says of each route before it why it did not."""

    route: Route
    explain: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Dialplan:
    """All routes in order. Immutable: load another one to change it."""

    routes: tuple[Route, ...]
    targets: dict[str, str]
    folder: Path
    emergency: tuple[str, ...] = EMERGENCY
    """Numbers for which help is called (`gateway.config.emergency`): no route takes them but one for them."""
    version: str = ""
    """Changes whenever a file of the folder does; the registry says of each call by which it began."""

    @classmethod
    def load(
        cls,
        folder: Path,
        voices: Collection[str] | None = None,
        *,
        spoken: Collection[str] | None = None,
        words_leave: bool = False,
        emergency: tuple[str, ...] = EMERGENCY,
        recordings: bool = True,
        mails: bool = True,
    ) -> Dialplan:
        """Reads all plans of a folder.

        `voices` are the names that a route's `voice` may have where the stock voice would speak instead;
        `spoken` are the languages (ISO 639-1) that the engine can say; with None nobody looks. `words_leave`:
        what callers say in a conversation is sent off this machine, so that they must be told who processes
        it. Without `recordings` their files are not read, which takes numpy: a process that lives long has
        another one read them. `mails`: this house can send mail. Raises `DialplanError`, which names file,
        line and remedy.
        """
        if folder.exists() and not folder.is_dir():
            raise DialplanError(f"{folder}: this is a file; name the folder that it is in")
        if not folder.is_dir():
            raise DialplanError(f"{folder}: there is no such folder")
        read = read_folder(
            folder,
            voices,
            spoken=spoken,
            words_leave=words_leave,
            emergency=emergency,
            recordings=recordings,
            mails=mails,
        )
        if not read.routes:
            raise DialplanError(f"{folder}: no route in any file; add a [[route]]")
        return cls(read.routes, read.targets, folder, emergency, read.version)

    def explain(
        self,
        *,
        called: str,
        caller: str = "",
        source: str = "",
        at: datetime | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> tuple[Route | None, tuple[str, ...]]:
        """The first route that takes such a call, if any does, and why each route before it does not."""
        now = (at or datetime.now()).astimezone()
        lines: list[str] = []
        emergency = is_emergency(called, self.emergency)
        for route in self.routes:
            reason = route.why_not(called, caller, source, now, headers)
            if route.emergency != emergency:
                reason = f"{called} is an emergency number" if emergency else "it is for emergency numbers"
            if reason is None:
                return route, tuple(lines)
            lines.append(f"{route.name}: {reason}")
        return None, tuple(lines)

    def route(
        self,
        *,
        called: str,
        caller: str = "",
        source: str = "",
        at: datetime | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Match:
        """The route of a call.

        `called` and `caller` are SIP URIs, numbers or users; `source` is the address it came from; `at` is
        now unless given, in this machine's zone when it has none; `headers` are what a trusted peer says of
        the call. Raises `CallRefused`: 404 when no route takes it, 380 when it is to an emergency number.
        """
        route, lines = self.explain(called=called, caller=caller, source=source, at=at, headers=headers)
        if route is None and is_emergency(called, self.emergency):
            raise CallRefused(380, NO_HELP)
        if route is None:
            raise CallRefused(404, f"no route takes a call to {called}")
        return Match(route, lines)

    def reachable(self, route: Route) -> tuple[Route, ...]:
        """The other routes that a call of this one may go on as, by its verbs and by theirs."""
        by_name = {other.name: other for other in self.routes}
        found: dict[str, Route] = {}
        waiting = [route]
        while waiting:
            for verb in waiting.pop().do:
                for _, name in branches_of(verb):
                    if name != route.name and name not in found:
                        found[name] = by_name[name]
                        waiting.append(by_name[name])
        return tuple(found.values())

    @property
    def answers_emergencies(self) -> bool:
        """Whether some route takes calls to emergency numbers."""
        return any(route.emergency for route in self.routes)

    @property
    def hears_languages(self) -> bool:
        """Whether some conversation leads callers to other routes by their language."""
        verbs = (verb for route in self.routes for verb in route.do)
        return any(isinstance(verb, Converse) and verb.languages for verb in verbs)

    def prompts(self) -> tuple[str, ...]:
        """The texts that must be sayable when no engine answers.

        They are each conversation's last words, what must be told before them, and what is said while a route
        that another one leads to is not ready.
        """
        verbs = [verb for route in self.routes for verb in route.do]
        talks = [verb for verb in verbs if isinstance(verb, Converse)]
        last = [text for talk in talks for text in (talk.engine_lost, talk.busy)]
        tellers = [verb for verb in verbs if isinstance(verb, Disclose)]
        told = [sentence(teller.principal, teller.language, cloned=False) for teller in tellers]
        reached = {name for verb in verbs for _, name in branches_of(verb)}
        holds = [one.hold_text for one in self.routes if one.name in reached and not one.voiceless]
        return tuple(dict.fromkeys(last + told + holds))

    def openings(self) -> tuple[str, ...]:
        """The first words of each route in the stock voice, where they are the same for every caller."""
        pairs = (pair for route in self.routes for pair in pairwise(route.do))
        first = [first_words(verb, cloned=False) for answer, verb in pairs if isinstance(answer, Answer)]
        return tuple(dict.fromkeys(text for text in first if text and "{" not in text))
