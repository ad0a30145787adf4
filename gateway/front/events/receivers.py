"""Everybody who is told events besides those who listen: webhooks, CDR files, mail. One courier each."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Final

import structlog

from gateway.config.paths import cdr_dir, route_key_path, webhooks_path
from gateway.config.settings import Settings
from gateway.dialplan import Dialplan, Route
from gateway.dialplan.verbs import Record
from gateway.edge.grammar.token import route_key
from gateway.front.events.cdr_files import CdrFiles
from gateway.front.events.collector import Collector
from gateway.front.events.courier import Courier, Receiver
from gateway.front.events.deliveries import Deliveries, Wants
from gateway.front.events.event_file import ShelfError
from gateway.front.events.event_shelf import EventShelf
from gateway.front.events.message_mail import MessageMail
from gateway.front.events.trace_export import TraceExport
from gateway.front.events.webhook_file import Webhook, read_webhooks
from gateway.front.events.webhook_post import WebhookPost
from model.tasks import Tasks

log = structlog.get_logger("events")

HOUR_S: Final = 3600.0
GAPS_S: Final = 86_400.0
"""How long a gap waits for the next event of its call."""


class Receivers:
    """All of them."""

    def __init__(
        self, shelf: EventShelf, receivers: Sequence[Receiver], bell: Callable[[], asyncio.Event]
    ) -> None:
        self._shelf = shelf
        self._bell = bell
        self._receivers = {one.name: one for one in receivers}
        self._deliveries = Deliveries(shelf, self._wants(self._receivers))
        self._tasks = Tasks()
        self._couriers: dict[str, asyncio.Task[None]] = {}

    @staticmethod
    def _wants(receivers: Mapping[str, Receiver]) -> dict[str, Wants]:
        return {name: one.wants for name, one in receivers.items()}

    def state(self) -> dict[str, tuple[int, int]]:
        """Of each by name: events that wait for it, and those that it will never be told."""
        return {
            name: (count, self._deliveries.lost[name])
            for name, count in self._deliveries.waiting.items()
            if name in self._deliveries.lost
        }

    def start(self) -> None:
        """Begins to tell them."""
        self._send_out()
        self._tasks.lasting(self._tidy, "front.gaps")

    def _send_out(self) -> None:
        """A courier for each that has none."""
        for name, receiver in self._receivers.items():
            if name not in self._couriers:
                courier = Courier(self._shelf, self._deliveries, receiver, self._bell)
                self._couriers[name] = self._tasks.lasting(courier.run, "front.courier")

    async def take_webhooks(self, webhooks: Sequence[Webhook]) -> dict[str, int]:
        """These from now on, and no others; returns how many events were dropped of each that is gone.

        One that is as before goes on undisturbed. A changed one is told at once what waits for it, as it is
        now; a new one, what happens from now on. Raises `ShelfError`: then all is as before.
        """
        had = {name: one for name, one in self._receivers.items() if isinstance(one, WebhookPost)}
        others = {name: one for name, one in self._receivers.items() if name not in had}
        kept = {one.name for one in webhooks if one.name in had and had[one.name].webhook == one}
        posts = {one.name: had[one.name] if one.name in kept else WebhookPost(one) for one in webhooks}
        changed = (had.keys() & posts.keys()) - kept
        await self._call_back(had.keys() - kept)
        try:
            now = posts | others
            dropped = await asyncio.to_thread(self._deliveries.take, self._wants(now), changed)
            self._receivers = now
            for name in had.keys() - kept:
                await had[name].close()
        finally:
            self._send_out()
        for name in posts.keys() - had.keys():
            log.info("receiver.added", receiver=name)
        for name in changed:
            log.info("receiver.changed", receiver=name)
        for name, count in dropped.items():
            log.warning("receiver.removed", receiver=name, dropped=count)
        return dropped

    async def _call_back(self, names: Collection[str]) -> None:
        """Ends their couriers; what was on its way is told again, by whoever comes next."""
        couriers = [self._couriers.pop(name) for name in names if name in self._couriers]
        for courier in couriers:
            courier.cancel()
        if couriers:
            await asyncio.wait(couriers)

    async def _tidy(self) -> None:
        while True:
            with contextlib.suppress(ShelfError):
                await asyncio.to_thread(self._deliveries.forget, time.time() - GAPS_S)
            await asyncio.sleep(HOUR_S)

    async def close(self) -> None:
        """Tells nobody any more, and lets go of their connections."""
        await self._tasks.stop()
        for one in self._receivers.values():
            if isinstance(one, WebhookPost):
                await one.close()


def receivers_of(
    conf: Settings, plan: Callable[[], Dialplan], collector: Collector | None = None
) -> list[Receiver]:
    """Whom this house tells. `plan`: the dialplan in force; `collector`: who is told traces.

    Raises `SettingsError`.
    """
    forms = {"off": (), "both": ("json", "csv")}.get(conf.cdr, (conf.cdr,))
    found: list[Receiver] = [WebhookPost(webhook) for webhook in read_webhooks(webhooks_path(conf))]
    if forms:
        found.append(CdrFiles(cdr_dir(conf), forms, conf.cdr_mb * 1_000_000, conf.cdr_s))
    if collector is not None:
        found.append(TraceExport(collector, _key_of_numbers(conf)))
    if conf.mail_relay is not None and conf.mail_from is not None:
        found.append(MessageMail(conf.mail_relay, conf.mail_from, partial(address_of, plan)))
    return found


def _key_of_numbers(conf: Settings) -> bytes:
    """What numbers in traces are hashed with: of this house alone, and no key of anything else."""
    return hmac.digest(route_key(route_key_path(conf)), b"numbers in traces", "sha256")


def address_of(plan: Callable[[], Dialplan], name: str) -> str | None:
    """Whom the plan has told of messages on the route of that name."""
    return next((notified(route) for route in plan().routes if route.name == name), None)


def notified(route: Route) -> str | None:
    """The address in the first verb `record` of a route that has one."""
    found = (verb.notify for verb in route.do if isinstance(verb, Record) and verb.notify)
    return next((text.removeprefix("mailto:") for text in found), None)
