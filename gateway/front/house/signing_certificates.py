"""Certificates that callers' networks sign with (STIR/SHAKEN): fetched beside the calls, and kept.

A caller names the URL, so it costs little: hosts of the operator's list only, public addresses only, no
redirect, few at once, few a minute, small, soon given up; what failed is not tried again for a while. What
was fetched proves nothing by itself: `gateway.edge.doors.attestation` verifies it for every call.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import httpx
import structlog
from cryptography import x509

from gateway.config.authorities import AuthorityFile
from gateway.config.settings import Settings
from gateway.edge.doors.attestation import Chain, SignedCalls
from gateway.front.house.guarded_transport import GuardedTransport, public

log = structlog.get_logger("front")

WITHIN_S: Final = 10.0
MOST_BYTES: Final = 64 << 10
MOST_IN_CHAIN: Final = 4
MOST_KEPT: Final = 256
"""URLs, those that failed too."""
AT_ONCE: Final = 4
A_MINUTE: Final = 60
KEPT_S: Final = 24 * 3600.0
NEW_S: Final = 6 * 3600.0
"""A chain older than this is fetched again when a call names it, which still goes by the old one."""
FAILED_S: Final = 300.0
"""How long one that failed is not tried again."""
NOT_YET: Final = "certificate not fetched yet"
BEGIN: Final = b"-----BEGIN CERTIFICATE-----"

Spawn = Callable[[Any], None]
"""Has a coroutine run, kept by its owner."""


class Unfit(Exception):
    """What came is not a chain of certificates."""


@dataclass(slots=True)
class KeptChain:
    """What is known of a URL. `chain` is empty where it failed; `at` is monotonic, of the last try."""

    chain: Chain
    at: float
    fetched_at: float


class SigningCertificates:
    """See the module. All methods belong to one event loop."""

    def __init__(
        self,
        spawn: Spawn,
        client: Callable[[], httpx.AsyncClient] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`client` makes what asks: None, one that follows no redirect and knows public addresses alone."""
        self._spawn = spawn
        self._client = client or _client
        self._clock = clock
        self._kept: OrderedDict[str, KeptChain] = OrderedDict()
        """the one that was asked for last at the end"""
        self._underway: set[str] = set()
        self._begun: deque[float] = deque(maxlen=A_MINUTE)

    def chain_at(self, url: str) -> Chain | str:
        """What is kept of a URL; else why there is nothing, and it is fetched for the next call."""
        now = self._clock()
        kept = self._kept.get(url)
        if kept is None:
            return self._begin(url, now)
        self._kept.move_to_end(url)
        usable = bool(kept.chain) and now - kept.fetched_at < KEPT_S
        due = now - kept.at >= FAILED_S and (not usable or now - kept.fetched_at >= NEW_S)
        why = self._begin(url, now) if due else "certificate could not be fetched"
        return kept.chain if usable else why

    def _begin(self, url: str, now: float) -> str:
        """Fetches it, if there is time for one more. Returns why it is not there."""
        if url in self._underway:
            return NOT_YET
        often = len(self._begun) == A_MINUTE and now - self._begun[0] < 60.0
        if len(self._underway) >= AT_ONCE or often:
            return "too many certificates are asked for"
        self._begun.append(now)
        self._underway.add(url)
        self._spawn(self._fetch(url))
        return NOT_YET

    async def _fetch(self, url: str) -> None:
        """Never raises."""
        chain: Chain = ()
        why = ""
        try:
            async with asyncio.timeout(WITHIN_S):
                chain = await self._fetched(url)
        except Unfit as error:
            why = str(error)
        except TimeoutError:
            why = f"no answer within {WITHIN_S:g} s"
        except Exception as error:  # its text may be a stranger's
            why = type(error).__name__
        finally:
            self._underway.discard(url)
        self._keep(url, chain)
        if why:
            log.warning("stir.certificate_not_fetched", url=url, why=why)
        else:
            log.info("stir.certificate_fetched", url=url, certificates=len(chain))

    async def _fetched(self, url: str) -> Chain:
        client = await asyncio.to_thread(self._client)  # it reads this machine's authorities
        async with (
            client,
            client.stream(
                "GET", url, headers={"Accept-Encoding": "identity", "User-Agent": "voicegate"}
            ) as answer,
        ):
            if answer.status_code != 200:
                raise Unfit(f"HTTP {answer.status_code}")
            body = b""
            async for piece in answer.aiter_raw():
                body += piece
                if len(body) > MOST_BYTES:
                    raise Unfit(f"more than {MOST_BYTES} bytes")
        return chain_in(body)

    def _keep(self, url: str, chain: Chain) -> None:
        now, before = self._clock(), self._kept.get(url)
        if chain or before is None:
            self._kept[url] = KeptChain(chain, now, now)
        else:
            before.at = now  # the old chain stays while it may
        while len(self._kept) > MOST_KEPT:
            failed = (one for one, kept in self._kept.items() if not kept.chain)
            del self._kept[next(failed, next(iter(self._kept)))]


def chain_in(body: bytes) -> Chain:
    """The certificates of a PEM text. Raises `Unfit`."""
    if not 1 <= body.count(BEGIN) <= MOST_IN_CHAIN:
        raise Unfit(f"not 1 to {MOST_IN_CHAIN} certificates in PEM")
    try:
        return tuple(x509.load_pem_x509_certificates(body))
    except ValueError:
        raise Unfit("its certificates cannot be read") from None


def signed_calls(
    conf: Settings, spawn: Spawn, look_too: Callable[[Callable[[], None]], None] = lambda look: None
) -> SignedCalls | None:
    """What judges calls' signatures; None while no authorities are named. Raises `SettingsError`.

    `look_too` is given what looks at the authorities' file again.
    """
    if conf.stir_trust is None:
        return None
    file = AuthorityFile(conf.stir_trust, "VOICEGATE_STIR_TRUST")
    certificates = SigningCertificates(spawn)
    signed = SignedCalls(file.all.values(), conf.stir_hosts, certificates.chain_at)

    def look() -> None:
        if file.changed():
            signed.believe(file.all.values())
            log.info("stir.authorities_changed", count=len(file.all))

    look_too(look)
    return signed


def _client() -> httpx.AsyncClient:
    return httpx.AsyncClient(
        transport=GuardedTransport(httpx.AsyncHTTPTransport(verify=ssl.create_default_context()), public),
        follow_redirects=False,
        trust_env=False,
        timeout=httpx.Timeout(WITHIN_S),
    )
