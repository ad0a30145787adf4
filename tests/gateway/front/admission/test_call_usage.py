"""Grants of one call: each for its own route, and each one's seconds in the ledger once, whoever dies."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from consent.errors import GrantRefused, LedgerError
from consent.grants.grant import GrantVerifier, VoiceGrant
from consent.grants.scope import Scope
from consent.office.office import ConsentOffice
from gateway.dialplan import Dialplan
from gateway.errors import RpcError
from gateway.front.admission.routing import Routing
from gateway.ipc.call_facts import CallFacts
from gateway.ipc.hall_messages import LiveCall, SpokenUnder
from gateway.store.call_grants import GRANTS, CallGrants
from gateway.store.registry import Registry, RegistryError
from tests.e2e.house_office import Office
from tests.gateway.front.admission.test_routing import KEY, HallPeer

PLAN = """
[[route]]
name = "jane"
called = ["jane"]
voice = "jane"
do = [
  { verb = "answer" }, { verb = "disclose", principal = "Acme", language = "en" },
  { verb = "gather", prompt = "press", branches = { "1" = "booking", "2" = "ads", "3" = "stock" } },
  { verb = "gather", prompt = "press", branches = { "4" = "lenient" } },
]

[[route]]
name = "booking"
voice = "jane"
do = [
  { verb = "answer" },
  { verb = "disclose", principal = "Acme", language = "en" },
  { verb = "gather", prompt = "back", branches = { "1" = "jane" } },
]

[[route]]
name = "ads"
voice = "jane"
purpose = "marketing"
without_voice = "hangup"
do = [
  { verb = "answer" },
  { verb = "disclose", principal = "Acme", language = "en" },
  { verb = "say", text = "buy" },
]

[[route]]
name = "lenient"
voice = "jane"
language = "de"
do = [
  { verb = "answer" },
  { verb = "disclose", principal = "Acme", language = "de" },
  { verb = "say", text = "kaufen" },
]

[[route]]
name = "stock"
do = [
  { verb = "answer" },
  { verb = "disclose", principal = "Acme", language = "en" },
  { verb = "say", text = "hello" },
]

[[route]]
name = "elsewhere"
called = ["elsewhere"]
voice = "jane"
do = [
  { verb = "answer" },
  { verb = "disclose", principal = "Acme", language = "en" },
  { verb = "say", text = "hello" },
]
"""


class Front:
    """A front's routing on a real office and a real registry; it dies by being made again."""

    def __init__(self, folder: Path) -> None:
        (folder / "plans").mkdir()
        (folder / "plans" / "10.toml").write_text(PLAN)
        self.plan = Dialplan.load(folder / "plans")
        self._folder = folder
        (folder / "data").mkdir(mode=0o700)
        desk = Office(folder)
        desk.register_jane()
        self.office = desk.office
        self.registry = Registry.open(f"sqlite:///{folder / 'calls.db'}")
        self.routing = self.born()

    def born(self) -> Routing:
        routing = Routing(self.plan, self.office, self.registry, KEY, stock_only=False)
        routing.halls["hall0"] = HallPeer()  # type: ignore[assignment]
        return routing

    def restart(self) -> None:
        """With an office that remembers nothing either."""
        self.office.close()
        self.office = ConsentOffice.open(
            f"sqlite:///{self._folder / 'data' / 'voicegate.db'}", self._folder / "data" / "consent"
        )
        self.routing = self.born()

    async def call(self, called: str = "jane") -> str:
        facts = CallFacts("sip:bob@x", f"sip:{called}@y", "Bob", "192.0.2.7", "udp")
        return (await self.routing.offer(facts, hall="hall0")).call_id

    def grant(self, call_id: str) -> VoiceGrant:
        grant = self.routing.calls[call_id].grant
        assert grant is not None
        return grant

    def used(self) -> list[tuple[str, float]]:
        """What the ledger has, in order: the route and its seconds."""
        rows = self.office.books.reader.rows(kinds=("voice.used",))
        return [(row.table["dialplan"], row.table["seconds"]) for row in rows]

    def granted(self) -> list[str]:
        rows = self.office.books.reader.rows(kinds=("voice.granted",))
        return [row.table["dialplan"] for row in rows]


@pytest.fixture
async def front(tmp_path: Path) -> AsyncIterator[Front]:
    opened = Front(tmp_path)
    yield opened
    opened.registry.close()
    opened.office.close()


# ── a grant for each route ───────────────────────────────────────────────────────────────────────────────


async def test_another_route_gets_another_grant_of_exactly_its_scope(front: Front) -> None:
    call_id = await front.call()
    first = front.grant(call_id)
    found = await front.routing.follow(call_id, "booking")
    assert found.token is not None
    second = GrantVerifier.load(front.office.public_keys_path).verify(found.token, call_id=call_id)
    assert second.scope == Scope("jane", "support", "booking", "en", call_id)
    assert second.jti != first.jti
    assert front.granted() == ["jane", "booking"]
    await front.routing.follow(call_id, "jane")
    third = front.grant(call_id)
    assert third.scope == first.scope
    assert third.jti not in (first.jti, second.jti), "back again, another one"
    told = [(grant.route, grant.jti) for grant in CallGrants(front.registry).of_call(call_id)]
    assert told == [("jane", first.jti), ("booking", second.jti), ("jane", third.jti)]


async def test_what_its_person_did_not_consent_to_is_refused_as_at_the_start(front: Front) -> None:
    call_id = await front.call()
    with pytest.raises(GrantRefused) as refusal:
        await front.routing.follow(call_id, "ads")
    assert refusal.value.reason == "purpose"
    assert front.granted() == ["jane"]
    found = await front.routing.follow(call_id, "lenient")
    assert found.refused == "language"
    assert front.grant(call_id).scope == Scope("heart", "support", "lenient", "de", call_id)
    assert front.routing.refused == {"purpose": 1, "language": 1}


async def test_a_call_is_led_nowhere_that_its_plan_does_not_lead(front: Front) -> None:
    call_id = await front.call()
    for name in ("elsewhere", "nowhere"):
        with pytest.raises(GrantRefused) as refusal:
            await front.routing.follow(call_id, name)
        assert refusal.value.reason == "dialplan"
    with pytest.raises(RpcError, match="no call"):
        await front.routing.follow("another", "booking")
    assert front.granted() == ["jane"]


async def test_the_grant_before_is_not_renewed_any_more(front: Front) -> None:
    call_id = await front.call()
    first = front.grant(call_id)
    await front.routing.follow(call_id, "booking")
    with pytest.raises(GrantRefused) as refusal:
        await front.routing.renew(call_id, first.token)
    assert refusal.value.reason == "replayed"
    second = front.grant(call_id)
    assert second.scope.dialplan == "booking"
    await front.routing.renew(call_id, second.token)
    assert front.grant(call_id).jti == second.jti


async def test_a_renewal_under_way_does_not_undo_the_change(front: Front, monkeypatch: Any) -> None:
    call_id = await front.call()
    first = front.grant(call_id)
    renew, going, go = front.office.renew, asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def slow(grant: VoiceGrant) -> VoiceGrant:
        loop.call_soon_threadsafe(going.set)
        asyncio.run_coroutine_threadsafe(go.wait(), loop).result()
        return renew(grant)

    monkeypatch.setattr(front.office, "renew", slow)
    renewing = asyncio.ensure_future(front.routing.renew(call_id, first.token))
    await going.wait()
    await front.routing.follow(call_id, "booking")
    go.set()
    with pytest.raises(GrantRefused, match="taken its place"):
        await renewing
    assert front.grant(call_id).scope.dialplan == "booking"


async def test_a_registry_that_takes_no_grant_lets_nobody_speak(front: Front, monkeypatch: Any) -> None:
    call_id = await front.call()

    def away(*_: object) -> None:
        raise RegistryError("away")

    with monkeypatch.context() as patch:
        patch.setattr(CallGrants, "enter", away)
        with pytest.raises(RpcError, match="takes no grants"):
            await front.routing.follow(call_id, "booking")
    assert front.grant(call_id).scope.dialplan == "jane"
    assert front.used() == [("booking", 0.0)], "it was given, and nothing was said by it"


async def test_a_restarted_front_does_not_renew_a_grant_of_another_route(front: Front) -> None:
    call_id = await front.call()
    token = front.grant(call_id).token
    booking = next(route for route in front.plan.routes if route.name == "booking")
    front.restart()
    front.routing.adopt((LiveCall(call_id, booking, 0.0, "confirmed"),), "hall0")
    with pytest.raises(GrantRefused) as refusal:
        await front.routing.renew(call_id, token)
    assert refusal.value.reason == "scope"
    await front.routing.follow(call_id, "jane")
    assert front.grant(call_id).scope.dialplan == "jane"


# ── seconds ──────────────────────────────────────────────────────────────────────────────────────────────


async def test_each_route_s_seconds_go_to_its_own_grant(front: Front) -> None:
    call_id = await front.call()
    first = front.grant(call_id).jti
    await front.routing.follow(call_id, "booking", (SpokenUnder(first, 3.5),))
    second = front.grant(call_id).jti
    await front.routing.follow(call_id, "stock", (SpokenUnder(first, 3.5), SpokenUnder(second, 2.0)))
    third = front.grant(call_id).jti
    spoken = (SpokenUnder(first, 3.5), SpokenUnder(second, 2.0), SpokenUnder(third, 9.0))
    await front.routing.ended(call_id, "hung up", spoken)
    await front.routing.ended(call_id, "hung up", spoken)
    assert front.used() == [("jane", 3.5), ("booking", 2.0)], "each once, and the stock voice's not at all"
    assert [grant.spoken_s for grant in CallGrants(front.registry).of_call(call_id)] == [3.5, 2.0, 9.0]


async def test_a_line_s_death_loses_no_more_than_was_said_since_the_last_renewal(front: Front) -> None:
    """Nobody tells the seconds: the hall died, or its word was lost."""
    call_id = await front.call()
    grant = front.grant(call_id)
    await front.routing.renew(call_id, grant.token, (SpokenUnder(grant.jti, 21.5),))
    await front.routing.ended(call_id, "failed: its line died")
    assert front.used() == [("jane", 21.5)]


async def test_a_front_that_died_since_the_last_renewal_loses_none(front: Front) -> None:
    call_id = await front.call()
    grant = front.grant(call_id)
    await front.routing.renew(call_id, grant.token, (SpokenUnder(grant.jti, 21.5),))
    front.restart()
    front.routing.adopt((LiveCall(call_id, front.plan.routes[0], 0.0, "confirmed"),), "hall0")
    await front.routing.ended(call_id, "hung up", (SpokenUnder(grant.jti, 25.0),))
    assert front.used() == [("jane", 25.0)]


async def test_nor_one_that_no_hall_told_of_the_call(front: Front) -> None:
    call_id = await front.call()
    grant = front.grant(call_id)
    await front.routing.renew(call_id, grant.token, (SpokenUnder(grant.jti, 21.5),))
    front.restart()
    await front.routing.ended(call_id, "failed: the gateway died")
    assert front.used() == [("jane", 21.5)]


async def test_a_call_that_was_over_in_its_first_seconds_is_in_the_ledger_too(front: Front) -> None:
    call_id = await front.call()
    front.restart()
    await front.routing.ended(call_id, "failed: its hall died")
    assert front.used() == [("jane", 0.0)]


async def test_a_front_that_dies_between_the_call_s_end_and_the_ledger_is_made_up_for(front: Front) -> None:
    call_id = await front.call()
    grant = front.grant(call_id)
    await front.routing.renew(call_id, grant.token, (SpokenUnder(grant.jti, 8.0),))
    front.registry.close_call(call_id, "hung up")
    front.restart()
    assert front.used() == []
    await front.routing.note_left_over()
    assert front.used() == [("jane", 8.0)]
    await front.routing.note_left_over()
    await front.routing.ended(call_id, "hung up", (SpokenUnder(grant.jti, 9.0),))
    assert front.used() == [("jane", 8.0)], "once"


async def test_calls_that_live_are_not_made_up_for(front: Front) -> None:
    await front.call()
    await front.routing.note_left_over()
    assert front.used() == []


async def test_a_ledger_that_is_away_is_told_later(front: Front, monkeypatch: Any) -> None:
    call_id = await front.call()
    grant = front.grant(call_id)

    def away(**_: object) -> None:
        raise LedgerError("away")

    with monkeypatch.context() as patch:
        patch.setattr(front.office, "record_usage", away)
        await front.routing.ended(call_id, "hung up", (SpokenUnder(grant.jti, 4.0),))
    assert front.used() == []
    await front.routing.note_left_over()
    assert front.used() == [("jane", 4.0)]


async def test_an_office_told_twice_notes_it_once(front: Front) -> None:
    """A front that dies between the ledger's row and its own note of it tells the office again."""
    call_id = await front.call()
    grant = front.grant(call_id)
    await front.routing.ended(call_id, "hung up", (SpokenUnder(grant.jti, 4.0),))
    with front.registry.writing() as connection:
        connection.execute(GRANTS.update().values(noted=False))
    for restarts in (False, True):
        if restarts:
            front.restart()
        await front.routing.note_left_over()
        assert front.used() == [("jane", 4.0)]


async def test_a_call_that_no_hall_took_was_granted_and_not_spoken_in(front: Front) -> None:
    front.routing.halls["hall0"].refuses = RpcError("the hall is full")  # type: ignore[attr-defined]
    with pytest.raises(Exception, match="the hall is full"):
        await front.call()
    assert front.granted() == ["jane"]
    assert front.used() == [("jane", 0.0)]


async def test_a_registry_that_an_older_version_made_has_no_grants(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'old.db'}"
    old = Registry.open(url)
    GRANTS.drop(old.engine, checkfirst=True)
    old.close()
    read = Registry.read(url)
    assert read is not None
    assert CallGrants(read).of_call("c1") == ()
    read.close()
