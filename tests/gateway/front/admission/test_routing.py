"""A new call: dialplan, voice, registry row, hall; in that order, or nothing at all."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from sqlalchemy import create_engine, select

from consent.errors import GrantRefused
from consent.grants.grant import GrantVerifier, VoiceGrant, b64, sign
from consent.grants.scope import Scope
from gateway.config.emergency import NO_HELP
from gateway.dialplan import Dialplan
from gateway.errors import CallRefused, HallRefused, RpcError, RpcTimeout
from gateway.front.admission import routing as module
from gateway.front.admission.routing import RoutedCall, Routing
from gateway.ipc.call_facts import CallFacts
from gateway.ipc.codec import to_json
from gateway.ipc.envelope import Ask, Message
from gateway.ipc.hall_messages import CallOffer, EndCall, LiveCall, SpokenUnder
from gateway.store.call_headers import CallHeaders
from gateway.store.call_search import CallSearch
from gateway.store.call_tables import CALLS
from gateway.store.registry import CallRow, PayloadTaken, Registry, RegistryError
from watermark.keys import MarkKey
from watermark.payload import call_payload

KEY = MarkKey("wm-0001", 1, bytes(range(32)))
PLAN = """
[targets]
desk = "sip:100@192.0.2.1"

[[route]]
name = "demo"
called = ["demo"]
do = [
  { verb = "answer" },
  { verb = "disclose", principal = "Lindens", language = "en" },
  { verb = "gather", prompt = "press one", branches = { "1" = "night" } },
]

[[route]]
name = "strict"
called = ["strict"]
voice = "alice"
without_voice = "hangup"
do = [
  { verb = "answer" },
  { verb = "disclose", principal = "Lindens", language = "en" },
  { verb = "say", text = "hello" },
]

[[route]]
name = "lenient"
called = ["lenient"]
voice = "alice"
without_voice = "stock"
do = [
  { verb = "answer" },
  { verb = "disclose", principal = "Lindens", language = "en" },
  { verb = "say", text = "hello" },
]

[[route]]
name = "night"
do = [{ verb = "answer" }, { verb = "say", text = "we are closed" }]
"""


class Office:
    """Grants as the consent office does; refuses the voices in `refuses`."""

    def __init__(self, folder: Path) -> None:
        self._key = Ed25519PrivateKey.generate()
        public = self._key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        self.public_keys_path = folder / "grant-keys.json"
        self.public_keys_path.write_text(json.dumps({"keys": {"k": b64(public)}}))
        self.refuses: dict[str, str] = {}
        self.granted: list[str] = []
        self.scopes: list[Scope] = []
        """what it gave grants for"""
        self.used: list[dict[str, Any]] = []

    def grant(self, scope: Scope) -> VoiceGrant:
        voice = scope.voice
        if voice in self.refuses:
            raise GrantRefused(self.refuses[voice], "no")
        self.granted.append(voice)
        given = sum(earlier.call_id == scope.call_id for earlier in self.scopes)
        self.scopes.append(scope)
        return self._sign(scope, f"jti-{scope.call_id}" + (f"-{given + 1}" if given else ""))

    def _sign(self, scope: Scope, jti: str) -> VoiceGrant:
        now, voice = time.time(), scope.voice
        claims = {
            "jti": jti, "sub": voice, "vh": f"hash of {voice}", "pur": scope.purpose,
            "dp": scope.dialplan, "lang": scope.language, "call": scope.call_id, "iat": now, "exp": now + 60,
        }  # fmt: skip
        return GrantVerifier({"k": self._key.public_key()}).verify(sign(claims, self._key, "k"))

    def renew(self, grant: VoiceGrant) -> VoiceGrant:
        if grant.voice in self.refuses:
            raise GrantRefused(self.refuses[grant.voice], "no")
        return self._sign(grant.scope, grant.jti)

    def record_usage(self, **usage: Any) -> None:
        self.used.append(usage)


class HallPeer:
    """A hall as the front's peer."""

    def __init__(self) -> None:
        self.offers: list[CallOffer] = []
        self.told: list[Message] = []
        self.refuses: Exception | None = None
        self.before: Callable[[CallOffer], None] = lambda _: None
        self.waits = False

    async def ask(self, message: Ask[Any], timeout_s: float = 2.0) -> None:
        assert isinstance(message, CallOffer)
        self.before(message)
        if self.waits:
            await asyncio.sleep(3600)
        if self.refuses is not None:
            raise self.refuses
        self.offers.append(message)

    def tell(self, message: Message) -> None:
        self.told.append(message)


class Desk:
    """A routing with everything around it."""

    def __init__(self, folder: Path) -> None:
        (folder / "plans").mkdir()
        (folder / "plans" / "10.toml").write_text(PLAN)
        self.office = Office(folder)
        self.sql_url = f"sqlite:///{folder / 'calls.db'}"
        self.registry = Registry.open(self.sql_url)
        self.plan = Dialplan.load(folder / "plans")
        self.routing = Routing(self.plan, self.office, self.registry, KEY, stock_only=False)  # type: ignore[arg-type]
        self.hall = HallPeer()
        self.routing.halls["hall0"] = self.hall  # type: ignore[assignment]

    async def offer(self, called: str = "demo", **more: Any) -> Any:
        facts = CallFacts("sip:bob@x", f"sip:{called}@y", "Bob", "192.0.2.7", "udp")
        return await self.routing.offer(facts, **({"hall": "hall0"} | more))

    async def refused(self, called: str = "demo", **more: Any) -> CallRefused:
        with pytest.raises(CallRefused) as refusal:
            await self.offer(called, **more)
        assert self.routing.calls == {}
        assert self.hall.offers == []
        return refusal.value

    def rows(self) -> list[CallRow]:
        """All rows of the registry."""
        with create_engine(self.sql_url).connect() as sql:
            ids = [call_id for (call_id,) in sql.execute(select(CALLS.c.call_id))]
        return [row for row in map(self.registry.get, ids) if row is not None]

    def open_rows(self) -> list[CallRow]:
        return [row for row in self.rows() if row.ended_at is None]


def said(call: RoutedCall, seconds: float) -> tuple[SpokenUnder, ...]:
    """What a hall tells of a call's present grant."""
    assert call.grant is not None
    return (SpokenUnder(call.grant.jti, seconds),)


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    opened = Desk(tmp_path)
    yield opened
    opened.registry.close()


async def test_a_call_has_its_row_before_a_hall_hears_of_it(desk: Desk) -> None:
    seen: list[CallRow | None] = []
    desk.hall.before = lambda offer: seen.append(desk.registry.get(offer.call_id))
    call = await desk.offer()
    (row,) = seen
    assert row is not None
    (offer,) = desk.hall.offers
    assert (row.route, row.caller, row.source) == ("demo", "sip:bob@x", "192.0.2.7")
    assert row.grant_jti == call.grant.jti == f"jti-{call.call_id}"
    assert row.payload_whole == offer.payload == call_payload(KEY, call.call_id)
    assert row.payload == offer.payload & (1 << 48) - 1
    assert row.ended_at is None
    assert desk.routing.calls == {call.call_id: call}


async def test_the_hall_is_told_all_that_the_call_needs(desk: Desk) -> None:
    call = await desk.offer()
    (offer,) = desk.hall.offers
    assert [route.name for route in offer.routes] == ["demo", "night"], "and where its gather may lead"
    assert offer.targets == {"desk": "sip:100@192.0.2.1"}
    assert (offer.facts.transport, offer.facts.user, offer.grant_refused) == ("udp", None, None)
    assert offer.grant is not None
    grant = GrantVerifier.load(desk.office.public_keys_path).verify(offer.grant, call_id=call.call_id)
    assert (grant.voice, grant.scope.dialplan, grant.scope.purpose) == ("heart", "demo", "support")
    json.dumps(to_json(CallOffer, offer))


async def test_a_number_that_no_route_takes_is_not_found(desk: Desk) -> None:
    assert (await desk.refused("nobody")).status == 404
    assert desk.registry.count() == 0
    assert desk.office.granted == []


async def test_nobody_is_called_for_help_and_the_caller_hears_so(desk: Desk) -> None:
    refusal = await desk.refused("112")
    assert (refusal.status, refusal.reason) == (380, NO_HELP)
    assert desk.rows() == []


async def test_what_a_trusted_peer_says_stands_in_the_registry_and_goes_to_the_hall(desk: Desk) -> None:
    headers = {"p-asserted-identity": "<tel:+4930>", "x-note": "é" * 128}
    facts = CallFacts("sip:bob@x", "sip:demo@y", "Bob", "192.0.2.7", "udp", headers=headers)
    call = await desk.routing.offer(facts, hall="hall0")
    assert CallHeaders(desk.registry).of(call.call_id) == headers
    assert desk.hall.offers[0].facts.headers == headers


async def test_a_call_does_not_fail_for_what_a_peer_says(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(self: CallHeaders, call_id: str, headers: object) -> None:
        raise RegistryError("the table is gone")

    monkeypatch.setattr(CallHeaders, "note", away)
    facts = CallFacts("sip:bob@x", "sip:demo@y", "", "192.0.2.7", "udp", headers={"x-a": "1"})
    assert (await desk.routing.offer(facts, hall="hall0")).call_id in desk.routing.calls


async def test_without_a_hall_there_is_no_call_and_no_row(desk: Desk) -> None:
    desk.routing.halls.clear()
    refusal = await desk.refused()
    assert (refusal.status, refusal.retry_after_s) == (503, 2)
    assert desk.registry.count() == 0


async def test_the_hall_of_another_line_is_not_taken_instead(desk: Desk) -> None:
    assert (await desk.refused(hall="hall7")).status == 503


async def test_a_front_that_goes_down_takes_no_calls(desk: Desk) -> None:
    desk.routing.draining = True
    assert (await desk.refused()).status == 503
    assert desk.registry.count() == 0


async def test_a_voice_that_is_refused_hangs_up_where_the_plan_says_so(desk: Desk) -> None:
    desk.office.refuses["alice"] = "revoked"
    refusal = await desk.refused("strict")
    assert refusal.status == 480
    assert "revoked" in refusal.reason
    assert desk.registry.count() == 0
    assert desk.routing.refused == {"revoked": 1}


async def test_or_the_stock_voice_speaks_and_the_call_knows_why(desk: Desk) -> None:
    desk.office.refuses["alice"] = "revoked"
    call = await desk.offer("lenient")
    assert call.grant.voice == "heart"
    assert desk.hall.offers[0].grant_refused == "revoked"
    row = desk.registry.get(call.call_id)
    assert row is not None
    assert row.voice == "heart"


@pytest.mark.parametrize("called", ["demo", "lenient"])
async def test_when_not_even_the_stock_voice_may_speak_there_is_no_call(desk: Desk, called: str) -> None:
    desk.office.refuses |= {"alice": "revoked", "heart": "erased"}
    assert (await desk.refused(called)).status == 480
    assert desk.registry.count() == 0


async def test_a_hall_that_refuses_leaves_a_closed_row_and_no_call(desk: Desk) -> None:
    desk.hall.refuses = RpcError("the hall is full")
    refusal = await desk.refused()
    assert (refusal.status, refusal.reason, refusal.retry_after_s) == (503, "the hall is full", 5)
    (row,) = desk.rows()
    assert row.how == "refused: the hall is full"
    assert desk.open_rows() == []


async def test_a_hall_that_answers_too_late_is_told_to_drop_the_call(desk: Desk) -> None:
    desk.hall.refuses = RpcTimeout("call.offered: hall0 did not answer within 2 s")
    assert (await desk.refused()).status == 503
    (row,) = desk.rows()
    (told,) = desk.hall.told
    assert isinstance(told, EndCall)
    assert told.call_id == row.call_id
    assert desk.open_rows() == []


async def test_a_hall_that_answered_too_late_gets_no_calls_until_it_answers(desk: Desk) -> None:
    desk.routing.halls["hall1"] = HallPeer()  # type: ignore[assignment]
    loads = {"hall0": 0, "hall1": 3}
    assert desk.routing.least_loaded(loads) == "hall0"
    desk.hall.refuses = RpcError("the hall is full")
    assert isinstance(await desk.refused(), HallRefused), "another hall may take the call"
    assert desk.routing.least_loaded(loads) == "hall0", "it answers"
    desk.hall.refuses = RpcTimeout("call.offered: hall0 did not answer within 2 s")
    await desk.refused()
    assert desk.routing.least_loaded(loads) == "hall1"
    assert desk.routing.least_loaded({"hall0": 0}) is None


async def test_a_hall_that_is_away_is_not_chosen(desk: Desk) -> None:
    assert desk.routing.least_loaded({"hall1": 0, "hall0": 9}) == "hall0"
    del desk.routing.halls["hall0"]
    assert desk.routing.least_loaded({"hall1": 0, "hall0": 9}) is None
    assert isinstance(await desk.refused(), HallRefused)
    assert desk.rows() == []


async def test_a_hall_that_goes_in_between_is_no_error_of_ours(desk: Desk, monkeypatch: Any) -> None:
    enter = desk.registry.enter

    def gone_meanwhile(row: CallRow) -> CallRow:
        desk.routing.halls.clear()
        desk.hall.refuses = RpcError("the connection to hall0 is closed")
        return enter(row)

    monkeypatch.setattr(desk.registry, "enter", gone_meanwhile)
    assert (await desk.refused()).status == 503
    assert desk.open_rows() == []


async def test_an_offer_that_nobody_waits_for_any_more_leaves_nothing_open(desk: Desk) -> None:
    asked = asyncio.Event()
    desk.hall.before = lambda _: asked.set()
    desk.hall.waits = True
    offering = asyncio.ensure_future(desk.offer())
    await asked.wait()
    offering.cancel()
    with pytest.raises(asyncio.CancelledError):
        await offering
    assert desk.routing.calls == {}
    assert desk.open_rows() == []
    assert isinstance(desk.hall.told[0], EndCall)


async def test_a_registry_that_takes_no_row_takes_no_call(desk: Desk, monkeypatch: Any) -> None:
    def away(row: CallRow) -> CallRow:
        raise RegistryError("the disk is full")

    monkeypatch.setattr(desk.registry, "enter", away)
    refusal = await desk.refused()
    assert refusal.status == 503
    assert "disk" not in refusal.reason, "what is wrong inside is not the caller's business"


async def test_a_registry_that_does_not_answer_refuses_in_time_and_leaves_nothing_open(
    desk: Desk, monkeypatch: Any
) -> None:
    monkeypatch.setattr(module, "ENTERED_WITHIN_S", 0.1)
    enter, close = desk.registry.enter, desk.registry.close_call
    answers, entered, closed = threading.Event(), threading.Event(), threading.Event()

    def frozen(row: CallRow) -> CallRow:
        answers.wait()
        found = enter(row)
        entered.set()
        return found

    def closes(*call: Any) -> str:
        stands = close(*call)
        closed.set()
        return stands

    monkeypatch.setattr(desk.registry, "enter", frozen)
    monkeypatch.setattr(desk.registry, "close_call", closes)
    refusal = await desk.refused()
    assert (refusal.status, refusal.reason) == (503, "the call registry takes no calls")
    assert desk.routing.calls == {}
    answers.set()
    await asyncio.to_thread(entered.wait)
    await asyncio.to_thread(closed.wait)  # by the thread that nobody waits for
    assert desk.open_rows() == []
    (row,) = desk.registry.find(CallSearch())
    assert row.how == "refused: it was entered too late"


async def test_a_payload_that_is_taken_is_made_anew(desk: Desk, monkeypatch: Any) -> None:
    first = await desk.offer()
    row = desk.registry.get(first.call_id)
    assert row is not None
    assert row.payload_whole is not None
    whole = row.payload_whole
    payloads = iter([whole, whole, whole + 1])
    monkeypatch.setattr(module, "call_payload", lambda key, call_id: next(payloads))
    second = await desk.offer()
    again = desk.registry.get(second.call_id)
    assert again is not None
    assert again.payload == (whole + 1) & (1 << 48) - 1
    assert again.grant_jti == f"jti-{second.call_id}", "the grant is for the id that was entered"
    assert desk.registry.count() == 2


async def test_payloads_that_are_all_taken_refuse_the_call(desk: Desk, monkeypatch: Any) -> None:
    def taken(row: CallRow) -> CallRow:
        raise PayloadTaken("taken")

    monkeypatch.setattr(desk.registry, "enter", taken)
    assert (await desk.refused()).status == 500


async def test_the_end_of_a_call_is_noted_once(desk: Desk) -> None:
    call = await desk.offer()
    await desk.routing.ended(call.call_id, "caller hung up", said(call, 3.5))
    await desk.routing.ended(call.call_id, "failed: something else", said(call, 9.9))
    row = desk.registry.get(call.call_id)
    assert row is not None
    assert row.how == "caller hung up"
    assert desk.routing.calls == {}
    assert [usage["seconds"] for usage in desk.office.used] == [3.5]


async def test_a_registry_that_is_away_at_the_end_loses_no_usage(desk: Desk, monkeypatch: Any) -> None:
    call = await desk.offer()

    def away(*_: object) -> None:
        raise RegistryError("away")

    monkeypatch.setattr(desk.registry, "close_call", away)
    await desk.routing.ended(call.call_id, "caller hung up", said(call, 3.5))
    assert desk.routing.calls == {}
    assert [usage["call_id"] for usage in desk.office.used] == [call.call_id]


async def test_a_grant_is_renewed_for_its_own_call_only(desk: Desk) -> None:
    call = await desk.offer()
    before = call.grant.token
    token = await desk.routing.renew(call.call_id, before)
    grant = GrantVerifier.load(desk.office.public_keys_path).verify(token, call_id=call.call_id)
    assert grant.jti == f"jti-{call.call_id}"
    assert call.grant.token == token
    with pytest.raises(RpcError, match="no call"):
        await desk.routing.renew("somebody else", before)
    desk.office.refuses["heart"] = "revoked"
    with pytest.raises(GrantRefused, match="no"):
        await desk.routing.renew(call.call_id, token)


async def test_an_adopted_call_renews_by_its_last_token(desk: Desk) -> None:
    call = await desk.offer()
    token = call.grant.token
    live = LiveCall(call.call_id, call.route, call.started_at, "confirmed")
    desk.routing.calls.clear()
    desk.routing.adopt((live,), "hall0")
    adopted = desk.routing.calls[call.call_id]
    assert (adopted.grant, adopted.hall, adopted.route.name) == (None, "hall0", "demo")
    with pytest.raises(GrantRefused, match="has no grant"):
        await desk.routing.renew(call.call_id, None)
    other = desk.office.grant(Scope("heart", "x", "x", "en", "another"))
    with pytest.raises(GrantRefused, match="another"):
        await desk.routing.renew(call.call_id, other.token)
    with pytest.raises(GrantRefused):
        await desk.routing.renew(call.call_id, token[:-8] + "AAAAAAAA")
    await desk.routing.renew(call.call_id, token)
    assert adopted.grant is not None
    await desk.routing.ended(call.call_id, "hung up", said(adopted, 1.0))
    assert desk.office.used[0]["dialplan"] == "demo"


async def test_a_call_that_the_front_knows_is_not_adopted_over_it(desk: Desk) -> None:
    call = await desk.offer()
    desk.routing.adopt((LiveCall(call.call_id, call.route, 0.0, "confirmed"),), "hall0")
    assert desk.routing.calls[call.call_id] is call


async def test_an_engine_with_one_voice_is_granted_no_other(desk: Desk) -> None:
    desk.routing = Routing(desk.plan, desk.office, desk.registry, KEY, stock_only=True)  # type: ignore[arg-type]
    desk.routing.halls["hall0"] = desk.hall  # type: ignore[assignment]
    assert (await desk.refused("strict")).status == 480
    call = await desk.offer("lenient")
    assert (call.grant.voice, desk.hall.offers[0].grant_refused) == ("heart", "engine")
