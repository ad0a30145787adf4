"""Witnesses: places outside the data directory that keep the ledger's newest signed head.

A host's own `ledger-head` is restored together with the database that it speaks of. What the operator's Redis
or a URL keeps is not, so a start can see that the ledger is older than it was (`consent.ledger.head_keeper`).
A witness is believed by the office's signature only. What syslog keeps is for a human to compare.

A URL's side is small. `POST` of a compact JWS (`Content-Type: application/jose`, typ `ledger-head+jws`):
keep it, answer 2xx. `GET`: the newest that was kept, status 200; 204 or 404 when there is none. One URL is
one ledger's. It should keep every head, and let nobody but the gateway post.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

import httpx
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, WatchError
from redis.retry import Retry

from consent.bare_url import bare
from consent.errors import LedgerError, WitnessError
from consent.grants.redis_watch import redis_place

HEADS: Final = "vg:ledger-heads"
"""Redis' hash of heads, by the hash of the ledger's first row."""
ANSWER_S: Final = 3.0
"""How long a witness may take."""
LARGEST: Final = 65_536
"""Bytes of an answer."""
MEDIA_TYPE: Final = "application/jose"
SYSLOG: Final = Path("/dev/log")
AUTHPRIV_NOTICE: Final = 10 * 8 + 5
"""RFC 5424 §6.2.1."""


@dataclass(frozen=True, slots=True)
class Outside:
    """What a gateway has outside its data directory.

    `redis_url` is the operator's own Redis, never the embedded Valkey; `syslog` the socket of this machine's
    log, None to leave it alone.
    """

    redis_url: str | None = None
    witness_url: str | None = None
    syslog: Path | None = None


class Witness(Protocol):
    """Blocking, for `ANSWER_S` at most."""

    place: str
    """how a human finds it"""

    def newest(self, ledger: str) -> str | None:
        """The head that it keeps; None when it has none. Raises `WitnessError` when it is away."""

    def publish(self, ledger: str, token: str, instead_of: str | None) -> bool:
        """Has a head kept; False when it keeps another one by now. Raises `WitnessError`."""


class RedisWitness:
    """The operator's own Redis; the embedded Valkey is restored with the data directory."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.place = redis_place(url)

    def _redis(self) -> Any:
        return Redis.from_url(
            self._url, decode_responses=True, socket_timeout=ANSWER_S / 2,
            socket_connect_timeout=ANSWER_S / 2, retry=Retry(NoBackoff(), 0),
        )  # fmt: skip

    def newest(self, ledger: str) -> str | None:
        """As `Witness` says."""
        try:
            with contextlib.closing(self._redis()) as redis:
                kept = redis.hget(HEADS, ledger)
        except (RedisError, OSError, ValueError) as error:
            raise WitnessError(f"{self.place}: {error}") from None
        return None if kept is None else str(kept)

    def publish(self, ledger: str, token: str, instead_of: str | None) -> bool:
        """As `Witness` says."""
        try:
            with contextlib.closing(self._redis()) as redis, redis.pipeline() as pipe:
                pipe.watch(HEADS)
                if pipe.hget(HEADS, ledger) != instead_of:
                    return False
                pipe.multi()
                pipe.hset(HEADS, ledger, token)
                pipe.execute()
        except WatchError:
            return False
        except (RedisError, OSError, ValueError) as error:
            raise WitnessError(f"{self.place}: {error}") from None
        return True


class UrlWitness:
    """A URL, spoken to as the module says. Raises `LedgerError` for one that will not do."""

    def __init__(self, url: str) -> None:
        try:
            parts = urlsplit(url)
            here = _is_loopback(parts.hostname or "")
            good = bool(parts.hostname) and (parts.scheme == "https" or (parts.scheme == "http" and here))
            parts.port  # noqa: B018  # a port that is not a number raises
        except ValueError:
            good = False
        if not good:
            raise LedgerError(
                f"VOICEGATE_LEDGER_WITNESS: {bare(url)} will not do; it is an https:// URL, or http:// on "
                "this machine"
            )
        self._url = url
        self._here = here
        self.place = bare(url)

    def newest(self, ledger: str) -> str | None:
        """As `Witness` says."""
        status, body = self._ask("GET", {"Accept": MEDIA_TYPE})
        if status in (204, 404):
            return None
        if status != 200:
            raise WitnessError(f"{self.place}: it answered {status}")
        return body.decode("ascii", "replace").strip()

    def publish(self, ledger: str, token: str, instead_of: str | None) -> bool:
        """As `Witness` says; it keeps every head, so nothing is lost by another's."""
        status, _ = self._ask("POST", {"Content-Type": MEDIA_TYPE}, token.encode())
        if not 200 <= status < 300:
            raise WitnessError(f"{self.place}: it answered {status}")
        return True

    def _ask(self, method: str, headers: dict[str, str], body: bytes | None = None) -> tuple[int, bytes]:
        deadline = time.monotonic() + ANSWER_S
        came = bytearray()
        try:
            with (
                # a proxy is not asked for this machine, and nobody is sent elsewhere
                httpx.Client(
                    timeout=ANSWER_S / 2, trust_env=not self._here, follow_redirects=False
                ) as client,
                client.stream(method, self._url, headers=headers, content=body) as answer,
            ):
                for piece in answer.iter_bytes():
                    came += piece
                    if len(came) > LARGEST:
                        raise WitnessError(f"{self.place}: its answer is larger than a head")
                    if time.monotonic() > deadline:
                        raise WitnessError(f"{self.place}: it has not answered within {ANSWER_S:g} s")
                return answer.status_code, bytes(came)
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            raise WitnessError(f"{self.place}: {error or type(error).__name__}") from None


def _is_loopback(host: str) -> bool:
    with contextlib.suppress(ValueError):
        return ip_address(host).is_loopback
    return host == "localhost"


def tell_syslog(token: str, seq: int, digest: str, path: Path) -> bool:
    """Writes a head to this machine's log, for a human to compare; False where there is none."""
    text = f"voicegate[{os.getpid()}]: ledger head row {seq} {digest} {token}"
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as log:
            log.connect(str(path))
            log.send(f"<{AUTHPRIV_NOTICE}>{text}".encode())
    except OSError:
        return False
    return True
