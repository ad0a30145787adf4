"""A gateway that measures that it has no time: the next caller hears so, those who are there go on."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from gateway.cli.caller.testphone import place_call
from tests.e2e.gateway_process import House
from tests.needs import HANGS_S

pytestmark = pytest.mark.e2e

Start = Callable[..., House]
NO_PASS_IS_SO_SHORT = {"most_pass_s": 1e-6} | dict.fromkeys(
    ("most_late_s", "most_late_turns", "most_hearing_s", "most_first_sound_s"), 0
)


def readiness(house: House) -> dict[str, Any]:
    try:
        return dict(house.get("/readyz"))
    except urllib.error.HTTPError as refused:
        return dict(json.loads(refused.read()))


@pytest.mark.long("a gateway's start, and a call that lasts until another one is refused")
def test_a_second_caller_hears_busy_while_the_first_is_served_and_a_third_is_taken(own_house: Start) -> None:
    house = own_house(admit_by_time=True, wide_calls=0, web_lines=0, **NO_PASS_IS_SO_SHORT)
    assert house.ready(), "without a call there is time for one"
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(place_call, house.uri, duration_s=HANGS_S)
        house.wait_for("what its passes take", lambda: "busy" in readiness(house), HANGS_S)
        refused = place_call(house.uri, duration_s=1)
        assert (refused.status, refused.answered) == (503, False)
        assert "hall0: pass_s is " in readiness(house)["busy"]
        (call,) = [call for call in house.calls() if call["state"] == "confirmed"]
        house.delete(f"/api/calls/{call['call_id']}")
        served = first.result(HANGS_S)
    assert served.answered
    assert served.first_audio_s is not None
    house.wait_for("time", house.ready, HANGS_S)
    assert place_call(house.uri, duration_s=1).status == 200
    assert [event["status"] for event in house.events("call.refused")] == [503]
    assert house.events("admission.full")
