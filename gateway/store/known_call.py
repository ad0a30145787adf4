"""A call as its stores have it: the registry's row, what Redis says of it, or the row of calls not taken."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from gateway.store.refused_calls import RefusedCall
from gateway.store.registry import CallRow

State = Literal["live", "unknown", "ended"]
UNSHOWN: Final = ("payload_whole", "voice_hash")
"""What is for the detector and for consent."""
NEWER: Final = ("route", "voice")
"""Of what both stores say, that of which Redis has the newer word."""


@dataclass(frozen=True, slots=True)
class KnownCall:
    """A call of the registry, and what Redis says of it: `facts`, empty when it says nothing."""

    row: CallRow
    state: State
    facts: Mapping[str, Any]

    @classmethod
    def of(cls, row: CallRow, facts: Mapping[str, Any], *, lives: bool) -> KnownCall:
        """The call as its two stores have it; `lives`: Redis says so now.

        Either store may know first that it is over. Where neither does, nobody knows.
        """
        if row.ended_at is not None or facts.get("state") == "ended":
            return cls(row, "ended", facts)
        return cls(row, "live" if lives else "unknown", facts)

    @classmethod
    def told(cls, call: Mapping[str, Any]) -> KnownCall:
        """A call as the API tells it (`to_json`, without what names its mark)."""
        row = CallRow(
            call_id=str(call["call_id"]),
            payload=int(str(call.get("payload", "0")), 16),
            dialplan=str(call.get("dialplan", "")),
            plan=call.get("plan"),
            route=str(call.get("route", "")),
            caller=str(call.get("caller", "")),
            called=str(call.get("called", "")),
            source=str(call.get("source", "")),
            voice=call.get("voice"),
            grant_jti=call.get("grant_jti"),
            sip_call_id=call.get("sip_call_id"),
            sounded=call.get("sounded"),
            started_at=call.get("started_at"),
            ended_at=call.get("ended_at"),
            how=call.get("how"),
        )
        where = call.get("state")
        return cls(row, "ended" if where == "ended" else "unknown" if where == "unknown" else "live", call)

    @property
    def started_at(self) -> float:
        """Seconds since the epoch."""
        return self.row.started_at or 0.0

    @property
    def ended_at(self) -> float | None:
        """Seconds since the epoch; None while it lives, or when nobody knows."""
        ended: float | None = self.row.ended_at or self.facts.get("ended_at")
        return ended if self.state == "ended" else None

    @property
    def how(self) -> str:
        """How it ended; empty while it has not."""
        return str(self.row.how or self.facts.get("how", "")) if self.state == "ended" else ""

    @property
    def where(self) -> str:
        """Where a living call stands, else whether it has ended."""
        return str(self.facts.get("state", "live")) if self.state == "live" else self.state

    def to_json(self) -> dict[str, Any]:
        """Both stores' fields by name; the registry's count."""
        kept = {name: value for name, value in self.row.to_json().items() if value is not None}
        over = {"ended_at": self.ended_at, "how": self.how} if self.state == "ended" else {}
        return {**self.facts, **kept, "state": self.where, **over}

    def shown(self) -> dict[str, Any]:
        """As the API shows it; its payload in hexadecimal, since some readers take no number of that size.

        On which route a call is by now, Redis knows; how it ended, the registry.
        """
        told = {**self.to_json(), **{name: self.facts[name] for name in NEWER if name in self.facts}}
        kept = {name: value for name, value in told.items() if name not in UNSHOWN}
        return {**kept, "payload": f"{self.row.payload:012x}"}


def whole_call(
    row: CallRow | None,
    record: Mapping[str, Any] | None,
    refused: RefusedCall | None = None,
    headers: Mapping[str, str] | None = None,
    *,
    lives: bool = False,
) -> dict[str, Any] | None:
    """One call as all stores have it, as `gateway.store.call_cause` and whoever shows it take it.

    `record`: what Redis says, with events (`Sessions.show`); a call that it has forgotten has none.
    `headers`: what a trusted peer said of it, as SQL keeps that. `lives`: Redis says so now. The state of a
    call that was not taken is `refused`, and `refused` says why. None: nobody knows it.
    """
    if row is not None:
        kept = {"headers": dict(headers)} if headers else {}
        return {**kept, **KnownCall.of(row, record or {}, lives=lives).shown()}
    if record is not None:
        return dict(record)
    if refused is None:
        return None
    facts = refused.to_json()
    return {**facts, "state": "refused", "refused": facts}
