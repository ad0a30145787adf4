"""What happens in calls, as it happens: the gateway's stream of events, a line each, on a terminal."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from typing import Any, Final

import httpx

from gateway.cli.calls.call_table import tame
from gateway.cli.calls.moment import time_of_day
from gateway.cli.house.house_client import HouseClient
from gateway.errors import VoicegateError

SILENT_S: Final = 45.0
"""The stream says something every 15 s: one that says nothing for so long is gone."""
AGAIN_S: Final = 1.0
AWAY_S: Final = 20.0
"""How long a gateway that restarts is waited for."""
SHOWN: Final = 160


def followed(house: HouseClient, call_id: str | None = None) -> Iterator[dict[str, Any]]:
    """Events from now on, without an end; a front that restarts is waited for, and none is missed.

    Raises `VoicegateError` when no gateway answers, or it refuses.
    """
    asked = {} if call_id is None else {"call_id": call_id, "after": "start"}
    patience = httpx.Timeout(SILENT_S, connect=5.0)
    last: str | None = None
    heard_at = time.monotonic()
    while True:
        try:
            with house.events(last, asked, patience) as answer:
                if answer.status_code != 200 and answer.status_code != 503:
                    raise VoicegateError(f"the gateway does not tell: HTTP {answer.status_code}")
                for line in answer.iter_lines():
                    heard_at = time.monotonic()
                    if line.startswith("id: "):
                        last = line.removeprefix("id: ")
                    elif line.startswith("data: ") and answer.status_code == 200:
                        yield json.loads(line.removeprefix("data: "))
        except httpx.HTTPError as error:
            if time.monotonic() - heard_at > AWAY_S:
                why = f"no gateway answers at {house.url}: {error}"
                raise VoicegateError(f"{why}; is it running?") from None
        time.sleep(AGAIN_S)


def told_line(event: Mapping[str, Any]) -> str:
    """One event as a line; what somebody else wrote is shown as it can be printed."""
    if event["type"] == "gap":
        return "-- some events are not kept any more --"
    at = time_of_day(event["at"])
    facts = event["data"] if event["type"] != "call.ended" else {"how": event["data"].get("how")}
    if isinstance(facts.get("facts"), dict):  # a note
        facts = {"what": facts.get("what"), **facts["facts"]}
    said = " ".join(f"{name}={value}" for name, value in facts.items() if not isinstance(value, dict))
    return tame(f"{at}  {event['call_id']}  {event['type']:<15} {said}"[: SHOWN * 2]).rstrip()
