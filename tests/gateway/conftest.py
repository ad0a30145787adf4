"""Real servers for tests: a Valkey each test may kill, and one PostgreSQL for all of them."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from gateway.run import redis_server
from gateway.store.sessions import Sessions
from tests.needs import missing


@pytest.fixture
def own_house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The data directory, not made yet, of commands that see none of this machine's settings."""
    for name in os.environ:
        if name.startswith("VOICEGATE_") and name != "VOICEGATE_TEST_STRICT":
            monkeypatch.delenv(name)
    (tmp_path / "run").mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    monkeypatch.setenv("VOICEGATE_DATA_DIR", str(tmp_path / "data"))
    return tmp_path / "data"


class Valkey:
    """The embedded server in a directory of its own; `kill` and `start` it as you like."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.socket = folder / "redis.sock"
        self.url = f"unix://{self.socket}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *, outlives_full_disk: bool = False) -> None:
        """`outlives_full_disk`: it ignores SIGXFSZ, as this process does (`tests/full_disk.py`)."""
        argv = redis_server.command(self.socket, self.folder / "data")
        restores = not outlives_full_disk
        process = self.process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, restore_signals=restores)
        redis_server.wait_until_up(self.socket, lambda: process.poll() is None)

    def kill(self) -> None:
        """As `kill -9` does."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()
        self.process = None

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait()
            self.process = None


@pytest.fixture
def valkey() -> Iterator[Valkey]:
    with short_folder() as folder:
        server = Valkey(folder)
        server.start()
        yield server
        server.stop()


@pytest.fixture
async def sessions(valkey: Valkey) -> AsyncIterator[Sessions]:
    opened = await Sessions.open(valkey.url, ttl_s=100)
    yield opened
    await opened.close()


@pytest.fixture
async def raw(valkey: Valkey) -> AsyncIterator[Any]:
    client = Redis.from_url(valkey.url, decode_responses=True)
    yield client
    await client.aclose()


@contextmanager
def short_folder() -> Iterator[Path]:
    """pytest's own are too long for a unix socket's path."""
    with tempfile.TemporaryDirectory(prefix="vgt-") as name:
        yield Path(name)


@pytest.fixture(scope="session")
def postgresql() -> Iterator[str]:
    """URL of a real PostgreSQL server on a unix socket, run by an unprivileged user."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not found and not shutil.which("initdb"):
        missing("PostgreSQL's server is not installed (Debian: apt-get install postgresql)")
    programs = found[-1].parent if found else Path(str(shutil.which("initdb"))).parent
    with short_folder() as folder:
        as_user: dict[str, object] = {}
        if os.getuid() == 0:  # PostgreSQL refuses to be root
            try:
                user = pwd.getpwnam("postgres")
            except KeyError:
                user = pwd.getpwnam("nobody")
            as_user = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
            os.chown(folder, user.pw_uid, user.pw_gid)
        data = folder / "data"
        run = {"check": True, "stdout": subprocess.DEVNULL, "cwd": folder, **as_user}
        initdb = [programs / "initdb", "-D", data, "-U", "vg", "-A", "trust", "--no-sync", "-E", "UTF8"]
        subprocess.run(initdb, **run)  # type: ignore[call-overload]
        options = f"-k {folder} -c listen_addresses= -c fsync=off"
        control = [programs / "pg_ctl", "-D", data, "-w", "-l", folder / "log"]
        subprocess.run([*control, "-o", options, "start"], **run)  # type: ignore[call-overload]
        try:
            yield f"postgresql://vg@/postgres?host={folder}"
        finally:
            subprocess.run([*control, "-m", "immediate", "stop"], **run)  # type: ignore[call-overload]
