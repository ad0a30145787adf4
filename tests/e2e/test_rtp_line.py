"""A whole gateway whose telephones are all on an RTP line, and none on pjsua2."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.gateway_process import House
from tests.gateway.line.line_harness import tone
from tests.gateway.line.rawphone import RawPhone
from tests.needs import HANGS_S

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio]


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    house = House(tmp_path, narrow_lines=0, wide_lines=0, web_lines=0)
    yield house
    house.stop()


@pytest.mark.long("a whole gateway, and a call in real time")
async def test_a_caller_hears_the_greeting_and_is_heard(house: House) -> None:
    house.start()
    argv = [sys.executable, "-m", "gateway.rtp.rtp_line", "--name", "r0", "--kind", "narrow"]
    argv += ["--hall", "hall0", "--runtime", str(house._runtime), "--capacity", "40"]
    line = await asyncio.create_subprocess_exec(*argv, env=house.environ)
    try:
        phone = await RawPhone(("127.0.0.1", house.sip_port)).open()
        for _ in range(100):
            phone.invite("")
            answer = await phone.final()
            phone.acknowledge()
            if answer.status == 200:
                break
            await asyncio.sleep(0.1)
            phone.to_tag = ""
        assert answer.status == 200, answer.start
        await phone.hears_loud(HANGS_S)
        phone.talk(tone(1000, rate_hz=8000))
        await phone.hears(1.0, HANGS_S)
        await phone.hang_up()
        phone.close()
    finally:
        line.terminate()
        await line.wait()
