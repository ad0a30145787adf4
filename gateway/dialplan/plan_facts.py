"""Facts in a plan's texts, which stand there in braces: a plan's own, the clock's, a call's headers."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Annotated, Final

from pydantic import AfterValidator

HEADER: Final = (
    r"(p-asserted-identity|p-preferred-identity|remote-party-id|diversion|history-info|user-to-user|privacy"
    r"|attestation|x-(?!vg-)[a-z0-9-]{1,40})"
)
"""Headers of trusted peers that a plan may know (`gateway.edge.grammar.peer_headers`), in small letters; and
`attestation`, which the edge writes itself (`gateway.edge.doors.attestation`)."""
ATTESTATIONS: Final = ("A", "B", "C", "none")
HEADER_FACT: Final = re.compile(rf"header\.{HEADER}")
"""A header in a text: `{header.x-name}`."""


def _header(name: str) -> str:
    if re.fullmatch(HEADER, name) is None:
        raise ValueError(
            "headers that a plan may know are p-asserted-identity, p-preferred-identity, remote-party-id, "
            "diversion, history-info, user-to-user, privacy, attestation, and x-… in small letters"
        )
    return name


HeaderName = Annotated[str, AfterValidator(_header)]
CLOCK_FACTS: Final = frozenset({"time", "date", "weekday"})
"""Facts every plan has; their values come from the clock of the route's zone when they are spoken."""
_FACT: Final = re.compile(r"\{([^{}]*)\}")


def facts_in(text: str) -> Iterator[str]:
    """The names that stand in braces, in order."""
    return (match.group(1) for match in _FACT.finditer(text))


def fill(text: str, facts: Mapping[str, str], at: datetime) -> str:
    """`text` with its facts put in; `at` is the time in the route's zone.

    A name in braces that is not a fact stays as it is.
    """
    known = {**clock_facts(at), **facts}
    return _FACT.sub(lambda match: known.get(match.group(1), match.group(0)), text)


def clock_facts(at: datetime) -> dict[str, str]:
    """The clock as it is said aloud: time "3:05 PM", date "Monday, November 23", weekday "Monday"."""
    return {
        "time": f"{at.hour % 12 or 12}:{at.minute:02d} {'AM' if at.hour < 12 else 'PM'}",
        "date": f"{at:%A}, {at:%B} {at.day}",
        "weekday": f"{at:%A}",
    }


def header_facts(text: str, headers: Mapping[str, str] | None) -> dict[str, str]:
    """The headers that stand in a text, by fact; those that the call does not have are empty."""
    found = (fact for fact in facts_in(text) if HEADER_FACT.fullmatch(fact))
    return {fact: (headers or {}).get(fact.removeprefix("header."), "") for fact in found}
