"""Lines of calls are handed on to whoever listens; nobody waits for that, and nothing fails by it."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from model.log_ear import EAR_VARIABLE, MAX_LINE, LogEar
from tests.gateway.conftest import short_folder
from tests.needs import HANGS_S

SCRIPT = """
import structlog
from model import json_log
json_log.configure("hall0", "debug")
log = structlog.get_logger("x")
log.info("call.answered", call_id="c1", voice="heart", boot_token="hush")
log.info("hall.up")
log.debug("call.detail", call_id="c1")
log.warning("call.odd", call_id="c1")
"""


class Listener:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.server.bind(str(path))
        self.server.listen()
        self.server.settimeout(HANGS_S)

    def heard(self) -> bytes:
        """All that one speaker said, once it has ended."""
        speaker, _ = self.server.accept()
        speaker.settimeout(HANGS_S)
        found = b""
        while piece := speaker.recv(65_536):
            found += piece
        speaker.close()
        return found

    def close(self) -> None:
        self.server.close()
        self.path.unlink()


@pytest.fixture
def place() -> Iterator[Path]:
    with short_folder() as folder:
        yield folder / "log"


def run(**environ: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True, timeout=HANGS_S,
        env={"PYTHONPATH": ":".join(sys.path), **environ},
    )  # fmt: skip
    return [json.loads(line)["event"] for line in done.stderr.splitlines()]


def test_lines_of_a_call_are_handed_on_as_they_are_logged(place: Path) -> None:
    listener = Listener(place)
    logged = run(**{EAR_VARIABLE: str(place)})
    lines = [json.loads(line) for line in listener.heard().splitlines()]
    assert logged == ["call.answered", "hall.up", "call.detail", "call.odd"]
    assert [line["event"] for line in lines] == ["call.answered", "call.odd"]
    assert {line["process"] for line in lines} == {"hall0"}
    assert lines[0]["boot_token"] == "***"
    listener.close()


def test_where_nobody_listens_the_log_is_as_before(place: Path) -> None:
    assert len(run(**{EAR_VARIABLE: str(place)})) == 4
    place.write_text("a file, and no socket")
    assert len(run(**{EAR_VARIABLE: str(place)})) == 4
    assert len(run()) == 4


def test_a_listener_that_came_back_is_told_again(place: Path) -> None:
    ear, first = LogEar(str(place)), Listener(place)
    ear.tell("one")
    speaker, _ = first.server.accept()
    assert speaker.recv(100) == b"one\n"
    speaker.close()
    first.close()
    ear.tell("nobody hears this")
    second = Listener(place)
    ear.tell("two")
    speaker, _ = second.server.accept()
    assert speaker.recv(100) == b"two\n"
    second.close()


def test_a_listener_that_does_not_read_keeps_nobody_waiting(place: Path) -> None:
    listener, ear = Listener(place), LogEar(str(place))
    began = time.monotonic()
    for n in range(5_000):
        ear.tell(f"{n} {'x' * 1000}")
    assert time.monotonic() - began < HANGS_S
    speaker, _ = listener.server.accept()
    speaker.setblocking(False)
    heard = b""
    for _ in range(10_000):
        try:
            heard += speaker.recv(1 << 20)
        except BlockingIOError:
            break
    ear.tell("and after")
    heard += speaker.recv(1 << 20)
    *whole, last, end = heard.split(b"\n")
    assert (last, end) == (b"and after", b""), "what went out in part spoils no other line"
    assert 10 < len(whole) < 5_000
    ear.tell("x" * MAX_LINE)
    with pytest.raises(BlockingIOError):
        speaker.recv(100)
    listener.close()
