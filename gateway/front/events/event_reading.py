"""What stands in Redis of a call, as one of the events that the front tells: read with care, for Redis may
hold anything."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError

from gateway.store.call_events import NOTED, CallAnswered, CallData, CallNote
from gateway.store.sessions import CALL_ID

LONGEST: Final = 48 * 1024
"""Characters of what an entry says."""

READERS: Final[dict[type[CallData], TypeAdapter[CallData]]] = {
    cls: TypeAdapter(cls) for cls, _ in NOTED.values()
}


class StrangeEntry(Exception):
    """An entry that nothing of ours wrote."""


@dataclass(frozen=True, slots=True)
class ToldEntry:
    """One entry of the stream. `at`: seconds since the epoch."""

    call_id: str
    kind: str
    at: float
    said: Mapping[str, Any]

    @classmethod
    def read(cls, fields: Mapping[str, str]) -> ToldEntry:
        """Raises `StrangeEntry`."""
        try:
            call_id, kind, at, text = fields["call"], fields["kind"], float(fields["at"]), fields["data"]
            said = json.loads(text, parse_constant=_refused) if len(text) <= LONGEST else None
        except (KeyError, ValueError, RecursionError):
            raise StrangeEntry from None
        if not (CALL_ID.fullmatch(call_id) and kind and len(kind) <= 64 and math.isfinite(at) and at > 0):
            raise StrangeEntry
        if not isinstance(said, dict):
            raise StrangeEntry
        return cls(call_id, kind, at, said)

    def event(self) -> CallData:
        """The event that it is, if its kind alone says so; else a note. Raises `StrangeEntry`."""
        if self.kind == "state" and self.said.get("state") == "answered":
            return CallAnswered()
        if self.kind not in NOTED:
            return CallNote(what=self.kind, facts=self.said)
        cls, meant = NOTED[self.kind]
        try:
            return READERS[cls].validate_python({**self.said, **meant})
        except ValidationError:
            raise StrangeEntry from None


def _refused(_: str) -> float:
    raise ValueError("a number must be finite")
