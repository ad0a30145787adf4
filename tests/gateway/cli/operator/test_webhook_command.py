"""`voicegate webhook`: what is told to whom, and a trial of it."""

from __future__ import annotations

import asyncio
from pathlib import Path

from click.testing import CliRunner

from gateway.cli.main import cli
from tests.gateway.front.events.hook_receiver import HookReceiver
from tests.gateway.front.events.test_webhooks import SECRET, is_signed


def told(*words: str) -> tuple[int, str]:
    result = CliRunner().invoke(cli, ["webhook", *words])
    return result.exit_code, result.output + str(result.exception or "")


def written(folder: Path, url: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "s").write_bytes(SECRET)
    (folder / "s").chmod(0o600)
    hook = f'[[webhook]]\nname = "crm"\nurl = "{url}"\nsecret_file = "s"\n'
    (folder / "webhooks.toml").write_text(hook)


async def test_a_webhook_is_tried_with_a_signed_event(own_house: Path) -> None:
    receiver = HookReceiver()
    await receiver.start()
    assert "no webhooks" in (await asyncio.to_thread(told, "list"))[1]
    written(own_house, receiver.url)
    listed = (await asyncio.to_thread(told, "list"))[1]
    assert f"crm  http://127.0.0.1:{receiver.port}  ids alone: call.answered" in listed
    assert "of=voicegate" not in listed
    assert await asyncio.to_thread(told, "test", "crm") == (0, "crm took it\n")
    (got,) = receiver.got
    assert is_signed(got)
    assert got.event["type"] == "test"
    receiver.answers = lambda _: 403
    status, said = await asyncio.to_thread(told, "test", "crm")
    assert (status, "HTTP 403" in said) == (1, True)
    assert "has no webhook" in (await asyncio.to_thread(told, "test", "other"))[1]
    await receiver.stop()
