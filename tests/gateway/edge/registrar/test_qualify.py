"""Registered telephones are asked whether they are there: who, how often, how many at once, what is shown."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from gateway.edge.dialogs.transaction import Transactions
from gateway.edge.registrar import qualify
from gateway.edge.registrar.bindings import MOST_UNANSWERED, Held
from gateway.edge.registrar.qualify import MOST_AT_ONCE, Qualify
from tests.gateway.edge.conftest import Exchange
from tests.gateway.edge.registrar.phones import Phones
from tests.gateway.edge.registrar.test_flow_timer import FLOW, OUTBOUND
from tests.gateway.edge.registrar.test_hostile_registers import flow
from tests.gateway.store.test_sip_bindings import binding

EVERY_S = 1e-9
"""Each turn asks all."""


@pytest.fixture
async def phones(bare: Exchange) -> Phones:
    return await Phones(bare).open(qualify_s=EVERY_S)


def turn(phones: Phones) -> None:
    """Twice: at first sight a telephone is only given its time."""
    assert phones.edge.qualify is not None
    for _ in range(2):
        phones.edge.qualify.turn()


def only(phones: Phones) -> Held:
    (held,) = phones.registrar._bindings
    return held


async def settled(held: Held) -> None:
    """The question that is under way is over."""
    async with asyncio.timeout(10):
        while held.asked_at:  # noqa: ASYNC110  # nothing tells of it
            await asyncio.sleep(0.01)


@pytest.mark.parametrize(("transport", "status"), [("udp", 200), ("udp", 404), ("tcp", 200)])
async def test_any_answer_says_that_it_is_there_and_how_far(
    phones: Phones, transport: str, status: int
) -> None:
    phone = await phones.phone(transport)
    await phones.ask(phone, contact="<sip:alice@192.0.2.99:5060;x=1>")
    assert only(phones).there is None
    turn(phones)
    asked = await phone.next(method="OPTIONS")
    assert asked.uri == "sip:alice@192.0.2.99:5060;x=1"
    phone.reply(asked, status)
    await settled(only(phones))
    (state,) = phones.registrar.telephones()
    assert state.there
    assert state.round_trip_ms is not None
    assert 0 <= state.round_trip_ms < 10_000
    assert phones.registrar.count() == (1, 0)


async def test_who_does_not_answer_is_shown_and_still_rung(
    phones: Phones, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(qualify, "ANSWERS_WITHIN_S", 0.05)
    phone = await phones.phone()
    await phones.ask(phone)
    for number in range(MOST_UNANSWERED):
        assert only(phones).there is None, number
        turn(phones)
        await settled(only(phones))
    assert only(phones).there is False
    assert phones.registrar.count() == (1, 1)
    assert phones.edge.stats()["bindings_silent"] == 1
    assert len(phones.registrar.reach("alice")) == 1
    await phones.ask(phone)
    assert only(phones).there is False, "that it registered again does not say that it hears us"
    monkeypatch.setattr(qualify, "ANSWERS_WITHIN_S", 10.0)
    phone.kept.clear()
    turn(phones)
    asked = await phone.next(method="OPTIONS")
    for _ in range(3):
        phone.reply(asked, 200)  # said again, which is nothing new
    await settled(only(phones))
    assert only(phones).there is True


async def test_a_proxys_word_that_it_reaches_nobody_is_no_answer(bare: Exchange) -> None:
    phones = await Phones(bare).open(qualify_s=EVERY_S, trusted_proxies=("127.0.0.1",))
    proxy = await phones.phone()
    await phones.ask(proxy, "Path: <sip:192.0.2.8;lr>", user="", to="alice")
    turn(phones)
    asked = await proxy.next(method="OPTIONS")
    assert asked["route"] == "<sip:192.0.2.8;lr>"
    proxy.reply(asked, 408)
    await settled(only(phones))
    assert only(phones).unanswered == 1


async def test_who_keeps_a_flow_alive_is_not_asked(phones: Phones) -> None:
    phone, other = await phones.phone(), await phones.phone()
    await phones.ask(phone, OUTBOUND, contact=f"<sip:a@192.0.2.1>{FLOW}")
    await phones.ask(other, contact="<sip:b@192.0.2.1>")
    turn(phones)
    await other.next(method="OPTIONS")
    assert not phone.kept


async def test_questions_are_spread_and_so_many_at_once() -> None:
    """A thousand telephones that are known all at once, as after a restart of the front."""
    registered = Many(1000)
    asking = Asking(registered, every_s=60.0)
    asking.turn()
    first = [held.ask_at for held, _ in registered.reached()]
    assert max(first) - min(first) > 4.0
    for held, _ in registered.reached():
        held.ask_at = 1e-9
    for turns in range(1, 4):
        asking.turn()
        assert len(asking.asked) == turns * MOST_AT_ONCE
        asking.settle()
    again = [held.ask_at for held in asking.asked]
    assert max(again) - min(again) > 10.0


class Many:
    """Telephones that nobody reaches."""

    def __init__(self, count: int) -> None:
        one = binding(user="al", transport="udp", reg_id=0, instance="")
        self.all = [(Held(replace(one, key=str(n)), 1e12, None, n), flow()) for n in range(count)]

    def reached(self) -> list[tuple[Held, object]]:
        return self.all


class Asking(Qualify):
    """Notes who is asked."""

    def __init__(self, registered: Many, every_s: float) -> None:
        super().__init__(registered, Transactions(lambda *_: None), None, every_s)  # type: ignore[arg-type]
        self.asked: list[Held] = []
        self._open: list[Held] = []

    def _ask(self, held: Held, flow: object) -> None:
        self._under_way += 1
        held.asked_at = 1.0
        self.asked.append(held)
        self._open.append(held)

    def settle(self) -> None:
        for held in self._open:
            self._answered(held, held.asked_at, None)
        self._open.clear()


async def test_nobody_is_asked_where_the_operator_does_not_want_it(bare: Exchange) -> None:
    phones = await Phones(bare).open()
    assert phones.edge.qualify is not None
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(phones.edge.qualify.look_after(), 0.05)


async def test_one_question_of_a_telephone_is_under_way(phones: Phones) -> None:
    phone = await phones.phone()
    await phones.ask(phone)
    for _ in range(5):
        turn(phones)
    assert phones.edge.qualify is not None
    assert phones.edge.qualify._under_way == 1
    phone.reply(await phone.next(method="OPTIONS"), 200)
    await settled(only(phones))
    assert phones.edge.qualify._under_way == 0
    assert not [said for said in phone.kept if said.start.startswith("OPTIONS")]


async def test_it_goes_on_by_itself(phones: Phones, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qualify, "TURN_S", 0.01)
    phone = await phones.phone()
    await phones.ask(phone)
    assert phones.edge.qualify is not None
    going = asyncio.ensure_future(phones.edge.qualify.look_after())
    try:
        for _ in range(3):
            phone.reply(await phone.next(method="OPTIONS"), 200)
    finally:
        going.cancel()
