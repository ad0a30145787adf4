"""What the ledger vouches for of a call in the gateway's registry: two leaves, at its beginning and its end.

A leaf covers what the registry's row says then: `entered` all that is known before the first sound, `ended`
that and how the call ended. Times are covered to the microsecond, as databases keep them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal

from consent.ledger.merkle import leaf_hash

Stage = Literal["entered", "ended"]

ENTERED: Final = (
    "call_id", "payload", "payload_whole", "gateway", "dialplan", "route", "grant_jti", "voice", "voice_hash",
    "caller", "called", "source", "started_at",
)  # fmt: skip
ENDED: Final = (*ENTERED, "ended_at", "how")
LATER: Final = ("plan",)
"""Fields of later versions: covered where they are there, so that older leaves are as they were."""
LATER_NAMED: Final = ("sip_call_id", "sounded")
"""Likewise, each with its name; what a call sounded like is known, and covered, at its end."""
SEAL_EVERY_S: Final = 60.0
"""How often the front seals what was entered or ended since."""
SEAL_WITHIN_S: Final = 150.0
"""A leaf that is older has a seal, unless the gateway was stopped or its ledger could not be written."""

_EPOCH: Final = datetime.fromtimestamp(0, UTC)


@dataclass(frozen=True, slots=True)
class CallLeaf:
    """One leaf as the registry keeps it. `batch` is None until it is to be sealed."""

    call_id: str
    stage: Stage
    leaf: str
    batch: str | None


def call_leaf(call: Mapping[str, Any], stage: Stage) -> str:
    """The leaf hash of a row of the registry (`CallRow.to_json`), in hexadecimal; a missing field is null."""
    fields = ENTERED if stage == "entered" else ENDED
    values = [stage, *(_plain(name, call.get(name)) for name in fields)]
    values += [call[name] for name in LATER if call.get(name) is not None]
    named = [name for name in LATER_NAMED if name != "sounded" or stage == "ended"]
    values += [{name: call[name]} for name in named if call.get(name) is not None]
    return leaf_hash(json.dumps(values, separators=(",", ":"), ensure_ascii=False).encode())


def _plain(name: str, value: Any) -> Any:
    if value is None or not name.endswith("_at"):
        return value
    return (datetime.fromtimestamp(float(value), UTC) - _EPOCH) // timedelta(microseconds=1)
