"""A gateway with two halls: calls go to both, and when one is dead the other one takes them all."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from gateway.cli.caller.call_reports import CallReport
from gateway.cli.caller.call_request import CallRequest
from gateway.cli.caller.testphone import place_call, place_calls
from tests.e2e.gateway_process import House

pytestmark = pytest.mark.e2e

Start = Callable[..., House]


def at_once(house: House, count: int) -> list[CallReport]:
    """So many calls at the same time."""
    return place_calls([CallRequest(house.uri, duration_s=2, codec="pcmu")] * count)


def halls_of(house: House) -> list[str]:
    """The hall of each call that was answered so far."""
    return [event["process"] for event in house.events("call.answered")]


@pytest.mark.long("two gateways' halls, and the engine's load twice")
def test_calls_at_once_are_answered_by_both_halls_and_by_one_when_the_other_is_dead(own_house: Start) -> None:
    house = own_house(halls=2, sip_lines=2, wide_calls=0, web_lines=0)
    reports = at_once(house, 4)
    assert [report.status for report in reports] == [200] * 4
    assert sorted(halls_of(house)) == ["hall0", "hall0", "hall1", "hall1"], "the load is shared"
    assert not house.events("call.unknown")

    house.kill("hall1")
    house.wait_for("the front's notice", lambda: house.events("hall.lost"))
    before = len(halls_of(house))
    report = place_call(house.uri, duration_s=1, codec="pcmu")
    back = [event for event in house.events("line.up") if event["process"] == "front"]
    assert (report.status, halls_of(house)[before:]) == (200, ["hall0"]), (report, back)
    house.wait_for("a new hall", house.ready, 30)
    assert [report.status for report in at_once(house, 4)] == [200] * 4
