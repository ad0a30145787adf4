"""Lines of calls' logs, as the front takes them from its house: kept by call, judged, and few."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gateway.front.calls import call_log
from gateway.front.calls.call_log import CallLog, read_line
from gateway.store.sessions import Sessions
from model.log_ear import LogEar
from tests.gateway.conftest import short_folder
from tests.needs import HANGS_S

CALL = "0123456789abcdef"
LINE = {
    "call_id": CALL, "event": "call.answered", "level": "info", "process": "hall0",
    "timestamp": "2026-11-30T17:57:02.905194Z", "voice": "heart", "slots": [1, 2],
}  # fmt: skip


def line(**more: Any) -> bytes:
    return json.dumps({**LINE, **more}).encode()


@pytest.fixture
async def log(sessions: Sessions) -> AsyncIterator[CallLog]:
    with short_folder() as folder:
        kept = CallLog(sessions, folder / "log")
        await kept.open()
        yield kept
        kept.close()


async def kept(sessions: Sessions, count: int) -> list[dict[str, Any]]:
    async with asyncio.timeout(HANGS_S):
        while True:
            await sessions.writer.flush()
            found = await sessions.log(CALL)
            if len(found) >= count:
                return found
            await asyncio.sleep(0.01)


async def test_a_line_of_another_process_is_kept_with_its_call(log: CallLog, sessions: Sessions) -> None:
    LogEar(str(log._path)).tell(line().decode())
    assert await kept(sessions, 1) == [
        {"at": 1796061422.9052, "process": "hall0", "level": "info", "event": "call.answered",
         "fields": {"voice": "heart", "slots": "[1, 2]"}},
    ]  # fmt: skip
    assert log._path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "text",
    [
        b"", b"{", b"[" * 10_000, b"null", b"[]", b'"x"', b"\xff", line(call_id=None),
        line(call_id="prompts-1"),
        line(call_id="0123456789ABCDEF"), line(call_id="../../x"), line(call_id=[CALL]), line(event=None),
        line(level="debug"), line(level=["info"]), line(level=None),
    ],
    ids=range(16),
)  # fmt: skip
def test_what_is_no_line_of_a_call_is_nothing(text: bytes) -> None:
    assert read_line(text) is None


def test_a_time_that_cannot_be_read_is_now() -> None:
    for timestamp in (None, "soon", 7, "9999-99-99", "0001-01-01T00:00:00+23:59"):
        found = read_line(line(timestamp=timestamp))
        assert found is not None


def test_long_lines_are_clipped_and_say_so() -> None:
    more = {f"field{n}": "y" * 200 for n in range(9)}
    found = read_line(line(exception="x" * 5_000 + "ValueError: the end", **more))
    assert found is not None
    fields = found[1].fields
    assert fields["exception"].endswith("ValueError: the end")
    assert fields["…"] == "more fields were left out"
    assert len(json.dumps(fields)) < 1024
    assert json.loads(json.dumps(fields)) == fields


async def test_a_stranger_who_floods_it_costs_little(
    log: CallLog, sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(call_log, "LINES_PER_S", 0.0)
    log._room = 5
    ear = LogEar(str(log._path))
    for _ in range(50):
        ear.tell(line().decode())
    assert len(await kept(sessions, 5)) == 5
    LogEar(str(log._path)).tell(line().decode())
    reader, writer = await asyncio.open_unix_connection(str(log._path))
    writer.write(b"x" * (call_log.MAX_LINE + 1))
    async with asyncio.timeout(HANGS_S):
        await reader.read()  # what came before was heard by now
    writer.close()
    assert log.lost >= 40


async def test_who_never_ends_a_line_is_heard_no_longer(log: CallLog) -> None:
    reader, writer = await asyncio.open_unix_connection(str(log._path))
    writer.write(b"x" * (call_log.MAX_LINE + 1))
    async with asyncio.timeout(HANGS_S):
        assert await reader.read() == b""
    writer.close()


async def test_a_front_that_comes_back_takes_the_socket_again(log: CallLog, sessions: Sessions) -> None:
    path: Path = log._path
    ear = LogEar(str(path))
    ear.tell(line().decode())
    await kept(sessions, 1)
    log.close()
    again = CallLog(sessions, path)
    await again.open()
    async with asyncio.timeout(HANGS_S):
        while len(await sessions.log(CALL)) < 2:  # the ear may not have noticed yet
            ear.tell(line(event="call.ended").decode())
            await asyncio.sleep(0.01)
            await sessions.writer.flush()
    again.close()
