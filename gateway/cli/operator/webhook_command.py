"""`voicegate webhook`: who is told of calls by HTTP."""

from __future__ import annotations

import asyncio
import secrets
import time
from urllib.parse import urlsplit

import click

from gateway.config.paths import webhooks_path
from gateway.config.settings import load
from gateway.errors import VoicegateError
from gateway.front.events.courier import TellOutcome
from gateway.front.events.event_shelf import KeptEvent
from gateway.front.events.webhook_file import Webhook, read_webhooks
from gateway.front.events.webhook_post import WebhookPost


@click.group()
def webhook() -> None:
    """Webhooks: who is told of calls by HTTP; the data directory's webhooks.toml."""


@webhook.command("list")
def list_webhooks() -> None:
    """List the webhooks. No secret and no path is shown."""
    settings = load()
    found = read_webhooks(webhooks_path(settings))
    if not found:
        click.echo(f"no webhooks; {webhooks_path(settings)} has [[webhook]] tables")
    for one in found:
        parts = urlsplit(one.url)
        what = "words and numbers too" if one.personal else "ids alone"
        where = f"{parts.scheme}://{parts.hostname}" + (f":{parts.port}" if parts.port else "")
        click.echo(f"{one.name}  {where}  {what}: {', '.join(sorted(one.types))}")


@webhook.command()
@click.argument("name")
def test(name: str) -> None:
    """Send the webhook NAME a signed event of the type `test`, and say what came back."""
    settings = load()
    found = {one.name: one for one in read_webhooks(webhooks_path(settings))}
    if name not in found:
        known = ", ".join(found) or "none"
        raise VoicegateError(f"{webhooks_path(settings)} has no webhook {name}; it has {known}")
    outcome = asyncio.run(_told(found[name]))
    if outcome.said != "taken":
        raise VoicegateError(f"{name} did not take it: {outcome.why}")
    click.echo(f"{name} took it")


async def _told(one: Webhook) -> TellOutcome:
    post = WebhookPost(one)
    event_id = f"test-{secrets.token_hex(8)}"
    try:
        return await post.tell(KeptEvent("test", 1, event_id, 0, 0, time.time(), "test", {}), 0)
    finally:
        await post.close()
