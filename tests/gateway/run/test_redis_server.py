"""The embedded Valkey as the supervisor runs it: its child is Valkey itself, and goes when it goes."""

from __future__ import annotations

import os
import select
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis

from gateway.config.runtime import runtime_for
from gateway.errors import StartError
from gateway.run import redis_server
from tests.gateway.conftest import Valkey, short_folder
from tests.needs import HANGS_S


@pytest.fixture
def house() -> Iterator[dict[str, str]]:
    """Environment of a gateway of its own."""
    with short_folder() as folder:
        (folder / "run").mkdir(mode=0o700)
        kept = {k: v for k, v in os.environ.items() if not k.startswith("VOICEGATE_")}
        yield {**kept, "VOICEGATE_DATA_DIR": str(folder / "data"), "XDG_RUNTIME_DIR": str(folder / "run")}


def socket_of(house: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_RUNTIME_DIR", house["XDG_RUNTIME_DIR"])
    return runtime_for(Path(house["VOICEGATE_DATA_DIR"])).redis


def test_it_becomes_valkey_with_aof_on_and_for_the_owner_only(
    house: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = socket_of(house, monkeypatch)
    child = subprocess.Popen([sys.executable, "-m", "gateway.run.redis_server"], env=house)
    redis_server.wait_until_up(path, lambda: child.poll() is None)
    client = Redis(unix_socket_path=str(path), decode_responses=True)
    info = client.info()
    assert isinstance(info, dict)
    assert info["process_id"] == child.pid
    assert info["aof_enabled"] == 1
    assert client.config_get("port") == {"port": "0"}
    assert path.stat().st_mode & 0o077 == 0
    assert Path(house["VOICEGATE_DATA_DIR"], "redis").stat().st_mode & 0o077 == 0
    client.close()
    child.terminate()
    assert child.wait(HANGS_S) == 0


def test_it_dies_when_its_parent_is_killed(house: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    path = socket_of(house, monkeypatch)
    script = (
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-m', 'gateway.run.redis_server'])\n"
        "print(child.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], env=house, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    redis_server.wait_until_up(path, lambda: parent.poll() is None)
    ended = os.pidfd_open(pid)
    parent.kill()
    parent.wait()
    ready, _, _ = select.select([ended], [], [], 10)
    os.close(ended)
    assert ready, "the orphan lives"


def test_what_was_written_survives_a_kill(valkey: Valkey) -> None:
    client = Redis.from_url(valkey.url)
    client.config_set("appendfsync", "always")
    client.set("key", "value")
    client.close()
    valkey.kill()
    valkey.start()
    again = Redis.from_url(valkey.url)
    assert again.get("key") == b"value"
    again.close()


def test_a_second_server_on_the_same_socket_is_refused(
    valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_server, "ORPHAN_S", 0.2)
    with pytest.raises(StartError, match="another Redis listens"):
        redis_server.command(valkey.socket, valkey.folder / "data")
