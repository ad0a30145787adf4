"""kill -9 of each part during a call: what dies, what survives, how fast it is whole again."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.cli.testphone import CallReport, place_call
from gateway.store.registry import Registry
from tests.e2e.gateway_process import House

pytestmark = pytest.mark.e2e

Start = Callable[..., House]
Say = Callable[[str], Path]


class Calling:
    """A call in a thread."""

    def __init__(self, house: House, **options: object) -> None:
        self._report: list[CallReport] = []
        self._thread = threading.Thread(
            target=lambda: self._report.append(place_call(house.uri, **options))  # type: ignore[arg-type]
        )
        self._thread.start()
        house.wait_for("the call", lambda: any(c["state"] == "confirmed" for c in house.calls()), 15)

    def ended(self, within_s: float = 40.0) -> CallReport:
        self._thread.join(within_s)
        assert self._report, "the call did not end"
        return self._report[0]


def test_a_line_dies_its_caller_gets_a_bye_and_others_talk_on(own_house: Start, say: Say) -> None:
    house = own_house(narrow_lines=1, wide_lines=1)
    doomed = Calling(house, duration_s=20, codec="pcmu")
    spared = Calling(house, duration_s=10, codec="g722", script=[say("where are you")])
    began = time.monotonic()
    house.kill("n0")
    report = doomed.ended()
    assert "they hung up" in report.ended, report.ended
    assert time.monotonic() - began < 5, "the BYE comes at once"
    house.wait_for("a new line", house.ready, 10)
    assert place_call(house.uri, duration_s=1, codec="pcmu").answered
    assert "we hung up" in spared.ended().ended


@pytest.mark.long("a call that goes on after a death, in real time")
def test_the_engine_dies_and_the_conversation_goes_on(own_house: Start, say: Say) -> None:
    house = own_house()
    calling = Calling(house, script=[say("what are your opening hours")], at_s=14, duration_s=24)
    time.sleep(2)  # inside the greeting
    house.kill("engine")
    report = calling.ended()
    assert "we hung up" in report.ended
    assert report.turns
    assert report.turns[0].latency_s is not None, "the new engine answered"


@pytest.mark.long("a call that goes on after a death, in real time")
def test_the_front_dies_and_calls_go_on(own_house: Start, say: Say) -> None:
    house = own_house()
    calling = Calling(house, script=[say("where are you")], at_s=13, duration_s=22)
    house.kill("front")
    took = house.wait_for("a new front", house.ready, 15)
    report = calling.ended()
    assert "we hung up" in report.ended, report.ended
    assert report.turns[0].latency_s is not None, "sound never went through the front"
    house.wait_for("the BYE's effect", lambda: not [c for c in house.calls() if c["state"] != "ended"], 10)
    assert took < 15


@pytest.mark.long("a call that goes on after a death, in real time")
def test_the_hall_dies_and_takes_its_calls_up_again(own_house: Start, say: Say) -> None:
    house = own_house()
    calling = Calling(house, script=[say("where are you")], at_s=16, duration_s=26)
    house.kill("hall0")
    report = calling.ended()
    assert "we hung up" in report.ended, report.ended
    assert report.turns[0].latency_s is not None, "the new hall answered"


def test_the_supervisor_dies_nothing_is_left_and_the_next_start_closes_the_books(own_house: Start) -> None:
    house = own_house()
    calling = Calling(house, duration_s=30)
    call_id = house.calls()[0]["call_id"]
    pids = house.pids()
    assert house.process is not None
    house.process.kill()
    house.process.wait()
    house.wait_for("the end of all", lambda: not [n for n, pid in pids.items() if _alive(pid)], 15)
    calling.ended()
    house.start()
    row = Registry.open(f"sqlite:///{house.folder / 'data' / 'voicegate.db'}").get(call_id)
    assert row is not None
    assert row.how is not None
    assert row.ended_at is not None


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
