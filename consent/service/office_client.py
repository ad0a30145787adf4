"""Asking the office over its socket: a few kept connections, a time limit for each question.

Blocking, and safe to use from several threads: from an event loop, call it by `asyncio.to_thread`. Nothing
here opens a key.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import struct
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

from consent.errors import ConsentError, OfficeAway
from consent.service import faults, parcel
from consent.service.parcel import Malformed, Parcel
from consent.service.question import ANSWER, Question, given_by, understood, written

Given = TypeVar("Given")

AT_ONCE: Final = 8
"""Questions of one client that are on their way at a time."""
KEPT: Final = 2
"""Connections that are kept while nothing is asked; each has a thread in the office."""
BACK_S: Final = 4.0
"""How long an office is waited for that is away: the supervisor starts it again within a second or two."""
TRY_EVERY_S: Final = 0.05
SEND_S: Final = 10.0
_CREDENTIALS: Final = struct.Struct("3i")

Heard = Callable[[Any], None]


def peer_user(link: socket.socket) -> int:
    """The user id of the process at the other end, as the kernel knows it (SO_PEERCRED, unix(7))."""
    raw = link.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return int(_CREDENTIALS.unpack(raw)[1])


def reach(path: Path) -> socket.socket:
    """Connects to the socket at `path`, however long its path is. Raises `OSError`."""
    link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
        try:
            link.settimeout(BACK_S)
            link.connect(f"/proc/self/fd/{folder}/{path.name}")  # an address has room for 107 bytes
        finally:
            os.close(folder)
    except BaseException:
        link.close()
        raise
    return link


class OfficeClient:
    """The office behind the socket at `path`, or at the other end of `given`, a socket that is connected."""

    def __init__(self, path: Path | None, given: socket.socket | None = None, back_s: float = BACK_S) -> None:
        self.path = path
        self._idle: list[socket.socket] = [] if given is None else [given]
        self._lock = threading.Lock()
        self._places = threading.BoundedSemaphore(AT_ONCE if given is None else 1)
        self._back_s = back_s
        self._closed = False

    def ask(
        self, question: Question[Given], told: Heard | None = None, within_s: float | None = None
    ) -> Given:
        """The office's answer; `told` hears what it says on the way.

        Raises what the office raised (`ConsentError`), and `OfficeAway` when it cannot be asked.
        """
        kind = type(question)
        try:
            body, blobs = written(kind, question)
        except Malformed as error:
            raise OfficeAway(f"the question {kind.wire}: {error}") from None
        asked = Parcel({"ask": kind.wire}, body, blobs)
        wait_s = kind.within_s if within_s is None else within_s
        deadline = time.monotonic() + self._back_s
        with self._places:
            while True:
                link = self._link(deadline)
                try:
                    answer = self._exchange(link, asked, wait_s, told)
                except (OfficeAway, OSError) as error:
                    link.close()
                    if isinstance(error, TimeoutError):
                        raise OfficeAway(
                            f"the consent office has not answered {kind.wire!r} within {wait_s:g} s"
                        ) from None
                    if not kind.again or time.monotonic() > deadline:
                        raise OfficeAway(
                            "the consent office ended while it was asked; look whether it was done"
                        ) from None
                    continue
                except Malformed as error:
                    link.close()
                    raise OfficeAway(f"the consent office: {error}") from None
                except BaseException:
                    link.close()
                    raise
                self._keep(link)
                return self._read(kind, answer)

    def user(self) -> int:
        """The user id that the office runs as. Raises `OfficeAway`."""
        with self._places:
            link = self._link(time.monotonic() + self._back_s)
            try:
                return peer_user(link)
            finally:
                self._keep(link)

    def close(self) -> None:
        """Closes the connections that are kept."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for link in idle:
            link.close()

    # ── connections ──────────────────────────────────────────────────────────────────────────────────

    def _link(self, deadline: float) -> socket.socket:
        """A connection whose other end was there a moment ago. Raises `OfficeAway`."""
        while True:
            with self._lock:
                link = self._idle.pop() if self._idle else None
            if link is None:
                break
            if _is_open(link):
                return link
            link.close()
        if self.path is None:
            raise OfficeAway("the consent office has ended")
        began = time.monotonic()
        while True:
            try:
                return reach(self.path)
            except PermissionError:
                raise OfficeAway(
                    f"this user may not ask the consent office at {self.path}; the socket's group may"
                ) from None
            except BlockingIOError:  # somebody serves, and too many wait
                if time.monotonic() > began + BACK_S:
                    raise OfficeAway(
                        "the consent office has too many to answer; try again in a moment"
                    ) from None
            except OSError as error:
                if time.monotonic() > deadline:
                    raise OfficeAway(
                        f"nobody serves the consent office at {self.path} ({error.strerror or error})"
                    ) from None
            time.sleep(TRY_EVERY_S)

    def _keep(self, link: socket.socket) -> None:
        with self._lock:
            if not self._closed and len(self._idle) < KEPT:
                self._idle.append(link)
                return
        link.close()

    def _exchange(self, link: socket.socket, asked: Parcel, wait_s: float, told: Heard | None) -> Parcel:
        parcel.send(link, asked, SEND_S)
        while True:
            opened = parcel.opened(link, wait_s, wait_s)
            if opened is None:
                raise OfficeAway("it closed")
            said = opened.rest(ANSWER)
            if said.envelope.get("is") != "told":
                return said
            if told is not None:
                told(json.loads(said.body))

    def _read(self, kind: type[Question[Given]], said: Parcel) -> Given:
        if said.envelope.get("is") == "answer":
            try:
                return understood(given_by(kind), said.body, said.blobs)  # type: ignore[no-any-return]  # its answer
            except Malformed as error:
                raise OfficeAway(f"the consent office's answer to {kind.wire}: {error}") from None
        raise _error(said)


def _error(said: Parcel) -> ConsentError:
    with contextlib.suppress(ValueError, AttributeError, TypeError):
        return faults.heard(json.loads(said.body))
    return OfficeAway("the consent office said something that is neither an answer nor an error")


def _is_open(link: socket.socket) -> bool:
    """Whether the other end neither closed nor said something that nobody asked."""
    try:
        link.settimeout(0)
        link.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False
