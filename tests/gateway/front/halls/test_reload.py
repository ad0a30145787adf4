"""Plans, users, trunks and certificates are read anew: what does not load stays, calls keep their plan."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from consent.errors import GrantRefused
from gateway.config.settings import Settings
from gateway.dialplan import Dialplan
from gateway.edge.trunks.trunk import Trunk
from gateway.errors import DialplanError
from gateway.front.events.webhook_file import Webhook
from gateway.front.halls import reload as module
from gateway.front.halls.reload import Reload
from gateway.front.house.certificate_watch import CertificateWatch
from gateway.ipc.ending import CallEnding, End
from gateway.store.sip_users import SipUsers
from tests.gateway.front.admission.test_routing import PLAN, Desk

NOTIFIES = """
[[route]]
name = "messages"
called = ["messages"]
do = [
  { verb = "answer" },
  { verb = "disclose", principal = "Lindens", language = "en" },
  { verb = "record", announce = "Speak.", notify = "mailto:office@lindens.example" },
]
"""
TRUNK = '[[trunk]]\nname = "carrier"\nhosts = ["192.0.2.9"]\nprefixes = ["+49"]\n'


class House:
    """A front's reload, with a trial in this process."""

    def __init__(self, folder: Path) -> None:
        self.desk = Desk(folder)
        self.desk.office.names = lambda: frozenset({"heart", "stock", "alice"})  # type: ignore[attr-defined]
        self.data, self.plans = folder / "data", folder / "plans"
        self.data.mkdir(mode=0o700)
        self.settings = Settings(data_dir=self.data, host="127.0.0.1", dialplans=self.plans)
        self.trunks: list[tuple[Trunk, ...]] = []
        self.webhooks: tuple[Webhook, ...] = ()
        self.told = 0
        self.users = SipUsers(self.data)
        self.reload = Reload(
            self.settings, self.desk.routing, self.desk.office, self.users,  # type: ignore[arg-type]
            CertificateWatch(self.settings), self._take, self._take_webhooks, self._plan_changed, self._trial,
        )  # fmt: skip
        self.between: Any = lambda: None

    def write(self, text: str) -> None:
        (self.plans / "10.toml").write_text(text)

    def _take(self, trunks: Sequence[Trunk]) -> None:
        self.trunks.append(tuple(trunks))

    async def _take_webhooks(self, webhooks: Sequence[Webhook]) -> dict[str, int]:
        gone = {one.name: 3 for one in self.webhooks if one.name not in {two.name for two in webhooks}}
        self.webhooks = tuple(webhooks)
        return gone

    async def _plan_changed(self) -> None:
        self.told += 1

    async def _trial(self) -> str:
        version = Dialplan.load(self.plans).version
        self.between()
        return version


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    opened = House(tmp_path)
    yield opened
    opened.desk.registry.close()


async def test_a_call_keeps_the_plan_that_it_began_with(house: House) -> None:
    routing = house.desk.routing
    old = await house.desk.offer("demo")
    house.write(PLAN.replace('"1" = "night"', '"1" = "late"').replace('name = "night"', 'name = "late"'))
    done = await house.reload.everything()
    assert done.failed == {}
    assert (done.was, done.plan) == (house.desk.plan.version, routing.dialplan.version)
    assert done.was != done.plan
    assert house.told == 1
    new = await house.desk.offer("demo")
    assert (await routing.follow(old.call_id, "night")).token
    assert (await routing.follow(new.call_id, "late")).token
    with pytest.raises(GrantRefused):
        await routing.follow(old.call_id, "late")
    with pytest.raises(GrantRefused):
        await routing.follow(new.call_id, "night")
    assert [offer.plan for offer in house.desk.hall.offers] == [done.was, done.plan]
    assert {row.call_id: row.plan for row in house.desk.rows()} == {
        old.call_id: done.was, new.call_id: done.plan,
    }  # fmt: skip
    for call in (old, new):
        await routing.ended(call.call_id, CallEnding(End.CALLER))


async def test_a_plan_that_does_not_load_leaves_the_old_one_in_force(house: House) -> None:
    before = house.desk.routing.dialplan
    house.write(PLAN.replace("disclose", "discloze", 1))
    done = await house.reload.everything()
    assert "10.toml:" in done.failed["dialplans"]
    assert "discloze" in done.failed["dialplans"]
    assert done.plan == before.version
    assert house.desk.routing.dialplan is before
    assert house.told == 0
    await house.desk.offer("demo")


async def test_each_part_by_itself(house: House) -> None:
    (house.data / "trunks.toml").write_text(TRUNK + "nonsense = 1\n")
    (house.data / "sip_users.json").write_text("{")
    (house.data / "sip_users.json").chmod(0o600)
    house.write(PLAN + "# another version\n")
    done = await house.reload.everything()
    assert done.failed.keys() == {"users", "trunks"}
    assert done.plan != done.was
    assert house.trunks == []
    (house.data / "trunks.toml").write_text(TRUNK)
    (house.data / "sip_users.json").unlink()
    assert (await house.reload.everything()).failed == {}
    assert [trunk.name for trunk in house.trunks[0]] == ["carrier"]


WEBHOOK = '[[webhook]]\nname = "{}"\nurl = "https://crm.example/hooks?token=hidden"\nsecret_file = "s"\n'


async def test_webhooks_too_and_a_mistake_leaves_the_old_ones(house: House) -> None:
    (house.data / "s").write_text("0123456789abcdef\n")
    (house.data / "s").chmod(0o600)
    file = house.data / "webhooks.toml"
    file.write_text(WEBHOOK.format("crm"))
    assert (await house.reload.everything()).failed == {}
    assert [one.name for one in house.webhooks] == ["crm"]
    file.write_text(WEBHOOK.format("other") + "retries = 3\n")
    done = await house.reload.everything()
    assert done.failed.keys() == {"webhooks"}
    assert "webhooks.toml:5:" in done.failed["webhooks"]
    assert "hidden" not in done.failed["webhooks"]
    assert [one.name for one in house.webhooks] == ["crm"]
    file.unlink()
    done = await house.reload.everything()
    assert (done.failed, house.webhooks) == ({}, ())
    assert done.notes == ("webhook crm is told no more; 3 events that waited are dropped",)
    assert (await house.reload.everything()).notes == ()


async def test_a_plan_that_sends_mail_wants_a_relay(house: House) -> None:
    """The trial refuses it before; should a setting differ there, the front does."""
    house.write(PLAN + NOTIFIES)
    done = await house.reload.everything()
    assert "VOICEGATE_MAIL_RELAY" in done.failed["dialplans"]
    assert re.search(r"10\.toml:\d+: ", done.failed["dialplans"])
    assert done.plan == done.was
    relayed = {"mail_relay": "127.0.0.1", "mail_from": "a@lindens.example"}
    house.reload.settings = Settings(data_dir=house.data, dialplans=house.plans, **relayed)  # type: ignore[arg-type]
    assert (await house.reload.everything()).failed == {}


async def test_files_that_change_while_they_are_read_are_not_taken(house: House) -> None:
    house.write(PLAN + "# one\n")
    house.between = lambda: house.write(PLAN + "# two\n")
    done = await house.reload.everything()
    assert "reload again" in done.failed["dialplans"]
    assert done.plan == done.was


async def test_the_same_plan_is_no_change(house: House) -> None:
    before = house.desk.routing.dialplan
    assert (await house.reload.everything()).plan == before.version
    assert house.desk.routing.dialplan is before
    assert house.told == 0


async def test_a_trial_that_says_nothing_is_a_plan_that_does_not_load(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TRIAL", "gateway.nowhere")
    house.reload.trial = module.trial
    assert "the log says why" in (await house.reload.everything()).failed["dialplans"]


async def test_one_reload_at_a_time(house: House) -> None:
    under_way = most = 0

    async def trial() -> str:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0)
        under_way -= 1
        raise DialplanError("no")

    house.reload.trial = trial
    await asyncio.gather(*(house.reload.everything() for _ in range(5)))
    assert most == 1


def test_the_version_follows_the_texts_and_names_of_the_files(tmp_path: Path) -> None:
    def version() -> str:
        return Dialplan.load(tmp_path).version

    (tmp_path / "10.toml").write_text(PLAN)
    first = version()
    assert first == version()
    assert len(first) == 12
    (tmp_path / "10.toml").write_text(PLAN + "\n")
    assert version() != first
    (tmp_path / "10.toml").write_text(PLAN)
    assert version() == first
    (tmp_path / "10.toml").rename(tmp_path / "20.toml")
    assert version() != first
    assert json.dumps(first)
