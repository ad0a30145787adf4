"""How a call ended is told alike by the page's list, Redis, SQL and the log, however it ended."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.cli.caller.testphone import place_call
from gateway.store.registry import Registry
from tests.e2e.gateway_process import House

pytestmark = pytest.mark.e2e

Start = Callable[..., House]


class Calling:
    """A call in a thread, from its answer on."""

    def __init__(self, house: House, duration_s: float = 40) -> None:
        known = {call["call_id"] for call in house.calls()}
        self._thread = threading.Thread(target=lambda: place_call(house.uri, duration_s=duration_s))
        self._thread.start()

        def mine() -> list[str]:
            calls = [c["call_id"] for c in house.calls() if c["state"] == "confirmed"]
            return [call_id for call_id in calls if call_id not in known]

        house.wait_for("the call", mine, 15)
        (self.call_id,) = mine()

    def join(self) -> None:
        self._thread.join(60)


def row_says(house: House, call_id: str) -> str | None:
    registry = Registry.open(f"sqlite:///{house.folder / 'data' / 'voicegate.db'}")
    row = registry.get(call_id)
    registry.close()
    return row.how if row is not None else None


def all_say(house: House, call_id: str) -> str:
    """How it ended, in the one text of all who tell it."""
    shown = house.get(f"/api/calls/{call_id}")
    listed = [call for call in house.calls() if call["call_id"] == call_id]
    logged = {e["how"] for e in house.events("call.ended") if e["call_id"] == call_id}
    told = {shown["how"], row_says(house, call_id), *(call["how"] for call in listed), *logged}
    assert {call["state"] for call in listed} == {"ended"}, listed
    assert shown["state"] == "ended"
    assert len(told) == 1, told
    return str(told.pop())


@pytest.mark.long("three calls, two of which wait for processes that are started again")
def test_however_a_call_ends_all_tell_the_same(own_house: Start) -> None:
    house = own_house(web_lines=0, sip_lines=2)
    by_caller = Calling(house, duration_s=1)
    by_caller.join()
    house.wait_for("its row", lambda: row_says(house, by_caller.call_id))
    assert all_say(house, by_caller.call_id) == "caller hung up"

    by_hall = Calling(house)
    assert house.process is not None
    os.kill(house.process.pid, signal.SIGSTOP)  # nobody starts another hall in time
    house.kill("hall0")
    house.wait_for("its row", lambda: row_says(house, by_hall.call_id), 20)
    house.wait_for("its session's end", lambda: "how" in house.get(f"/api/calls/{by_hall.call_id}"))
    os.kill(house.process.pid, signal.SIGCONT)
    assert all_say(house, by_hall.call_id) == "failed: its hall died"
    by_hall.join()
    house.wait_for("a new hall", house.ready, 30)

    by_line = Calling(house)
    house.kill("sip0")
    house.kill("sip1")
    house.wait_for("its row", lambda: row_says(house, by_line.call_id))
    assert all_say(house, by_line.call_id) == "failed: its line died"
    by_line.join()
    house.wait_for("new lines", house.ready, 20)


@pytest.mark.long("a gateway that is killed and started again, in real time")
@pytest.mark.parametrize("who", ["all", "supervisor"])
def test_after_a_crash_no_call_of_the_last_boot_lives(own_house: Start, who: str) -> None:
    house = own_house(web_lines=0, wide_calls=0)
    calling = Calling(house)
    pids = house.pids()
    assert house.process is not None
    os.kill(house.process.pid, signal.SIGSTOP)  # it restarts nobody meanwhile
    if who == "all":
        for pid in pids.values():
            os.kill(pid, signal.SIGKILL)
    house.process.kill()
    house.process.wait()
    house.wait_for("the end of all", lambda: not [pid for pid in pids.values() if _runs(pid)], 15)
    house.start()
    how = all_say(house, calling.call_id)
    assert how == "failed: the gateway died" if who == "all" else how.startswith("failed: ")
    calling.join()


@pytest.mark.long("a gateway that is stopped and started again, in real time")
def test_a_gateway_that_is_stopped_in_a_call_says_so(own_house: Start) -> None:
    house = own_house(web_lines=0, wide_calls=0)
    calling = Calling(house)
    house.stop()
    calling.join()
    house.start()
    assert all_say(house, calling.call_id) == "failed: the gateway was stopped"


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
