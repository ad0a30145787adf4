"""A whole gateway at an IPv6 address: who calls it there hears it, and is heard."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable

import pytest

from tests.e2e.gateway_process import House
from tests.gateway.line.line_harness import tone
from tests.gateway.line.rawphone import RawPhone
from tests.needs import HANGS_S, need_ipv6

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio]


def _heard(house: House) -> int:
    """Packets that came from the caller; 0 before the call is over."""
    (call,) = house.calls()
    events = house.get(f"/api/calls/{call['call_id']}")["events"]
    return sum(int(event["data"]["packets"]) for event in events if event["kind"] == "line_quality")


@pytest.mark.long("a whole gateway, and a call in real time")
async def test_a_call_over_ipv6(own_house: Callable[..., House]) -> None:
    need_ipv6()
    house = await asyncio.to_thread(own_house, host="::1", web_lines=0, wide_calls=0)
    phone = await RawPhone(("::1", house.sip_port), host="::1").open()
    try:
        phone.invite("")
        answer = await phone.final()
        phone.acknowledge()
        assert answer.status == 200, answer.start
        assert re.search(r"^c=IN IP6 ::1\r$", answer.body, re.MULTILINE)
        await phone.hears_loud(HANGS_S)
        phone.talk(tone(1000, rate_hz=8000))
        await phone.hears(2.0, HANGS_S)
        await phone.hang_up()
    finally:
        phone.close()
    await asyncio.to_thread(house.wait_for, "how it was", lambda: _heard(house))
    assert _heard(house) > 50
    refused = await RawPhone(("::1", house.sip_port), host="::1").open()
    try:
        refused.send("INVITE", refused.offer().replace("IP6 ::1", "IP4 192.0.2.1"))
        answer = await refused.final()
        refused.acknowledge()
        assert (answer.status, "the offer's address is of IPv4" in answer.headers["reason"]) == (488, True)
    finally:
        refused.close()
