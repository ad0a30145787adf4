"""Everybody who is told events besides those who listen: webhooks, CDR files, mail. One courier each."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from gateway.config.paths import cdr_dir, route_key_path, webhooks_path
from gateway.config.settings import Settings
from gateway.dialplan import Dialplan, Route
from gateway.dialplan.verbs import Record
from gateway.edge.grammar.token import route_key
from gateway.errors import StartError
from gateway.front.events.cdr_files import CdrFiles
from gateway.front.events.courier import Courier, Receiver
from gateway.front.events.deliveries import Deliveries
from gateway.front.events.event_shelf import EventShelf, ShelfError
from gateway.front.events.message_mail import MessageMail
from gateway.front.events.trace_export import TraceExport
from gateway.front.events.webhook_file import read_webhooks
from gateway.front.events.webhook_post import WebhookPost
from model.tasks import Tasks

HOUR_S: Final = 3600.0
GAPS_S: Final = 86_400.0
"""How long a gap waits for the next event of its call."""


class Receivers:
    """All of them. Raises `ShelfError` when their table cannot be made."""

    def __init__(
        self, shelf: EventShelf, receivers: Sequence[Receiver], bell: Callable[[], asyncio.Event]
    ) -> None:
        self._receivers = receivers
        self._deliveries = Deliveries(shelf, {one.name: one.wants for one in receivers})
        self.couriers = [Courier(shelf, self._deliveries, one, bell) for one in receivers]

    def state(self) -> dict[str, tuple[int, int]]:
        """Of each by name: events that wait for it, and those that it will never be told."""
        return {
            name: (count, self._deliveries.lost[name]) for name, count in self._deliveries.waiting.items()
        }

    def start(self, tasks: Tasks) -> None:
        """Begins to tell them."""
        for courier in self.couriers:
            tasks.lasting(courier.run, "front.courier")
        tasks.lasting(self._tidy, "front.gaps")

    async def _tidy(self) -> None:
        while True:
            with contextlib.suppress(ShelfError):
                await asyncio.to_thread(self._deliveries.forget, time.time() - GAPS_S)
            await asyncio.sleep(HOUR_S)

    async def close(self) -> None:
        """Lets go of their connections."""
        for one in self._receivers:
            if isinstance(one, (WebhookPost, TraceExport)):
                await one.close()


def receivers_of(conf: Settings, plan: Callable[[], Dialplan]) -> list[Receiver]:
    """Whom this house tells. `plan`: the dialplan in force.

    Raises `SettingsError`, and `StartError` for a plan that wants mail where there is no relay.
    """
    forms = {"off": (), "both": ("json", "csv")}.get(conf.cdr, (conf.cdr,))
    found: list[Receiver] = [WebhookPost(webhook) for webhook in read_webhooks(webhooks_path(conf))]
    if forms:
        found.append(CdrFiles(cdr_dir(conf), forms, conf.cdr_mb * 1_000_000, conf.cdr_s))
    if conf.otlp_url is not None:
        found.append(TraceExport(conf.otlp_url, _key_of_numbers(conf)))
    if conf.mail_relay is not None and conf.mail_from is not None:
        found.append(MessageMail(conf.mail_relay, conf.mail_from, partial(address_of, plan)))
    elif (wants := next((one.file for one in plan().routes if notified(one)), None)) is not None:
        raise StartError(f"{wants}: notify needs VOICEGATE_MAIL_RELAY and VOICEGATE_MAIL_FROM")
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
