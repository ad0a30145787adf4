"""The office as a process: it alone opens keys, vault and consent's tables, and answers on a socket.

`serve` is the lasting one, at a socket in the file system. `main` is the one that a command starts for its
own time, when nobody serves (`consent.service.office_door`): it answers on one connection and ends with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Final

import structlog

from consent import core_files
from consent.checks.checklist import Checks
from consent.errors import OfficeAway
from consent.service.gateway_counter import GatewayCounter
from consent.service.ledger_counter import LedgerCounter
from consent.service.office_rooms import OfficePlace, OfficeRooms
from consent.service.office_server import OfficeServer
from consent.service.operator_counter import OperatorCounter
from consent.service.voice_counter import VoiceCounter

log = structlog.get_logger("consent")

ENDS_WITHIN_S: Final = 10.0
"""How long another office at the same socket is waited for, which is about to end."""
WAITING: Final = 128

Look = Callable[[], Coroutine[None, None, None]]


def serve(place: OfficePlace, path: Path, gateway: int, stopped: threading.Event | None = None) -> None:
    """Serves at `path` until SIGTERM, SIGINT, or `stopped`; `gateway` is the user id that calls run under.

    Raises `VaultError`, `LedgerError` when keys or database cannot be used, `OfficeAway` when the socket
    cannot be made.
    """
    ended = threading.Event() if stopped is None else stopped
    if stopped is None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: ended.set())
    rooms = OfficeRooms(place)
    office = rooms.witnessed()
    looks: dict[str, Look] = {
        "office.clocks": office.clock.run,
        "office.heads": partial(office.heads.run, rooms.alarm),
    }
    with contextlib.closing(rooms), _looking(looks), _listening(path) as listener:
        server = server_of(rooms, gateway)
        threading.Thread(target=server.listen, args=(listener,), name="office.door", daemon=True).start()
        log.info("office.up", socket=str(path), gateway_user=gateway)
        for why in Checks.lacking(place.models_dir):
            log.info("office.people_check", why=why)
        ended.wait()
        server.stop()


@contextlib.contextmanager
def _looking(looks: Mapping[str, Look]) -> Iterator[None]:
    """Runs them all meanwhile, in a thread, whatever goes wrong in one."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="office.looks", daemon=True)
    thread.start()
    for name, look in looks.items():
        asyncio.run_coroutine_threadsafe(_keep_on(look, name), loop)
    try:
        yield
    finally:
        asyncio.run_coroutine_threadsafe(_end_all(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _keep_on(look: Look, name: str) -> None:
    while True:
        try:
            await look()
        except Exception:
            log.exception("task.failed", task=name)
        await asyncio.sleep(1.0)


async def _end_all() -> None:
    running = asyncio.all_tasks() - {asyncio.current_task()}
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)
    await asyncio.get_running_loop().shutdown_default_executor()


def server_of(rooms: OfficeRooms, gateway: int) -> OfficeServer:
    """A server with all that may be asked."""
    answers = [
        *GatewayCounter(rooms).answers,
        *VoiceCounter(rooms).answers,
        *LedgerCounter(rooms).answers,
        *OperatorCounter(rooms, gateway).answers,
    ]
    return OfficeServer(answers, gateway=gateway)


@contextlib.contextmanager
def _listening(path: Path) -> Iterator[socket.socket]:
    """The socket at `path`, for its owner and group; it goes with the process. Raises `OfficeAway`."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    except OSError as error:
        raise OfficeAway(f"the consent office's socket {path}: {error.strerror}") from None
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with path.with_name(f"{path.name}.lock").open("w") as lock:
            _hold(lock.fileno(), path)
            path.unlink(missing_ok=True)  # whoever held the lock before has ended
            os.fchmod(listener.fileno(), 0o660)  # its file begins with this mode, less the umask
            listener.bind(f"/proc/self/fd/{folder}/{path.name}")  # an address has room for 107 bytes
            path.chmod(0o660)
            listener.listen(WAITING)
            try:
                yield listener
            finally:
                path.unlink(missing_ok=True)
    except OSError as error:
        raise OfficeAway(f"the consent office's socket {path}: {error.strerror}") from None
    finally:
        listener.close()
        os.close(folder)


def _hold(lock: int, path: Path) -> None:
    deadline = time.monotonic() + ENDS_WITHIN_S
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise OfficeAway(
                    f"another consent office serves {path}; end it, or name another socket"
                ) from None
        time.sleep(0.05)


def main() -> None:
    """Answers on the connection whose number is the argument, until its other end closes.

    The place is JSON on stdin, since a database's URL may hold a password.
    """
    core_files.leave_none()
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever asks ends us by closing
    link = socket.socket(fileno=int(sys.argv[1]))
    place = OfficePlace.from_json(json.load(sys.stdin))
    with contextlib.closing(OfficeRooms(place)) as rooms:
        thread = server_of(rooms, os.getuid()).take(link)
        if thread is not None:
            thread.join()


if __name__ == "__main__":
    main()
