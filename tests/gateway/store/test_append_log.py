"""The embedded Valkey's files keep nothing of a call beyond its time."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from consent.archive.file_search import search_files
from gateway.run import redis_server
from gateway.store import append_log
from gateway.store.append_log import AppendLog
from gateway.store.call_session import TOLD, Turn
from gateway.store.sessions import Sessions
from tests.gateway.conftest import Valkey
from tests.needs import HANGS_S

SOUGHT = {
    "words": [b"my card number is nothing of yours"],
    "digits": [b"4929135511"],
    "sound": [b"c291bmRvZmFjYWxsZXI"],
    "number": [b"+4915112345678"],
}


@pytest.fixture
async def kept(valkey: Valkey) -> AsyncIterator[AppendLog]:
    log = AppendLog(valkey.url)
    yield log
    await log.close()


async def a_call(valkey: Valkey, *, ttl_s: float = 60.0) -> Sessions:
    sessions = await Sessions.open(valkey.url, ttl_s=ttl_s)
    session = sessions.session("c1")
    session.opened(caller="+4915112345678", route="demo")
    session.turn(Turn("caller", "my card number is nothing of yours"))
    session.event("gathered", digits="4929135511")
    session.remember({"type": "input_audio", "audio": "c291bmRvZmFjYWxsZXI=" * 50})
    session.ended("hung up")
    return sessions


def left(valkey: Valkey) -> set[str]:
    return {name for place in search_files(valkey.folder / "data", SOUGHT) for name in place.left}


async def test_what_callers_said_is_gone_from_the_files_when_its_time_is_over(
    valkey: Valkey, kept: AppendLog
) -> None:
    sessions = await a_call(valkey)
    assert await sessions.close() == 0
    assert left(valkey) == set(SOUGHT)
    assert await kept.write_anew()
    assert "sound" not in left(valkey)  # a conversation's items go with the call
    other = await Sessions.open(valkey.url)
    for key in ("vg:call:c1", "vg:events:c1"):
        await other.redis.pexpire(key, 1)
    while await other.redis.exists("vg:call:c1", "vg:events:c1"):  # noqa: ASYNC110  # Valkey tells nobody
        await asyncio.sleep(0.01)
    await other.redis.xtrim(TOLD, maxlen=0, approximate=False)  # the front has taken what it was told
    assert await kept.write_anew()
    assert left(valkey) == set()
    await other.close()


async def test_it_is_written_anew_each_minute_in_which_something_was_written(
    valkey: Valkey, kept: AppendLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(append_log, "EVERY_S", 0.02)
    sessions = await a_call(valkey)
    assert await sessions.close() == 0
    task = asyncio.create_task(kept.keep_short())
    async with asyncio.timeout(HANGS_S):
        while "sound" in left(valkey):  # noqa: ASYNC110  # nobody tells of a file
            await asyncio.sleep(0.02)
        done = kept.rewritten
        assert done >= 1
        await asyncio.sleep(0.2)
        assert kept.rewritten <= done + 1  # an idle house writes nothing
    task.cancel()


async def test_it_comes_back_to_a_valkey_that_was_away(
    valkey: Valkey, kept: AppendLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(append_log, "EVERY_S", 0.02)
    await (await a_call(valkey)).close()
    valkey.kill()
    task = asyncio.create_task(kept.keep_short())
    await asyncio.sleep(0.1)
    assert not task.done()
    valkey.start()
    async with asyncio.timeout(HANGS_S):
        while "sound" in left(valkey):  # noqa: ASYNC110  # nobody tells of a file
            await asyncio.sleep(0.02)
    task.cancel()


async def test_a_stop_does_not_wait_for_a_valkey_that_says_nothing(
    valkey: Valkey, kept: AppendLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(append_log, "AT_STOP_S", 0.2)
    assert valkey.process is not None
    os.kill(valkey.process.pid, signal.SIGSTOP)
    try:
        async with asyncio.timeout(HANGS_S):
            assert not await kept.write_anew()
    finally:
        os.kill(valkey.process.pid, signal.SIGCONT)


def test_a_rewriting_that_was_cut_short_leaves_no_file(tmp_path: Path) -> None:
    folder = tmp_path / redis_server.KEPT
    folder.mkdir()
    (folder / "temp-rewriteaof-bg-17.aof").write_text("my card number is nothing of yours")
    (folder / "appendonly.aof.1.base.rdb").write_text("the file itself")
    redis_server.command(tmp_path / "redis.sock", tmp_path)
    assert [path.name for path in folder.iterdir()] == ["appendonly.aof.1.base.rdb"]
