"""A gateway takes other plans while a call is up, by command, by signal and from another machine."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from gateway.cli.main import cli
from tests.e2e.gateway_process import House
from tests.e2e.talking import Talking
from tests.gateway.edge.authority import Authority
from tests.gateway.front.events.hook_receiver import HookReceiver
from tests.gateway.front.events.test_delivery_tls import serving
from tests.needs import HANGS_S

pytestmark = pytest.mark.e2e

PLAN = """
[[route]]
name = "demo"
called = ["demo"]
do = [
  { verb = "answer" },
  { verb = "disclose", principal = "Lindens", language = "en" },
  { verb = "gather", prompt = "Press one.", branches = { "1" = "night" }, timeout_s = 60 },
]

[[route]]
name = "night"
do = [
  { verb = "answer" },
  { verb = "disclose", principal = "Lindens", language = "en" },
  { verb = "say", text = "We are closed." },
  { verb = "hangup" },
]
"""


TRUNK = '[[trunk]]\nname = "carrier"\nhosts = ["192.0.2.9"]\nping_s = 0\nprefixes = ["+49"]\n'


class Command:
    """The command line of a house's own machine, or of another one that has a token's file."""

    def __init__(self, house: House, folder: Path) -> None:
        self._house, self._file = house, folder / "token"

    def here(self, *words: str) -> Result:
        return CliRunner().invoke(cli, words, env={**dict.fromkeys(_ours()), **self._house.environ})

    def elsewhere(self, *words: str) -> Result:
        where = ("--url", self._house.url, "--token-from", str(self._file))
        empty = {"VOICEGATE_DATA_DIR": str(self._file.parent / "nothing")}
        return CliRunner().invoke(cli, [*where, *words], env={**dict.fromkeys(_ours()), **empty})

    def has_token(self, role: str) -> None:
        made = self.here("token", "add", role, "--role", role)
        self._file.touch(0o600)
        self._file.write_text(made.stdout)


def _ours() -> list[str]:
    import os

    return [name for name in os.environ if name.startswith("VOICEGATE_")]


def version(house: House) -> str:
    return str(house.get("/api/dialplans")["version"])


@pytest.mark.long(
    "a whole gateway, with a call across three reloads, each of which is tried in a process of its own"
)
async def test_other_plans_while_a_call_is_up(tmp_path: Path) -> None:
    house = House(tmp_path / "house")
    house.plan(PLAN)
    data = tmp_path / "house" / "data"
    plan, webhooks = data / "dialplans" / "05-test.toml", data / "webhooks.toml"
    authority = Authority(tmp_path / "authority")
    house.environ["SSL_CERT_FILE"] = str(authority.ca)
    receiver = HookReceiver(tls=serving(authority.sign("localhost")))
    await receiver.start()
    hook = f'[[webhook]]\nname = "crm"\nurl = "{receiver.url}"\nsecret_file = "crm.secret"\n'
    (data / "crm.secret").write_text("0123456789abcdef0123456789abcdef\n")
    (data / "crm.secret").chmod(0o600)
    (data / "trunks.toml").write_text(TRUNK)
    (data / "events.db").write_bytes(b"no database, " * 5000)  # calls need none
    await asyncio.to_thread(house.start)
    command = Command(house, tmp_path)
    ask: Callable[..., Any] = asyncio.to_thread
    try:
        first = await ask(version, house)
        async with Talking.calls(house) as call:
            plan.write_text(PLAN.replace("disclose", "discloze"))
            webhooks.write_text(hook.replace("secret_file", "secret_fil"))
            refused = await ask(command.here, "reload")
            assert refused.exit_code == 1
            assert "05-test.toml:" in refused.output
            assert "discloze" in refused.output
            assert "webhooks.toml:4:" in refused.output
            assert await ask(version, house) == first

            plan.write_text(PLAN.replace("night", "late"))
            webhooks.write_text(hook)
            taken = await ask(command.here, "reload")
            assert taken.exit_code == 0, taken.output
            second = await ask(version, house)
            assert second != first
            assert f"{second} (before: {first})" in taken.output

            out = await ask(command.here, "trunk", "out", "carrier", "--why", "fraud")
            assert out.exit_code == 0, out.output

            # the call follows the branch of the plan that it began with, also when the front was restarted
            front = house.kill("front")
            back = lambda: house.pids().get("front", front) != front and house.ready()  # noqa: E731
            await ask(house.wait_for, "a new front", back, HANGS_S)
            call._phone.press("1")
            on_night = lambda: house.get(f"/api/calls/{call.call_id}")["route"] == "night"  # noqa: E731
            await ask(house.wait_for, "the branch", on_night, HANGS_S)
            assert (await call.shown())["plan"] == first
        async with Talking.calls(house) as other:
            assert (await other.shown())["plan"] == second

            # by signal
            plan.write_text(PLAN)
            assert house.process is not None
            house.process.send_signal(signal.SIGHUP)
            await ask(house.wait_for, "the signal's reload", lambda: version(house) == first, HANGS_S)

            # from another machine
            await ask(command.has_token, "watcher")
            trunks = (await ask(command.elsewhere, "trunk", "list")).output
            assert "udp:192.0.2.9:5060" in trunks
            assert "out of service since" in trunks, "the front was restarted meanwhile"
            assert "by console: fraud" in trunks
            assert "trunks.write" in (await ask(command.elsewhere, "trunk", "back", "carrier")).output
            assert (await ask(command.here, "trunk", "back", "carrier")).exit_code == 0
            assert "out of" not in (await ask(command.here, "trunk", "list")).output
            listed = await ask(command.elsewhere, "calls")
            assert listed.exit_code == 0, listed.output
            assert other.call_id in listed.output
            assert call.call_id in listed.output
            assert "plans.reload" in (await ask(command.elsewhere, "reload")).output
            shown = await ask(command.elsewhere, "calls", "show", other.call_id)
            assert "called sip:demo@" in shown.output
            refused = await ask(command.elsewhere, "calls", "end", other.call_id)
            assert "calls.end" in refused.output
            await ask(command.has_token, "operator")
            assert (await ask(command.elsewhere, "reload")).exit_code == 0
            assert (await ask(command.elsewhere, "calls", "end", other.call_id)).exit_code == 0
            over = lambda: house.get(f"/api/calls/{other.call_id}")["state"] == "ended"  # noqa: E731
            await ask(house.wait_for, "the call's end", over, HANGS_S)
            assert (await other.shown())["how"] == "hung up by the console"
            assert "tokens.write" in (await ask(command.elsewhere, "token", "list")).output
        assert f",{first}" in (await ask(command.here, "calls", "--csv")).output
        told = {(one.event["call_id"], one.event["type"]) for one in receiver.got}
        assert (other.call_id, "call.offered") in told
        assert (call.call_id, "call.offered") not in told, "it was offered before there was the webhook"
        assert (call.call_id, "call.ended") in told
        log = house.log_path.read_text()
        assert "events.file_broken" in log
        assert str((tmp_path / "token").read_text()).strip()[15:] not in log
    finally:
        await asyncio.to_thread(house.stop)
        await receiver.stop()
