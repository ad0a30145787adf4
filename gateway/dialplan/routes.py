"""A route: which calls it takes, and what happens to them."""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, tzinfo
from functools import cached_property
from typing import Annotated, Any, Final, Literal
from zoneinfo import ZoneInfo

from pydantic import Field, TypeAdapter

from consent.grants.scope import STOCK, Scope
from gateway.dialplan.plan_facts import HeaderName
from gateway.dialplan.uri_parts import split_uri
from gateway.dialplan.verbs import STRICT, VERBS, Answer, Hangup, Name, Transfer, Verb, Words, recording_of

STOCK_VOICE: Final = "heart"
"""The voice that is nobody's: every engine has it."""
DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_CLOCK: Final = re.compile(r"([01]?\d|2[0-3]):([0-5]\d)(?::00)?|24:00(?::00)?")
_IN_BRACKETS: Final = re.compile(r"<([^<>]+)>")
HOLDS: Final = {
    "de": "Einen Moment, bitte.",
    "en": "One moment, please.",
    "es": "Un momento, por favor.",
    "fr": "Un instant, s'il vous plaît.",
    "it": "Un momento, per favore.",
}
"""What the stock voice says while a route's own cannot be heard yet, by language."""


@dataclass(frozen=True, kw_only=True)
class Hours:
    """A weekly window. `to` not after `from` means the next day; the window belongs to the day it begins."""

    __pydantic_config__ = STRICT
    days: str = "mon-sun"
    opens: Annotated[str, Field(alias="from")] = "00:00"
    closes: Annotated[str, Field(alias="to")] = "24:00"
    zone: str | None = None
    """None: the route's."""

    @cached_property
    def weekdays(self) -> frozenset[int]:
        """The days as numbers; 0 is Monday. Raises `ValueError` as `weekdays_of` does."""
        return weekdays_of(self.days)

    def minutes(self) -> tuple[int, int]:
        """Begin and end in minutes after midnight; the end is at most 48 h. Raises `ValueError`."""
        begin, end = minute_of(self.opens), minute_of(self.closes)
        if begin == 24 * 60:
            raise ValueError('a window cannot begin at 24:00; write "00:00"')
        return begin, end if end > begin else end + 24 * 60

    def hold(self, at: datetime) -> bool:
        """Whether `at`, in this window's zone, falls into it."""
        begin, end = self.minutes()
        minute = at.hour * 60 + at.minute
        today, yesterday = at.weekday(), (at - timedelta(days=1)).weekday()
        return (today in self.weekdays and begin <= minute < end) or (
            yesterday in self.weekdays and minute + 24 * 60 < end
        )

    def __str__(self) -> str:
        return f"{self.days} {self.opens}-{self.closes}" + (f" {self.zone}" if self.zone else "")


def weekdays_of(days: str) -> frozenset[int]:
    """The weekdays of "mon-fri" or "sat,sun"; 0 is Monday. Raises `ValueError` for anything else."""
    found: set[int] = set()
    for part in days.lower().replace(" ", "").split(","):
        first, dash, last = part.partition("-")
        if first not in DAYS or (dash and last not in DAYS):
            raise ValueError(f'{part!r} are not days; write for example "mon-fri" or "sat,sun"')
        begin = DAYS.index(first)
        count = (DAYS.index(last) - begin) % 7 if dash else 0
        found.update((begin + i) % 7 for i in range(count + 1))
    return frozenset(found)


def minute_of(clock: str) -> int:
    """Minutes after midnight of "09:00". Raises `ValueError`."""
    match = _CLOCK.fullmatch(clock)
    if match is None:
        raise ValueError(f'{clock!r} is not a time; write for example "09:00"')
    return int(match[1]) * 60 + int(match[2]) if match[1] else 24 * 60


@dataclass(frozen=True, kw_only=True, slots=True)
class Keep:
    """What remains of a call. A transcript is off unless the plan asks; only `record` keeps sound."""

    __pydantic_config__ = STRICT
    transcript: bool = False
    caller_audio: bool = True
    """In the session, so that a restarted engine or hall can go on; goes with the session."""


@dataclass(frozen=True, kw_only=True)
class Route:
    """What happens to the calls it takes. An empty condition holds for every call.

    Without `called` no call comes here by itself, only from another route. `source` are networks,
    `caller` is what the From header says: anybody can write anything there.
    """

    __pydantic_config__ = STRICT
    name: Name
    called: tuple[str, ...] = ()
    caller: tuple[str, ...] = ()
    source: tuple[str, ...] = ()
    headers: dict[HeaderName, tuple[str, ...]] = field(default_factory=dict)
    """What a trusted peer says of the call, by header; of each one of the patterns must fit."""
    hours: tuple[Hours, ...] = ()
    emergency: bool = False
    """Takes calls to emergency numbers, and no others: it says that nobody is called for help here."""
    zone: str | None = None
    """IANA name, for hours and for what the bot says of the time; none: this machine's."""
    voice: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.:-]{1,80}$")] = STOCK_VOICE
    language: Annotated[str, Field(pattern=r"^[a-z]{2,3}(-[A-Z]{2})?$")] = "en"
    purpose: Name = "support"
    without_voice: Literal["stock", "hangup"] = "stock"
    """When consent refuses the voice: go on with the stock voice, or take no call."""
    hold: Words = ""
    """What the stock voice says while this route's voice cannot be heard yet; empty: what `HOLDS` has for the
    language."""
    keep: Keep = Keep()
    do: tuple[Verb, ...] = ()
    """Verbs, in order."""
    file: str = ""
    """Where it is written; filled by the loader."""
    line: int = 0

    def local(self, at: datetime | None = None) -> datetime:
        """`at` (default: now) as the time in this route's zone."""
        return (at or datetime.now().astimezone()).astimezone(zone_of(self.zone))

    @property
    def hold_text(self) -> str:
        """What `hold` says; empty where it is not set and `HOLDS` does not know the language."""
        return self.hold or HOLDS.get(self.language.partition("-")[0], "")

    @property
    def voiceless(self) -> bool:
        """Only recordings are heard in it: no engine says anything."""
        rest = [verb for verb in self.do if recording_of(verb) is None]
        says = any(
            not isinstance(verb, (Answer, Transfer, Hangup)) or getattr(verb, "say", "") for verb in rest
        )
        return not (says or self.hold) and len(rest) < len(self.do)

    def scope(self, call_id: str) -> Scope:
        """What a grant must be for, so that a call may be spoken to in this route."""
        return Scope(self.voice, self.purpose, self.name, self.language, call_id)

    def is_spoken_by(self, scope: Scope) -> bool:
        """Whether a grant of that scope is for this route in its call.

        The stock voice may stand in for the route's own where `without_voice` says so.
        """
        own = self.scope(scope.call_id)
        return scope == own or (self.without_voice == "stock" and scope == replace(own, voice=STOCK))

    def why_not(
        self,
        called: str,
        caller: str,
        source: str,
        at: datetime,
        headers: Mapping[str, str] | None = None,
    ) -> str | None:
        """Why this route does not take such a call; None when it does. `headers`: what a peer says of it."""
        if not self.called:
            return "no call comes here by itself, only from another route"
        if not any(fits(pattern, called) for pattern in self.called):
            return f"called {called} fits none of {_listed(self.called)}"
        if self.caller and not any(fits(pattern, caller) for pattern in self.caller):
            return f"caller {caller or '(none)'} fits none of {_listed(self.caller)}"
        if self.source and not any(within(network, source) for network in self.source):
            return f"source {source or '(none)'} is in none of {_listed(self.source)}"
        for name, patterns in self.headers.items():
            value = (headers or {}).get(name, "")
            if not any(header_fits(pattern, value) for pattern in patterns):
                return f"header {name} {value or '(none)'} fits none of {_listed(patterns)}"
        if self.hours and not any(h.hold(at.astimezone(zone_of(h.zone or self.zone))) for h in self.hours):
            return f"{self.local(at):%a %H:%M %Z} is outside {_listed(map(str, self.hours))}"
        return None

    def to_json(self) -> dict[str, Any]:
        """The whole route as JSON, for another process."""
        head: dict[str, Any] = ROUTE.dump_python(self, mode="json", exclude={"do"})
        return {**head, "do": [_verb_json(verb) for verb in self.do]}

    @classmethod
    def from_json(cls, table: Mapping[str, Any]) -> Route:
        """The route that `to_json` wrote. Raises pydantic's `ValidationError` for anything else."""
        bare = ROUTE.validate_json(dumps({**table, "do": []}))
        return replace(bare, do=tuple(verb_from_json(verb) for verb in table["do"]))


def persons_voice(voice: str) -> str:
    """The voice when it is a person's; empty for the stock voice."""
    return "" if voice == STOCK_VOICE else voice


def zone_of(name: str | None) -> tzinfo | None:
    """The zone of an IANA name; None for None, which `astimezone` takes for this machine's zone.

    Raises `ValueError` for an unknown name.
    """
    if name is None:
        return None
    try:
        return ZoneInfo(name)
    except (KeyError, OSError, ValueError):
        raise ValueError(f'{name!r} is not a time zone; write for example "Europe/Berlin"') from None


def fits(pattern: str, uri: str) -> bool:
    """Whether a URI fits a pattern: a user part or number, or with a host after `@`; `*` is anything.

    Users are compared as RFC 3261 §19.1.4 has it, by case; hosts are not.
    """
    user, host = split_uri(uri)
    wanted_user, wanted_host = split_uri(pattern)
    if not wanted_host:
        return _glob(wanted_user, user)
    return _glob(wanted_user or "*", user) and _glob(wanted_host, host)


def header_fits(pattern: str, value: str) -> bool:
    """Whether a header fits a pattern: its whole text, or an address in it as `fits` has it."""
    return value != "" and (
        _glob(pattern, value) or any(fits(pattern, uri) for uri in _IN_BRACKETS.findall(value))
    )


def within(network: str, address: str) -> bool:
    """Whether an IP address is in a network; False for what is not an address."""
    try:
        return ipaddress.ip_address(address) in ipaddress.ip_network(network, strict=False)
    except ValueError:
        return False


def verb_from_json(table: Mapping[str, Any]) -> Verb:
    """The verb that `Route.to_json` wrote.

    Raises pydantic's `ValidationError`, or `KeyError` for an unknown verb.
    """
    verb: Verb = verb_adapter(VERBS[table["verb"]]).validate_json(dumps(table))
    return verb


def verb_adapter(kind: type[Any]) -> TypeAdapter[Any]:
    """What pydantic makes of a verb's class, made once."""
    if kind not in _ADAPTERS:
        _ADAPTERS[kind] = TypeAdapter(kind)
    return _ADAPTERS[kind]


def _verb_json(verb: Verb) -> dict[str, Any]:
    table: dict[str, Any] = verb_adapter(type(verb)).dump_python(verb, mode="json")
    return table


def _glob(pattern: str, text: str) -> bool:
    return re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), text, re.DOTALL) is not None


def _listed(items: Any) -> str:
    return ", ".join(items)


def dumps(table: Mapping[str, Any]) -> str:
    """The table as JSON, because pydantic is strict there and yet takes lists for tuples.

    TOML's times become text.
    """
    return json.dumps(table, default=str)


_ADAPTERS: Final[dict[type[Any], TypeAdapter[Any]]] = {}
ROUTE: Final[TypeAdapter[Route]] = TypeAdapter(Route)
