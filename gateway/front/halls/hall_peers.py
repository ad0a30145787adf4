"""The front's connections to its halls: each is kept, told what it needs, and looked at when it is slow."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import structlog

from consent.grants.scope import STOCK, Scope
from consent.service.front_office import FrontOffice
from gateway.config.runtime import Runtime
from gateway.errors import RpcError
from gateway.front.admission.routing import Routing
from gateway.ipc import rpc
from gateway.ipc.envelope import Handled
from gateway.ipc.hall_messages import PROMPTS, Health, RenderPrompts
from gateway.ipc.hello import Hello
from gateway.ipc.rpc import Peer

log = structlog.get_logger("front")

RETRY_S: Final = (0.05, 0.1, 0.2, 0.5, 1.0)
LOOK_S: Final = 1.0
"""Between two looks at a hall that did not answer in time."""


class Halls:
    """See the module. `lost` is told the name of a hall that is gone; the others are in `routing.halls`."""

    def __init__(
        self,
        runtime: Runtime,
        token: str,
        routing: Routing,
        office: FrontOffice,
        handlers: Sequence[Handled[Peer, Awaitable[object]]],
        lost: Callable[[str], None],
    ) -> None:
        self._runtime = runtime
        self._token = token
        self._routing = routing
        self._office = office
        self._handlers = handlers
        self._lost = lost

    async def keep(self, name: str) -> None:
        """Stays connected to one hall; a hall that comes back tells its calls and gets the prompts."""
        hello = Hello("front", "front", self._token)
        routing, tries = self._routing, 0
        while True:
            try:
                peer = await rpc.connect(self._runtime.hall(name), hello, self._handlers)
            except RpcError:
                await asyncio.sleep(RETRY_S[min(tries, len(RETRY_S) - 1)])
                tries += 1
                continue
            tries, answers = 0, False
            routing.halls[name] = peer
            try:
                with contextlib.suppress(RpcError):
                    routing.adopt((await peer.ask(Health())).calls, name)
                    answers = True
                    await self._send_prompts(peer)
                await peer.closed.wait()
            finally:
                peer.close()
                if routing.halls.get(name) is peer:
                    del routing.halls[name]
                routing.unwell.discard(name)
                log.warning("hall.lost", hall=name)
                self._lost(name)
            if not answers:  # it refuses us: of another version, or of another boot
                await asyncio.sleep(RETRY_S[-1])

    async def look_after(self) -> None:
        """A hall that did not answer in time gets calls again once it does."""
        while True:
            await asyncio.sleep(LOOK_S)
            for name in list(self._routing.unwell):
                with contextlib.suppress(RpcError):
                    if (hall := self._routing.halls.get(name)) is not None:
                        await hall.ask(Health())
                        self._routing.unwell.discard(name)
                        log.info("hall.well", hall=name)

    async def send_prompts(self) -> None:
        """Has every hall render what a new plan says; one that cannot now is told when it is back."""
        for hall in list(self._routing.halls.values()):
            with contextlib.suppress(RpcError):
                await self._send_prompts(hall)

    async def _send_prompts(self, hall: Peer) -> None:
        """What must be sayable when the engine is away, then what can wait for no engine that is busy, in the
        stock voice."""
        plan = self._routing.dialplan
        texts = tuple(dict.fromkeys((*plan.prompts(), *plan.openings())))
        await hall.ask(RenderPrompts(texts, await prompts_grant(self._office)))


async def prompts_grant(office: FrontOffice) -> str:
    """The token of a grant to render prompts with, in the stock voice."""
    call_id = f"{PROMPTS}-{secrets.token_hex(8)}"  # no call's, and each time another one
    scope = Scope(STOCK, purpose=PROMPTS, dialplan=PROMPTS, language="en", call_id=call_id)
    return (await asyncio.to_thread(office.grant, scope)).token
