"""`voicegate calls` beside a gateway that takes a call, refuses one, and is stopped."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.cli.caller.testphone import place_call
from tests.e2e.gateway_process import House
from tests.e2e.test_call_page import seen_to_time

pytestmark = pytest.mark.e2e


def calls(house: House, *argv: str) -> str:
    """What the command prints."""
    command = [sys.executable, "-m", "gateway.cli", "calls", *argv]
    return subprocess.run(command, env=house.environ, capture_output=True, text=True, check=True).stdout


def listed(house: House) -> list[dict[str, Any]]:
    return list(json.loads(calls(house, "--json"))["calls"])


@pytest.mark.long("a conversation in real time")
def test_calls_are_known_while_they_live_when_they_are_over_and_when_the_gateway_is_down(
    own_house: Callable[..., House], say: Callable[[str], Path]
) -> None:
    house = own_house()
    script = [say("when are you open")]
    calling = threading.Thread(target=lambda: place_call(house.uri, script=script))
    calling.start()
    house.wait_for("the call", lambda: any(c["state"] != "ringing" for c in house.calls()), 20)
    (living,) = listed(house)
    assert living["state"] not in ("unknown", "ended")
    call_id = living["call_id"]
    calling.join()
    assert not place_call(house.uri.replace("demo", "nobody")).answered
    house.wait_for("its end", lambda: listed(house)[0]["state"] == "ended")
    house.wait_for("the refusal", lambda: "404" in calls(house, "--refused"))
    told = calls(house, "show", call_id)
    seen_to_time(house, call_id)
    house.stop()
    assert call_id in calls(house)
    assert "sip:nobody@" in calls(house, "--refused")
    down = calls(house, "show", call_id)
    assert down == told, "the gateway need not run"
    assert "packets came, " in down
    for expected in ("caller: when are you open", "bot: ", "hung up"):
        assert expected in down
    clocks = [line.split()[0] for line in down.splitlines() if line[2:4].isdigit() and line[4] == ":"]
    assert clocks == sorted(clocks)
