"""Our registration with one trunk (RFC 3261 §10.2): where its calls to us are to come, renewed in time."""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Callable
from typing import Final

from gateway.edge.grammar.sip_message import Response
from gateway.edge.trunks.digest_answer import Credentials
from gateway.edge.trunks.trunk import Trunk
from gateway.edge.trunks.trunk_requests import TrunkRequests
from gateway.edge.trunks.trunk_ways import TrunkWay, TrunkWays
from gateway.errors import NoFlow

FIRST_RETRY_S: Final = 5.0
LAST_RETRY_S: Final = 300.0
LONGEST_S: Final = 86_400


class Registration:
    """One trunk's. `renew` when `due`."""

    def __init__(
        self, ways: TrunkWays, requests: TrunkRequests, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.ways = ways
        self.why: str | None = "not tried yet"
        """why we are not registered; None: we are"""
        self._requests = requests
        self._clock = clock
        self._credentials = Credentials(ways.trunk)
        self._call_id = secrets.token_hex(12)
        self._cseq = 0
        self._expires_s = ways.trunk.expires_s
        self._next_at = 0.0
        self._until = 0.0
        self._failed = 0

    @property
    def due(self) -> bool:
        """Whether it is time to ask again."""
        return self._clock() >= self._next_at

    @property
    def registered(self) -> bool:
        """Whether the trunk knows where we are, as far as we know."""
        return self._clock() < self._until

    async def renew(self) -> None:
        """Registers with the first address that takes us. Never raises for what a trunk does."""
        why: str | None = "the trunk has no address"
        for way in self.ways.in_order:
            why = await self._register(way)
            if why is None:
                return
        self._failed += 1
        self.why = why
        wait_s = min(LAST_RETRY_S, FIRST_RETRY_S * 2 ** min(self._failed - 1, 8))
        self._next_at = self._clock() + wait_s * (0.75 + secrets.randbelow(500) / 1000)

    def is_like(self, trunk: Trunk) -> bool:
        """Whether that trunk's registration takes this one's place where it is kept."""
        mine = self.ways.trunk
        places = ((one.user, one.realm_host, one.hosts, one.transport) for one in (mine, trunk))
        return trunk.register and len(set(places)) == 1

    async def end(self) -> None:
        """Has the trunk forget us, if it will. Never raises for what it does."""
        for way in self.ways.in_order[:1]:
            with contextlib.suppress(NoFlow, PermissionError):
                await self._requests.ask(
                    self.ways.trunk, way, "REGISTER", {"Expires": "0"},
                    call_id=self._call_id, cseq=self._cseq, contact=True, credentials=self._credentials,
                )  # fmt: skip
        self._until = 0.0

    async def _register(self, way: TrunkWay) -> str | None:
        """Why it was not taken there; None: it was."""
        trunk = self.ways.trunk
        for _ in range(2):  # a 423 says how long it has to be
            try:
                answer, self._cseq = await self._requests.ask(
                    trunk, way, "REGISTER", {"Expires": str(self._expires_s)},
                    call_id=self._call_id, cseq=self._cseq, contact=True, credentials=self._credentials,
                )  # fmt: skip
            except NoFlow as error:
                self.ways.note(way, str(error))
                return str(error)
            except PermissionError as error:
                self._credentials.forget()
                return str(error)
            if answer is None:
                self.ways.note(way, f"{way} does not answer")
                return f"{way} does not answer"
            self.ways.note(way, None)
            if 200 <= answer.code < 300:
                self._taken(answer)
                return None
            least = answer.headers.get("Min-Expires") or ""
            if answer.code != 423 or not least.isdigit() or not 0 < int(least) <= LONGEST_S:
                return f"{way} answered {answer.code} {answer.phrase[:60]}"
            self._expires_s = int(least)
        return f"{way} wants ever longer registrations"

    def _taken(self, answer: Response) -> None:
        lasts_s = _lasts_s(answer, self._expires_s)
        now = self._clock()
        self.why, self._failed = None, 0
        self._until = now + lasts_s
        self._next_at = now + max(lasts_s / 2, lasts_s - 60.0)


def _lasts_s(answer: Response, asked_s: int) -> int:
    """How long the trunk knows us: the least that its Contacts or its Expires say."""
    said = [asked_s]
    try:
        contacts = answer.contact if answer.headers.get("Contact") not in (None, "*") else []
    except ValueError:
        contacts = []
    texts = [one.parameters.get("expires") for one in contacts] or [answer.headers.get("Expires")]
    said += [
        int(text) for text in texts if text is not None and text.isdigit() and len(text) < 8 and int(text)
    ]
    return max(10, min(said))
