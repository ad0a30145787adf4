"""Webhooks: signed, at least once, in order of each call, through receivers that fail, stall and restart."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from gateway.errors import SettingsError
from gateway.front.events import courier as couriers
from gateway.front.events import deliveries, webhook_post
from gateway.front.events.event_shelf import EventShelf, NewEvent
from gateway.front.events.receivers import Receivers
from gateway.front.events.webhook_file import Webhook, read_webhooks
from gateway.front.events.webhook_post import WebhookPost
from gateway.front.house.guarded_transport import allowed
from gateway.store.call_events import (
    CallAnswered,
    CallDetail,
    CallNote,
    CallOffered,
    CallSettled,
    KeyInput,
    Turn,
)
from tests.gateway.front.events.hook_receiver import DROPS, STALLS, Got, HookReceiver
from tests.needs import HANGS_S

SECRET = b"0123456789abcdef0123456789abcdef"


class Told:
    """A shelf and its couriers."""

    def __init__(self, folder: Path, *webhooks: Webhook) -> None:
        self.shelf = EventShelf(folder / "events.db", 3600.0).open()
        self._bell = asyncio.Event()
        self.posts = [WebhookPost(webhook) for webhook in webhooks]
        self.receivers = Receivers(self.shelf, self.posts, lambda: self._bell)
        self.receivers.start()

    async def tell(self, *events: NewEvent) -> list[str]:
        kept = await asyncio.to_thread(self.shelf.keep, events)
        bell, self._bell = self._bell, asyncio.Event()
        bell.set()
        return [event.id for event in kept]

    async def empties(self) -> None:
        """Nothing waits any more."""
        async with asyncio.timeout(HANGS_S):
            while any(waiting for waiting, _ in self.receivers.state().values()):  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    async def close(self) -> None:
        await self.receivers.close()
        self.shelf.close()


def life(call_id: str) -> list[NewEvent]:
    return [
        NewEvent(call_id, 5.0, CallOffered(caller="sip:bob@x", called="sip:demo@y", route="demo")),
        NewEvent(call_id, 6.0, CallAnswered()),
        NewEvent(call_id, 7.0, Turn("caller", "my secret is out", duration_s=1.0)),
    ]


@pytest.fixture(autouse=True)
def _hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(couriers, "FIRST_PAUSE_S", 0.02)
    monkeypatch.setattr(couriers, "LONGEST_PAUSE_S", 0.05)


@pytest.fixture
async def receiver() -> AsyncIterator[HookReceiver]:
    made = HookReceiver()
    await made.start()
    yield made
    await made.stop()


@pytest.fixture
async def told(tmp_path: Path, receiver: HookReceiver) -> AsyncIterator[Told]:
    made = Told(tmp_path, hook(receiver))
    yield made
    await made.close()


def hook(receiver: HookReceiver, **more: Any) -> Webhook:
    return replace(Webhook(name="crm", url=receiver.url, secrets=(SECRET,)), **more)


def is_signed(got: Got, secret: bytes = SECRET) -> bool:
    """As a receiver checks it; docs/events.md has the same."""
    signed = f"{got.headers['webhook-id']}.{got.headers['webhook-timestamp']}.".encode() + got.body
    meant = "v1," + base64.b64encode(hmac.new(secret, signed, hashlib.sha256).digest()).decode()
    fresh = abs(time.time() - int(got.headers["webhook-timestamp"])) < 300
    return fresh and any(hmac.compare_digest(meant, one) for one in got.headers["webhook-signature"].split())


async def test_a_receiver_is_told_signed_and_with_ids_alone(told: Told, receiver: HookReceiver) -> None:
    ids = await told.tell(*life("c1"), NewEvent("c1", 8.0, KeyInput(digit="5")))
    got = await receiver.has(4)
    assert [one.event["id"] for one in got] == ids
    assert [one.headers["idempotency-key"] for one in got] == ids
    assert all(is_signed(one) for one in got)
    assert not is_signed(replace(got[0], body=got[0].body.replace(b"demo", b"dem0")))
    assert not is_signed(got[0], b"another secret of theirs")
    assert got[0].event["data"] == {"route": "demo"}
    assert got[2].event["data"] == {"who": "caller", "duration_s": 1.0}
    assert got[3].event["data"] == {}
    assert got[0].path == "/hook?of=voicegate"


async def test_words_and_numbers_go_where_the_operator_says_so(
    tmp_path: Path, receiver: HookReceiver
) -> None:
    told = Told(tmp_path, hook(receiver, personal=True))
    detail = CallDetail(call_id="c1", caller="sip:bob@x", ended_at=9.0, how="hung up", party="hung up")
    await told.tell(*life("c1"), NewEvent("c1", 9.0, CallSettled(how="hung up", cdr=detail)))
    got = await receiver.has(4)
    assert got[0].event["data"]["caller"] == "sip:bob@x"
    assert got[2].event["data"]["text"] == "my secret is out"
    assert got[3].event["data"]["cdr"]["caller"] == "sip:bob@x"
    await told.close()


async def test_of_a_cdr_too_ids_alone(told: Told, receiver: HookReceiver) -> None:
    detail = CallDetail(
        call_id="c1", caller="sip:bob@x", ended_at=9.0, how="hung up", party="hung up", user="u"
    )
    await told.tell(NewEvent("c1", 9.0, CallSettled(how="hung up", cdr=detail)))
    (got,) = await receiver.has(1)
    assert got.event["data"]["cdr"] == {
        "call_id": "c1", "ended_at": 9.0, "how": "hung up", "party": "hung up", "turns": 0, "messages": 0,
    }  # fmt: skip


async def test_two_secrets_sign_while_one_is_changed(tmp_path: Path, receiver: HookReceiver) -> None:
    told = Told(tmp_path, hook(receiver, secrets=(SECRET, b"the next secret of this one")))
    await told.tell(*life("c1")[:1])
    (got,) = await receiver.has(1)
    assert is_signed(got)
    assert is_signed(got, b"the next secret of this one")
    await told.close()


async def test_a_receiver_names_its_types(tmp_path: Path, receiver: HookReceiver) -> None:
    told = Told(tmp_path, hook(receiver, types=frozenset({"call.answered"})))
    await told.tell(*life("c1"), *life("c2"), NewEvent("c1", 1.0, CallNote(what="x")))
    await told.empties()
    assert [one.event["type"] for one in receiver.got] == ["call.answered"] * 2
    await told.close()


@pytest.mark.parametrize("status", [500, 503, 404, 302, DROPS])
async def test_what_fails_is_tried_again_until_it_is_taken_and_in_order(
    told: Told, receiver: HookReceiver, status: int
) -> None:
    tries: dict[str, int] = {}

    def answers(got: Got) -> int:
        event_id = got.headers["webhook-id"]
        tries[event_id] = tries.get(event_id, 0) + 1
        return status if tries[event_id] < 3 else 200

    receiver.answers = answers
    receiver.more = "Location: http://127.0.0.1:1/elsewhere\r\n"
    ids = await told.tell(*life("c1"), *life("c2"))
    await told.empties()
    assert tries == dict.fromkeys(ids, 3)
    assert all(is_signed(one) for one in receiver.got)
    for call_id in ("c1", "c2"):
        numbers = [one.event["call_number"] for one in receiver.got if one.event["call_id"] == call_id]
        assert numbers == sorted(numbers), "no event before the one in front of it was taken"


async def test_one_event_that_is_never_taken_holds_up_no_other_call(
    told: Told, receiver: HookReceiver
) -> None:
    receiver.answers = lambda got: 500 if got.event["call_id"] == "bad" else 200
    await told.tell(*life("bad"), *life("good"))
    async with asyncio.timeout(HANGS_S):
        while sum(one.event["call_id"] == "good" for one in receiver.got) < 3:
            await receiver.has(len(receiver.got) + 1)
    assert {one.event["call_number"] for one in receiver.got if one.event["call_id"] == "bad"} == {1}


async def test_an_event_that_is_refused_for_long_keeps_no_later_call_waiting(
    told: Told, receiver: HookReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(couriers, "FIRST_PAUSE_S", 3600.0)
    monkeypatch.setattr(couriers, "LONGEST_PAUSE_S", 3600.0)
    receiver.answers = lambda got: 400 if got.event["call_id"] == "bad" else 200
    await told.tell(*life("bad"))
    await receiver.has(1)
    await told.tell(*life("good"))
    got = await receiver.has(4)
    assert [one.event["call_id"] for one in got] == ["bad", *["good"] * 3]


async def test_what_is_never_taken_is_given_up_and_the_gap_is_said(
    tmp_path: Path, receiver: HookReceiver
) -> None:
    told = Told(tmp_path, hook(receiver, retry_s=0.2))
    receiver.answers = lambda got: 500 if got.event["call_number"] <= 2 else 200
    with capture_logs() as lines:
        await told.tell(*life("c1"))
        await told.empties()
    last = receiver.got[-1].event
    assert (last["call_number"], last["missed"]) == (3, 2)
    assert [line["event"] for line in lines].count("receiver.missed") == 2
    assert "of=voicegate" not in str(lines), "the URL may have a token in it"
    await told.tell(*life("c1")[:1])
    await told.empties()
    assert "missed" not in receiver.got[-1].event, "it is said once"
    await told.close()


async def test_a_receiver_that_is_gone_for_good_says_so(told: Told, receiver: HookReceiver) -> None:
    receiver.answers = lambda got: 410 if got.event["call_number"] == 1 else 200
    await told.tell(*life("c1")[:2])
    got = await receiver.has(2)
    assert got[1].event["missed"] == 1


async def test_one_that_stalls_is_left_after_a_while(
    told: Told, receiver: HookReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhook_post, "ANSWER_S", 0.2)
    receiver.answers = lambda got: STALLS if len(receiver.got) < 2 else 200
    await told.tell(*life("c1"))
    await told.empties()
    assert len(receiver.got) == 5


async def test_a_receiver_that_restarts_misses_nothing(told: Told, receiver: HookReceiver) -> None:
    await told.tell(*life("c0"))
    await receiver.has(3)
    await receiver.stop()
    ids = await told.tell(*life("c1"), *life("c2"))
    await asyncio.sleep(0.1)
    await receiver.start()
    await told.empties()
    assert sorted(one.headers["webhook-id"] for one in receiver.got[3:]) == sorted(ids)


async def test_one_that_asks_to_be_left_alone_is(told: Told, receiver: HookReceiver) -> None:
    receiver.answers = lambda got: 429 if len(receiver.got) < 1 else 200
    receiver.more = "Retry-After: 1\r\n"
    began = time.monotonic()
    await told.tell(*life("c1")[:1])
    await receiver.has(2)
    assert time.monotonic() - began >= 1.0


async def test_a_spool_that_is_full_says_so_and_marks_the_gap(
    told: Told, receiver: HookReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deliveries, "MOST", 2)
    receiver.answers = lambda _: 500
    with capture_logs() as lines:
        await told.tell(*life("c1"))
        await receiver.has(1)
        receiver.answers = lambda _: 200
        await told.empties()
        await told.tell(*life("c1")[:1])
        await told.empties()
    said = [(one.event["call_number"], one.event.get("missed")) for one in receiver.got[1:]]
    assert list(dict.fromkeys(said)) == [(1, None), (2, None), (4, 1)]
    names = [line["event"] for line in lines]
    assert (names.count("receiver.full"), names.count("receiver.took_again")) == (1, 1)
    assert told.receivers.state()["crm"] == (0, 1)


async def test_what_was_spooled_is_told_after_a_restart_and_another_receivers_is_forgotten(
    tmp_path: Path, receiver: HookReceiver
) -> None:
    await receiver.stop()
    told = Told(tmp_path, hook(receiver), hook(receiver, name="old"))
    ids = await told.tell(*life("c1"))
    await told.close()
    await receiver.start()
    told = Told(tmp_path, hook(receiver))
    await told.empties()
    assert [one.headers["webhook-id"] for one in receiver.got] == ids
    await told.close()


@pytest.mark.parametrize("nth", [1, 3])
async def test_kill_9_between_what_a_receiver_accepts_and_its_200(
    tmp_path: Path, receiver: HookReceiver, nth: int
) -> None:
    """It is told again, with the same id; nothing is lost, and the order holds."""
    shelf = EventShelf(tmp_path / "events.db", 3600.0).open()
    shelf.close()
    argv = [sys.executable, "-m", "tests.gateway.front.events.test_webhooks", str(tmp_path), receiver.url]
    process = await asyncio.create_subprocess_exec(*argv, stdout=subprocess.PIPE)

    def answers(_: Got) -> int:
        if len(receiver.got) + 1 == nth:
            os.kill(process.pid, signal.SIGKILL)
            return STALLS
        return 200

    receiver.answers = answers
    async with asyncio.timeout(HANGS_S):
        await process.wait()
    killed = receiver.got[-1].headers["webhook-id"]
    receiver.answers = lambda _: 200
    told = Told(tmp_path, hook(receiver))
    await told.empties()
    ids = [one.headers["webhook-id"] for one in receiver.got]
    assert ids.count(killed) == 2
    assert list(dict.fromkeys(ids)) == [f"{told.shelf.series}-{n}" for n in (1, 2, 3)]
    assert is_signed(receiver.got[-1])
    await told.close()


@pytest.mark.parametrize(
    ("host", "addresses", "told"),
    [
        ("crm.example", ["203.0.113.7"], "203.0.113.7"),
        ("crm.example", ["127.0.0.1"], None),
        ("crm.example", ["::1", "::ffff:127.0.0.1", "169.254.169.254", "fe80::1%eth0"], None),
        ("crm.example", ["0.0.0.0", "224.0.0.1", "::"], None),
        ("crm.example", ["127.0.0.1", "10.0.0.5"], "10.0.0.5"),
        ("localhost", ["127.0.0.1"], "127.0.0.1"),
        ("127.0.0.1", ["127.0.0.1"], "127.0.0.1"),
        ("crm.example", ["no address"], None),
    ],
    ids=range(8),
)
def test_which_addresses_may_be_told(host: str, addresses: list[str], told: str | None) -> None:
    assert next((one for one in addresses if allowed(host, one)), None) == told


async def test_a_public_name_that_leads_to_this_machine_is_not_told(
    tmp_path: Path, receiver: HookReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = asyncio.get_running_loop()

    async def leads_here(host: str, port: int, **_: Any) -> list[Any]:
        return [(2, 1, 6, "", ("127.0.0.1", receiver.port))]

    monkeypatch.setattr(loop, "getaddrinfo", leads_here)
    told = Told(tmp_path, hook(receiver, url=f"https://crm.example:{receiver.port}/x", retry_s=0.1))
    with capture_logs() as lines:
        await told.tell(*life("c1")[:1])
        await told.empties()
    assert not receiver.got
    said = {line["event"]: line for line in lines}
    assert said["receiver.missed"]["error"] == "its name leads to an address that is not told"
    await told.close()


GOOD = '[[webhook]]\nname = "crm"\nurl = "https://crm.example/x"\nsecret_file = "s"\n'


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (GOOD.replace("https:", "http:"), "without TLS"),
        (GOOD.replace("crm.example", "u:p@crm.example"), "no user"),
        (GOOD.replace("https://crm.example/x", "ftp://x"), "cannot be one"),
        (GOOD.replace("https://crm.example/x", "https://crm.example:99999/x"), "cannot be one"),
        (GOOD.replace("https://crm.example/x", "https://crm.example/a b"), "cannot be one"),
        (GOOD + 'secret = "x"', "no secret stands in this file"),
        (GOOD + 'secret_env = "X"', "name one of"),
        (GOOD.replace('secret_file = "s"', 'secret_file = "open"'), "chmod 600"),
        (GOOD.replace('secret_file = "s"', 'secret_file = "short"'), "guessed"),
        (GOOD.replace('secret_file = "s"', 'secret_file = "gone"'), "cannot be read"),
        (GOOD + 'types = ["call.end"]', "call.ended"),
        (GOOD + "types = []", "types is a list"),
        (GOOD + "retry_s = 0", "1 to 86400"),
        (GOOD + GOOD, "rename one"),
        (GOOD.replace('"crm"', '"mail"'), "mail is the mail relay's name"),
        (GOOD.replace("[[webhook]]", "[webhook]"), "two brackets"),
        (GOOD.replace('"crm"', '"CRM!"'), "needs a name"),
        ("x = [", "not TOML"),
        (GOOD + "retries = 5", "retries"),
    ],
    ids=range(19),
)
def test_what_cannot_be_meant_is_refused_with_a_remedy(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "s").write_text("0123456789abcdef\n")
    (tmp_path / "open").write_text("0123456789abcdef\n")
    (tmp_path / "short").write_text("0123\n")
    for name in ("s", "short"):
        (tmp_path / name).chmod(0o600)
    (tmp_path / "open").chmod(0o644)
    (tmp_path / "webhooks.toml").write_text(text)
    with pytest.raises(SettingsError) as refused:
        read_webhooks(tmp_path / "webhooks.toml")
    assert says in str(refused.value)
    assert "0123456789abcdef" not in str(refused.value)


def test_a_file_that_can_be_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_webhooks(tmp_path / "webhooks.toml") == ()
    monkeypatch.setenv("CRM", "whsec_" + base64.b64encode(SECRET).decode())
    text = GOOD.replace('secret_file = "s"', 'secret_env = "CRM"').replace(
        "https://crm.example", "http://localhost:9"
    )
    (tmp_path / "webhooks.toml").write_text(text)
    (webhook,) = read_webhooks(tmp_path / "webhooks.toml")
    assert webhook.secrets == (SECRET,)
    assert "call.note" not in webhook.types
    assert SECRET.decode() not in repr(webhook)


async def _sends(folder: Path, url: str) -> None:
    told = Told(folder, Webhook(name="crm", url=url, secrets=(SECRET,)))
    await told.tell(*life("c1"))
    await told.empties()
    print(json.dumps({"done": True}), flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_sends(Path(sys.argv[1]), sys.argv[2]))
