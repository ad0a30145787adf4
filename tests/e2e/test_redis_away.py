"""Redis is taken away from a gateway and given back: what its log says of it, and in which form."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.cli.caller.testphone import place_call
from gateway.front.front import REAP_S
from gateway.store.living_calls import STALE_S
from tests.e2e.gateway_process import House, free_port
from tests.e2e.talking import TALK
from tests.gateway.conftest import Valkey, short_folder
from tests.gateway.line.line_harness import tone
from tests.gateway.line.rawphone import RawPhone

pytestmark = pytest.mark.e2e

PANEL = ("╭", "│", "╰")
AWAY_S = 4.0
"""Long enough for a dozen tries of each part at the pace that they once had."""


def lines(house: House) -> list[dict[str, Any]]:
    """The whole log, but for the panel; fails for a line that is not a JSON object."""
    found = []
    for line in house.log_path.read_text().splitlines():
        if not line.startswith(PANEL):
            assert line.startswith("{"), f"not JSON: {line!r}"
            found.append(json.loads(line))
    return found


@pytest.mark.long("a gateway's start and end, and some seconds without Redis")
def test_redis_away_is_a_line_when_it_goes_and_a_line_when_it_is_back(
    own_house: Callable[..., House], tmp_path: Path
) -> None:
    with short_folder() as folder:
        valkey = Valkey(folder)
        valkey.start()
        house = own_house(redis_url=valkey.url, detector_port=free_port(), log_level="debug")
        assert place_call(house.uri, duration_s=1).answered
        valkey.kill()
        house.wait_for("the loss", lambda: not house.ready())
        time.sleep(AWAY_S)
        assert place_call(house.uri, duration_s=1).answered, "calls go on without it"
        listed = house.get("/api/calls")  # the page asks every 2 s
        assert listed["silence"] == "Redis does not answer"
        assert [call["state"] for call in listed["calls"]] == ["ended"] * 2
        valkey.start()
        house.wait_for("Redis", house.ready)
        talkers = {"front", "hall0", "engine"}
        house.wait_for(
            "all to be back", lambda: {e["process"] for e in house.events("redis.back")} == talkers
        )
        house.stop()
        valkey.stop()
    log = lines(house)
    assert all({"process", "event", "level", "timestamp"} <= line.keys() for line in log)
    for event in ("redis.away", "redis.back"):
        told = [line for line in log if line["event"] == event]
        assert sorted(line["process"] for line in told) == sorted(talkers), told
        assert {line["redis"] for line in told} == {valkey.url}
    text = house.log_path.read_text()
    assert "Traceback" not in text
    others = [
        line
        for line in log
        if "redis"
        in json.dumps(line).replace(str(house.folder), "").lower()  # the folder has this test's name
        and not line["event"].startswith("redis.")
    ]
    assert others == [], "it is said once"


@pytest.mark.prove
@pytest.mark.long("a minute without Redis in a call, and what is tidied after it")
async def test_a_call_lives_through_a_minute_without_redis_and_ends_as_its_caller_ends_it(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    with short_folder() as folder:
        valkey = Valkey(folder)
        valkey.start()
        house = House(tmp_path, redis_url=valkey.url)
        house.plan(TALK)
        await asyncio.to_thread(house.start)
        phone = await RawPhone(("127.0.0.1", house.sip_port), dials="talk").open()
        phone.invite("")
        assert (await phone.final()).status == 200
        phone.acknowledge()
        phone.talk(tone(1000, 0.0, rate_hz=8000))
        (call,) = [call for call in house.calls() if call["state"] != "ended"]
        valkey.kill()
        await asyncio.sleep(STALE_S + 5)
        await phone.hears(0.5, 1.5)
        valkey.start()
        await asyncio.to_thread(house.wait_for, "Redis", house.ready, 30)
        await asyncio.sleep(REAP_S + 2)
        await phone.hears(0.5, 1.5)
        assert house.get(f"/api/calls/{call['call_id']}")["state"] != "ended"
        await phone.hang_up()
        phone.close()
        ended = lambda: house.get(f"/api/calls/{call['call_id']}").get("how")  # noqa: E731
        await asyncio.to_thread(house.wait_for, "its end", ended)
        assert ended() == "caller hung up"
        talkers = sorted({event["process"] for event in house.events("redis.back")})
        await asyncio.to_thread(house.stop)
        valkey.stop()
    assert "Traceback" not in house.log_path.read_text()
    record_property("caller", "nothing")
    record_property("operator", f"`redis.away` and `redis.back` from {', '.join(talkers)}; part `redis`")
