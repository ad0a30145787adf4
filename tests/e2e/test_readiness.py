"""A part of a whole gateway is frozen: readiness names that part, and no other."""

from __future__ import annotations

import json
import os
import signal
import urllib.error
import urllib.request
from collections.abc import Callable
from functools import partial

import pytest

from tests.e2e.gateway_process import House
from tests.needs import HANGS_S

pytestmark = pytest.mark.e2e


def readyz(house: House) -> tuple[int, dict[str, str]]:
    """Status and parts."""
    try:
        with urllib.request.urlopen(house.url + "/readyz", timeout=HANGS_S) as answer:
            return answer.status, json.loads(answer.read())["parts"]
    except urllib.error.HTTPError as refused:
        return refused.code, json.loads(refused.read())["parts"]


def found(house: House, part: str, how: str) -> bool:
    """Whether the part is so now. No other is down: at worst a busy machine makes it slow."""
    status, parts = readyz(house)
    assert {name for name, is_so in parts.items() if is_so == "down"} <= {part}, parts
    assert status == (200 if set(parts.values()) == {"ready"} else 503)
    return parts[part] == how


@pytest.mark.long("three parts are frozen one after the other, each until readiness says so")
def test_a_frozen_part_is_slow_and_the_others_are_as_they_were(own_house: Callable[..., House]) -> None:
    house = own_house()
    status, well = readyz(house)
    assert status == 200
    assert set(well.values()) == {"ready"}
    for process, part in (("redis", "redis"), ("engine", "engine"), ("hall0", "hall")):
        pid = house.pids()[process]
        os.kill(pid, signal.SIGSTOP)
        try:
            house.wait_for(f"{part} to be slow", partial(found, house, part, "slow"))
            house.wait_for(f"{part} to be down", partial(found, house, part, "down"), 30)
        finally:
            os.kill(pid, signal.SIGCONT)
        house.wait_for("all to be well", lambda: readyz(house) == (200, well), 30)
