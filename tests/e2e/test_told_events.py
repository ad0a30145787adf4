"""A real call's life on the stream of events, while front and hall are killed: once, in order, whole."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.store.call_events import TYPES
from tests.e2e.gateway_process import House
from tests.e2e.test_deaths import Calling, new
from tests.needs import HANGS_S

pytestmark = pytest.mark.e2e

PLAN = """
[[route]]
name = "night"
called = ["demo"]
do = [
  { verb = "answer" },
  { verb = "disclose", principal = "Lindens", language = "en", text = "A machine." },
  { verb = "record", announce = "Speak now.", max_s = 60.0, silence_s = 30.0 },
]
"""


def told(house: House, until: Callable[[list[dict[str, Any]]], bool], **query: str) -> list[dict[str, Any]]:
    """What the stream tells from its beginning, until it has told that; a front may die meanwhile."""
    events: list[dict[str, Any]] = []
    ends_at = time.monotonic() + HANGS_S
    while time.monotonic() < ends_at:
        last = {"Last-Event-ID": events[-1]["id"]} if events else {}
        params = {"after": "start", **query}
        try:
            with httpx.stream(
                "GET", f"{house.url}/api/events", params=params, headers=last, timeout=20
            ) as answer:
                for line in answer.iter_lines():
                    if line.startswith("data: "):
                        events.append(json.loads(line.removeprefix("data: ")))
                        if until(events):
                            return events
        except httpx.HTTPError:
            time.sleep(0.1)  # it is not back yet
    raise AssertionError(f"not told: {[event['type'] for event in events]}\n{house.log()}")


def has(kind: str) -> Callable[[list[dict[str, Any]]], bool]:
    return lambda events: any(event["type"] == kind for event in events)


class Hook:
    """A webhook's receiver, in a thread."""

    def __init__(self, house: House) -> None:
        got: list[dict[str, Any]] = []
        self.got = got

        class Taking(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                got.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Says nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Taking)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        data = house.folder / "data"
        (data / "hook.secret").write_text("0123456789abcdef0123456789abcdef")
        (data / "hook.secret").chmod(0o600)
        url = f"http://127.0.0.1:{self._server.server_port}/"
        hook = f'[[webhook]]\nname = "hook"\nurl = "{url}"\nsecret_file = "hook.secret"\n'
        (data / "webhooks.toml").write_text(hook)

    def told(self, call_id: str) -> list[str]:
        """The ids that it was told of a call, each once, in the order in which they came first."""
        return list(dict.fromkeys(event["id"] for event in self.got if event["call_id"] == call_id))

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.mark.long("a call in real time, a front and a hall that start")
def test_kill_9_of_front_and_hall_in_a_call_loses_no_event_and_tells_none_twice(tmp_path: Path) -> None:
    house = House(tmp_path, web_lines=0)
    house.plan(PLAN)
    hook = Hook(house)
    house.start()
    try:
        calling = Calling(house, duration_s=25, codec="pcmu")
        call_id = house.calls()[0]["call_id"]
        seen = told(house, has("call.disclosed"), call_id=call_id)
        front = house.kill("front")
        house.wait_for("a new front", lambda: new(house, "front", front) and house.ready(), HANGS_S)
        hall = house.kill("hall0")
        house.wait_for("a new hall", lambda: new(house, "hall0", hall), HANGS_S)
        calling.ended(HANGS_S)
        again = told(house, has("call.ended"), call_id=call_id)
        ids = [event["id"] for event in again if event["type"] != "call.note"]
        house.wait_for("the receiver's", lambda: hook.told(call_id) == ids, HANGS_S)
        written = house.folder / "data" / "cdr"
        house.wait_for("the CDR", lambda: len(list(written.glob("*"))) == 2, HANGS_S)
    finally:
        house.stop()
        hook.close()
    (lines,) = (path.read_text().splitlines() for path in written.glob("*.jsonl"))
    assert [json.loads(line)["call_id"] for line in lines] == [call_id]
    assert again[: len(seen)] == seen, "who listened from the beginning hears the same, with the same ids"
    assert [event["call_number"] for event in again] == list(range(1, len(again) + 1))
    assert len({event["id"] for event in again}) == len(again)
    kinds = [event["type"] for event in again]
    assert kinds[0] == "call.offered"
    assert kinds.index("call.answered") < kinds.index("call.disclosed")
    assert "message.left" in kinds, "what the dead hall had recorded"
    assert kinds.count("call.ended") == 1
    assert set(kinds) <= set(TYPES)
    cdr = next(event for event in again if event["type"] == "call.ended")["data"]["cdr"]
    assert (cdr["route"], cdr["call_id"]) == ("night", call_id)
    assert cdr["duration_s"] > 0
