"""Dialplans, users, trunks, certificates and webhooks, read anew while calls go on.

Each part by itself: what does not load leaves that part as it was, and says why. A call keeps the plan that
it began with. Plans are tried first in a process of their own (`gateway.run.trial_plan`), which reads
recordings too and keeps nothing; one reload goes on at a time.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

import structlog

from consent.errors import ConsentError
from consent.service.front_office import FrontOffice
from gateway.config.house_languages import why_no_languages
from gateway.config.paths import kept_plans_path, trunks_path, webhooks_path
from gateway.config.settings import Settings
from gateway.dialplan import Dialplan
from gateway.dialplan.house_plan import read_house_plan
from gateway.edge.trunks.trunk import Trunk
from gateway.edge.trunks.trunk_file import read_trunks
from gateway.errors import DialplanError, VoicegateError
from gateway.front.admission.kept_plans import KeptPlans
from gateway.front.admission.routing import Routing
from gateway.front.events.webhook_file import Webhook, read_webhooks
from gateway.front.house.certificate_watch import CertificateWatch
from gateway.ipc.front_messages import Reloaded
from gateway.store.sip_users import SipUsers
from model.ears import SOCKET_VARIABLE

TRIAL: Final = "gateway.run.trial_plan"
TRIAL_WITHIN_S: Final = 60.0

log = structlog.get_logger("front")

Trial = Callable[[], Awaitable[str]]
"""The version of the plans that lie there now. Raises `DialplanError` when they do not load."""


async def trial() -> str:
    """Tried in a process of its own."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", TRIAL,
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        env=os.environ,
    )  # fmt: skip
    try:
        async with asyncio.timeout(TRIAL_WITHIN_S):
            said, complaint = await process.communicate()
        told = json.loads(said)
    except TimeoutError:
        process.kill()
        await process.wait()
        raise DialplanError(f"the plans were not read within {TRIAL_WITHIN_S:g} s") from None
    except ValueError:
        log.error("reload.trial_failed", error=complaint.decode(errors="replace")[-2000:])
        raise DialplanError("the plans could not be tried; the log says why") from None
    if "error" in told:
        raise DialplanError(str(told["error"]))
    return str(told["version"])


@dataclass
class Reload:
    """See the module. `new_trunks` has the edge take trunks, `new_webhooks` says how many events were dropped
    of each that is gone; `new_plan` has the halls learn of a plan."""

    settings: Settings
    routing: Routing
    office: FrontOffice
    users: SipUsers
    certificate: CertificateWatch
    new_trunks: Callable[[Sequence[Trunk]], None]
    new_webhooks: Callable[[Sequence[Webhook]], Awaitable[dict[str, int]]]
    new_plan: Callable[[], Awaitable[None]]
    trial: Trial = trial

    def __post_init__(self) -> None:
        self._one = asyncio.Lock()
        self._said: list[str] = []
        """what became of things, for whoever asked"""

    async def everything(self) -> Reloaded:
        """Reads all of it anew; returns what became of each part."""
        async with self._one:
            was = self.routing.dialplan.version
            failed: dict[str, str] = {}
            parts: list[tuple[str, Callable[[], Awaitable[None]]]] = [
                ("dialplans", self._plan),
                ("users", self._users),
                ("trunks", self._trunks),
                ("certificates", self._certificate),
                ("webhooks", self._webhooks),
            ]
            self._said.clear()
            for name, read in parts:
                try:
                    await read()
                except (VoicegateError, ConsentError) as error:
                    failed[name] = str(error)
                    log.error("reload.refused", part=name, error=str(error))
            now = self.routing.dialplan.version
            notes = self._notes()
            log.info("reload.done", plan=now, was=was, kept_as_they_were=sorted(failed), notes=list(notes))
            return Reloaded(plan=now, was=was, failed=failed, notes=notes)

    async def _plan(self) -> None:
        version = await self.trial()
        plan = await asyncio.to_thread(self._read)
        if plan.version != version:
            raise DialplanError("the plans changed while they were read; reload again")
        if plan.version != self.routing.dialplan.version:
            await asyncio.to_thread(KeptPlans(kept_plans_path(self.settings)).keep, plan)
            self.routing.take_plan(plan)
            log.info("dialplan.changed", plan=plan.version, routes=len(plan.routes))
            await self.new_plan()

    def _read(self) -> Dialplan:
        # the trial has read the recordings
        return read_house_plan(self.settings, self.office.names(), recordings=False)

    async def _users(self) -> None:
        await asyncio.to_thread(self.users.names)

    async def _trunks(self) -> None:
        self.new_trunks(await asyncio.to_thread(read_trunks, trunks_path(self.settings)))

    async def _certificate(self) -> None:
        if (why := self.certificate.look()) is not None:
            raise VoicegateError(why)

    async def _webhooks(self) -> None:
        webhooks = await asyncio.to_thread(read_webhooks, webhooks_path(self.settings))
        for name, count in (await self.new_webhooks(webhooks)).items():
            self._said.append(f"webhook {name} is told no more; {count} events that waited are dropped")

    def _notes(self) -> tuple[str, ...]:
        """What somebody should know, and what the new plan wants that this house has not."""
        plan = self.routing.dialplan
        if plan.hears_languages and (why := why_no_languages(self.settings)) is not None:
            self._said.append(f"callers' languages are not heard: {why}")
        keeps = next((route.name for route in plan.routes if route.keep.transcript), None)
        if keeps is not None and SOCKET_VARIABLE not in os.environ:
            self._said.append(f"route {keeps}: an engine that writes no transcript has none before a restart")
        return tuple(self._said)
