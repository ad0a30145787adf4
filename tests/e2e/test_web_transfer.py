"""A browser's caller is put through to a number behind a trunk: a whole gateway, a telephone as the trunk."""

from __future__ import annotations

import asyncio
import json
import re
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from gateway.line import webcall
from tests.e2e.gateway_process import House
from tests.gateway.line.line_harness import power_at, tone
from tests.gateway.line.rawbrowser import Browser
from tests.gateway.line.rawphone import RawPhone
from tests.gateway.rtp.test_targets import _comes_to_hear
from tests.needs import HANGS_S

pytestmark = [pytest.mark.e2e, pytest.mark.prove]

PLAN = """
[targets]
office = "trunk:carrier/+4930100"

[[route]]
name = "through"
called = ["through"]
do = [{ verb = "answer" }, { verb = "transfer", target = "office" }, { verb = "hangup" }]
"""
TRUNK = '[[trunk]]\nname = "carrier"\nhosts = ["127.0.0.1:{port}"]\nprefixes = ["+4930"]\nping_s = 0\n'


def offered(house: House, sdp: str) -> dict[str, Any]:
    body = json.dumps({"sdp": sdp, "dialled": "through"}).encode()
    headers = {"Content-Type": "application/json", **house.bearer}
    request = urllib.request.Request(f"{house.url}/api/call", body, headers, method="POST")
    with urllib.request.urlopen(request, timeout=HANGS_S) as answer:
        return dict(json.loads(answer.read()))


@pytest.mark.long("a whole gateway")
async def test_a_browser_and_a_number_behind_a_trunk_hear_each_other(tmp_path: Path) -> None:
    webcall.prepare("127.0.0.1")  # the browser's ear is ours
    trunk, browser = await RawPhone().open(), Browser(tone(440))
    house = House(tmp_path)
    house.plan(PLAN)
    (tmp_path / "data" / "trunks.toml").write_text(TRUNK.format(port=trunk.sip_port))
    await asyncio.to_thread(house.start)
    try:
        answer = await asyncio.to_thread(offered, house, await browser.offer())
        await browser.accept(answer["sdp"])
        invite = await trunk.request("INVITE", HANGS_S)
        assert "sip:+4930100@" in invite.start
        port = re.search(r"m=audio (\d+)", invite.body)
        assert port is not None
        trunk.media = ("127.0.0.1", int(port[1]))
        trunk.answer(invite, body=trunk.offer())
        await trunk.request("ACK", HANGS_S)
        trunk.talk(tone(660, rate_hz=8000))
        await _comes_to_hear(trunk, 440)
        async with asyncio.timeout(HANGS_S):
            while power_at((await browser.hears(0.3))[-9600:], 660) < 0.9:
                pass
        (known,) = await asyncio.to_thread(house.calls)
        assert known["state"] == "transferred"
        await browser.connection.close()
        await trunk.request("BYE", HANGS_S)
        await asyncio.to_thread(house.wait_for, "its end", lambda: house.events("call.ended"), HANGS_S)
        kinds = [one["kind"] for one in house.get(f"/api/calls/{known['call_id']}")["events"]]
        assert "transfer" in kinds
        assert "transfer_failed" not in kinds
    finally:
        trunk.close()
        await browser.connection.close()
        await asyncio.to_thread(house.stop)
