"""An office that serves at a socket, in threads of the test's own process."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

from consent.service import office_process
from consent.service.office_client import OfficeClient
from consent.service.office_rooms import OfficePlace, OfficeRooms
from tests.needs import HANGS_S


@contextlib.contextmanager
def beside(place: OfficePlace) -> Iterator[OfficeClient]:
    """A command's own office, in a thread instead of a process: what a test patches here holds there."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with contextlib.closing(OfficeRooms(place)) as rooms:
        thread = office_process.server_of(rooms, os.getuid()).take(theirs)
        assert thread is not None
        with contextlib.closing(OfficeClient(None, ours)) as client:
            yield client
        thread.join(HANGS_S)


@contextlib.contextmanager
def serving(place: OfficePlace, path: Path, gateway: int | None = None) -> Iterator[None]:
    """Serves while the block runs; `gateway` is the user id that calls run under, this user's by default."""
    stop = threading.Event()
    user = os.getuid() if gateway is None else gateway
    failed: list[BaseException] = []

    def serve() -> None:
        try:
            office_process.serve(place, path, user, stop)
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        client = OfficeClient(path, back_s=0.05)
        while thread.is_alive():
            with contextlib.suppress(Exception):
                client.user()
                break
        client.close()
        if failed:
            raise failed[0]
        yield
    finally:
        stop.set()
        thread.join(HANGS_S)
        assert not thread.is_alive()
