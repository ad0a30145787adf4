"""The office's end of its socket: who asks is known from the kernel, and what is asked is checked.

A connection has a thread, and one question at a time. What comes over the socket may be anything: bytes that
are not a question are refused and their connection is closed; the process and the other connections go on.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import structlog

from consent.errors import ConsentError, OfficeAway
from consent.service import faults, parcel
from consent.service.office_client import peer_user
from consent.service.parcel import Malformed, Opened, Parcel
from consent.service.question import Question, given_by, understood, written

log = structlog.get_logger("consent")

CONNECTIONS: Final = 48
"""Connections of the gateway's user at a time; all others together have as many."""
PER_USER: Final = 16
"""Connections of one user who is not the gateway's."""
IDLE_S: Final = 600.0
"""A connection on which nothing is asked for so long is closed."""
READ_S: Final = 20.0
"""A question must have come so long after its first bytes."""
SEND_S: Final = 30.0
SLOW_AT_ONCE: Final = 2
PART_S: Final = 0.5
PART_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Asker:
    """Who asks, by user id, and how something is said on the way to the answer."""

    user: int
    say: Callable[[dict[str, Any]], None]


@dataclass(frozen=True, slots=True)
class Answered:
    """A kind of question and who answers it."""

    kind: type[Question[Any]]
    handler: Callable[[Asker, Any], Any]


class OfficeServer:
    """Answers on every connection that `serve` is given. `gateway` is the user id that calls run under."""

    def __init__(self, answered: Iterable[Answered], *, gateway: int) -> None:
        self._answered: Mapping[str, Answered] = {one.kind.wire: one for one in answered}
        self._gateway = gateway
        self._here: Counter[int] = Counter()
        self._links: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._slow = threading.BoundedSemaphore(SLOW_AT_ONCE)
        self._stopping = False

    # ── connections ──────────────────────────────────────────────────────────────────────────────────

    def listen(self, listener: socket.socket) -> None:
        """Takes connections until `listener` is closed."""
        while not self._stopping:
            try:
                link, _ = listener.accept()
            except OSError as error:
                if self._stopping or listener.fileno() < 0:
                    return
                log.warning("office.not_accepted", error=error.strerror)
                time.sleep(0.1)  # too many open files, or no memory: it passes
                continue
            self.take(link)

    def take(self, link: socket.socket) -> threading.Thread | None:
        """Serves a connection in a thread of its own; None when there are too many."""
        user = peer_user(link)
        with self._lock:
            ours = user == self._gateway
            here = self._here[user] if ours else sum(self._here.values()) - self._here[self._gateway]
            if here >= CONNECTIONS or (not ours and self._here[user] >= PER_USER):
                full = True
            else:
                full = False
                self._here[user] += 1
                self._links.add(link)
        if full:
            log.warning("office.full", user=user)
            self._refuse(link, "the consent office has too many connections; try again in a moment")
            link.close()
            return None
        thread = threading.Thread(target=self._serve, args=(link, user), name="office", daemon=True)
        thread.start()
        return thread

    def stop(self) -> None:
        """Lets nobody in any more, and closes the connections once what they asked is answered."""
        self._stopping = True
        deadline = time.monotonic() + SEND_S
        while time.monotonic() < deadline:
            with self._lock:
                left = list(self._links)
            if not left:
                return
            for link in left:
                with contextlib.suppress(OSError):
                    link.shutdown(socket.SHUT_RD)
            time.sleep(0.01)

    def _serve(self, link: socket.socket, user: int) -> None:
        try:
            while not self._stopping:
                opened = parcel.opened(link, IDLE_S, READ_S)
                if opened is None:
                    return
                self._answer(link, user, opened)
        except Malformed as error:
            log.warning("office.not_understood", user=user, error=str(error))
            self._refuse(link, f"the consent office does not understand this: {error}")
            self._part(link)
        except (OSError, OfficeAway):
            pass  # it closed, or was silent for too long
        except Exception:
            log.exception("office.connection_failed", user=user)
        finally:
            with self._lock:
                self._here[user] -= 1
                self._links.discard(link)
            link.close()

    def _refuse(self, link: socket.socket, why: str) -> None:
        with contextlib.suppress(OSError):
            self._send_error(link, OfficeAway(why))

    def _part(self, link: socket.socket) -> None:
        """Lets the other end read what was said last: closed with something unread, it would see a reset."""
        deadline = time.monotonic() + PART_S
        left = PART_BYTES
        with contextlib.suppress(OSError):
            link.shutdown(socket.SHUT_WR)
            while left > 0 and (wait_s := deadline - time.monotonic()) > 0:
                link.settimeout(wait_s)
                piece = link.recv(min(left, 65_536))
                if not piece:
                    return
                left -= len(piece)

    def _send_error(self, link: socket.socket, error: ConsentError) -> None:
        parcel.send(link, Parcel({"is": "error"}, json.dumps(faults.told(error)).encode()), SEND_S)

    # ── questions ────────────────────────────────────────────────────────────────────────────────────

    def _answer(self, link: socket.socket, user: int, opened: Opened) -> None:
        """Answers one question. Raises `Malformed`, `OSError`, `OfficeAway`."""
        name = opened.envelope.get("ask")
        answered = self._answered.get(name) if type(name) is str else None
        if answered is None:
            raise Malformed("it knows no such question")
        kind = answered.kind
        if not self._may(kind, user):
            log.warning("office.refused", user=user, asked=kind.wire)
            whom = "the gateway's user" if kind.whose == "gateway" else "the user that it runs as"
            opened.rest(kind.limits())
            self._refuse(link, f"the consent office answers {kind.wire!r} to {whom} only")
            return
        asked = opened.rest(kind.limits())
        question = understood(kind, asked.body, asked.blobs)

        def say(table: dict[str, Any]) -> None:
            parcel.send(link, Parcel({"is": "told"}, json.dumps(table).encode()), SEND_S)

        try:
            with self._slow if kind.slow else contextlib.nullcontext():
                body, blobs = written(given_by(kind), answered.handler(Asker(user, say), question))
        except ConsentError as error:
            self._send_error(link, error)
        except OSError as error:
            log.error("office.machine_failed", asked=kind.wire, error=str(error))
            where = f"{error.filename}: " if error.filename else ""
            self._send_error(link, OfficeAway(f"the consent office: {where}{error.strerror or error}"))
        except Exception:
            log.exception("office.answer_failed", asked=kind.wire)
            self._send_error(
                link, OfficeAway(f"the consent office failed at {kind.wire!r}; its log says why")
            )
        else:
            parcel.send(link, Parcel({"is": "answer"}, body, blobs), SEND_S)

    def _may(self, kind: type[Question[Any]], user: int) -> bool:
        if kind.whose == "anyone":
            return True
        if kind.whose == "gateway":
            return user == self._gateway
        return user in (os.getuid(), 0)
