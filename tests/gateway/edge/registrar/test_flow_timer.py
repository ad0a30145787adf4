"""Telephones that keep their flows alive by RFC 5626 are told how often, and missed when they do not."""

from __future__ import annotations

import time

import pytest

from gateway.edge.registrar import bindings
from gateway.edge.registrar.bindings import FLOW_TIMER_S, GRACE_S
from tests.gateway.edge.conftest import Exchange
from tests.gateway.edge.peers import Caller
from tests.gateway.edge.registrar.phones import Phones

FLOW = ';+sip.instance="<urn:uuid:1>";reg-id=1'
OUTBOUND = "Supported: outbound, path"


class Clock:
    """The registrar's, as far ahead as a test wants."""

    ahead_s = 0.0

    def monotonic(self) -> float:
        return time.monotonic() + self.ahead_s

    time = staticmethod(time.time)


@pytest.fixture
async def phones(bare: Exchange) -> Phones:
    return await Phones(bare).open()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(bindings, "time", made)
    return made


async def heard(phone: Caller) -> None:
    """The edge has read what the telephone sent last."""
    phone.send("OPTIONS", to="<sip:demo@127.0.0.1>")
    await phone.next(503, "OPTIONS")  # it has no line


@pytest.mark.parametrize("transport", ["udp", "tcp"])
async def test_a_telephone_is_told_how_often_it_shall_be_heard(phones: Phones, transport: str) -> None:
    phone = await phones.phone(transport)
    said = await phones.ask(phone, OUTBOUND, contact=f"<sip:a@192.0.2.1>{FLOW}")
    assert said["flow-timer"] == str(FLOW_TIMER_S[transport])
    assert "flow-timer" not in await phones.ask(phone, OUTBOUND, contact="<sip:b@192.0.2.1>")


async def test_who_is_behind_a_proxy_hears_of_no_timer_of_ours(bare: Exchange) -> None:
    phones = await Phones(bare).open(trusted_proxies=("127.0.0.1",))
    proxy = await phones.phone()
    extra = (OUTBOUND, "Path: <sip:192.0.2.8;lr;ob>", "Via: SIP/2.0/UDP 192.0.2.7;branch=z9hG4bKbehind")
    said = await phones.ask(proxy, *extra, user="", to="alice", contact=f"<sip:a@192.0.2.1>{FLOW}")
    assert (said.status, "flow-timer" in said) == (200, False)


async def test_a_flow_that_is_silent_over_udp_is_dead_until_it_is_heard(phones: Phones, clock: Clock) -> None:
    phone = await phones.phone()
    await phones.ask(phone, OUTBOUND, contact=f"<sip:a@192.0.2.1>{FLOW}")
    clock.ahead_s = FLOW_TIMER_S["udp"] + GRACE_S / 2
    assert phones.reached()
    await heard(phone)  # which keeps it alive
    clock.ahead_s += FLOW_TIMER_S["udp"] + GRACE_S / 2
    assert phones.reached()
    clock.ahead_s += GRACE_S
    assert phones.reached() == []
    await phones.registrar.tidy()
    assert phones.registrar.count() == (1, 1)
    (kept,) = phones.shelf.kept.values()
    assert kept.lost_at is not None
    await heard(phone)
    assert phones.reached()
    await phones.registrar.tidy()
    assert phones.registrar.count() == (1, 0)


async def test_a_connection_that_is_silent_is_closed(phones: Phones, clock: Clock) -> None:
    phone = await phones.phone("tcp")
    await phones.ask(phone, OUTBOUND, contact=f"<sip:a@192.0.2.1>{FLOW}")
    clock.ahead_s = FLOW_TIMER_S["tcp"] + 2 * GRACE_S
    assert phones.reached() == []
    await phones.registrar.tidy()
    await phones.shelf.loses()


async def test_who_did_not_register_a_flow_may_be_silent(phones: Phones, clock: Clock) -> None:
    for transport in ("udp", "tcp"):
        phone = await phones.phone(transport)
        await phones.ask(phone, contact=f"<sip:{transport}@192.0.2.1>")
    clock.ahead_s = 1000.0
    assert len(phones.reached()) == 2


async def test_a_front_that_comes_back_gives_flows_their_time(phones: Phones, clock: Clock) -> None:
    phone = await phones.phone()
    await phones.ask(phone, OUTBOUND, contact=f"<sip:a@192.0.2.1>{FLOW}")
    kept = list(phones.shelf.kept.values())
    await phones.edge.stop()
    later = await Phones(phones.exchange).open()
    later.registrar.load(kept)
    assert later.reached()
    clock.ahead_s = FLOW_TIMER_S["udp"] + 2 * GRACE_S
    assert later.reached() == []
