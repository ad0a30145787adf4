"""REGISTERs as an enemy writes them, also one who has a password: nothing fails, and all of it is bounded."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.edge.flows.transport import Flow
from gateway.edge.grammar.message import Unreadable, read
from gateway.edge.grammar.responses import Turned, response
from gateway.edge.grammar.sip_message import Request
from gateway.edge.registrar.contacts import MAX_CONTACT, MOST_CONTACTS, Expiry, Wishes, wishes_of
from gateway.edge.registrar.registrar import MOST_WAITING, SipRegistrar
from gateway.ipc.binding import Binding
from tests.gateway.edge.conftest import Exchange
from tests.gateway.edge.registrar.phones import USERS, Nowhere, Phones, Shelf

ANYTHING = st.text(st.characters(codec="utf-8", exclude_characters="\r\n\0"), max_size=80)
PIECES = st.sampled_from(
    ["*", "<sip:a@b>", "sip:a@b", ";expires=", "0", "-1", "99999999999", ",", ";", '"', "<", ">", "\\", "q=1",
     ';+sip.instance="<urn:uuid:1>"', ";reg-id=1", ";reg-id=0", ";reg-id=x", "tel:112",
     "<sips:[::1]:5061;ob>", "<sip:%00@x>", " ", "\t", "<sip:a@b?Route=x>", "mailto:a@b"]
)  # fmt: skip
CONTACTS = st.lists(st.lists(PIECES | ANYTHING, max_size=8).map("".join), max_size=6)


def flow(host: str = "192.0.2.7", port: int = 5060) -> Flow:
    return Flow("udp", host, port, Nowhere(), (host, port))


def register(contacts: list[str], *extra: str, user: str = "alice", cseq: int = 1, call_id: str = "c") -> Any:
    lines = [
        "REGISTER sip:x SIP/2.0", "Via: SIP/2.0/UDP x;branch=z9hG4bKa", f"From: <sip:{user}@x>;tag=1",
        f"To: <sip:{user}@x>", f"Call-ID: {call_id}", f"CSeq: {cseq} REGISTER",
        *(f"Contact: {one}" for one in contacts), *extra, "", "",
    ]  # fmt: skip
    return read("\r\n".join(lines).encode())


def registrar() -> SipRegistrar:
    return SipRegistrar(Shelf(), USERS.__contains__, lambda host, port: flow(host, port))


@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(CONTACTS, st.lists(st.tuples(st.sampled_from(["Expires", "Path", "Supported"]), ANYTHING), max_size=3))
def test_whatever_the_contacts_are_it_is_answered_and_bounded(
    contacts: list[str], headers: list[tuple[str, str]]
) -> None:
    house = registrar()
    try:
        request = register(contacts, "Supported: outbound", *(f"{name}: {value}" for name, value in headers))
    except Unreadable:
        return
    assert isinstance(request, Request)
    wishes = wishes_of(request, Expiry())
    assert isinstance(wishes, Wishes | Turned)
    if isinstance(wishes, Wishes):
        assert len(wishes.contacts) <= MOST_CONTACTS
        assert all(one.expires_s == 0 or 60 <= one.expires_s <= 3600 for one in wishes.contacts)
        assert all(len(one.uri.text) <= MAX_CONTACT for one in wishes.contacts)
    done = asyncio.run(house.register(request, flow(), "192.0.2.7", "alice"))
    assert len(house.known()) <= MOST_CONTACTS
    if not isinstance(done, Turned):
        read(bytes(response(request, flow(), 200, done)))  # what it says can be read again
    for one in house.reach("alice"):
        assert (one.flow.host, one.flow.port) == ("192.0.2.7", 5060)


@settings(max_examples=100, deadline=None)
@given(ANYTHING)
def test_whoever_to_names_only_a_user_is_registered(name: str) -> None:
    house = registrar()
    try:
        request = register(["<sip:a@b>"], user=name)
    except Unreadable:
        return
    asyncio.run(house.register(request, flow(), "192.0.2.7", ""))
    assert {one.user for one in house.known()} <= set(USERS)


async def test_two_thousand_bindings_that_are_asked_for_are_eight() -> None:
    house = registrar()
    for number in range(2_000):
        request = register([f"<sip:{number}@192.0.2.1>"], call_id=str(number))
        assert not isinstance(await house.register(request, flow(), "192.0.2.7", "alice"), Turned)
    assert len(house.known()) == MOST_CONTACTS
    assert len(house.reach("alice")) == MOST_CONTACTS
    shelf: Any = house._shelf
    assert len(shelf.kept) == MOST_CONTACTS
    assert len(house._turns) == 0


async def test_ten_thousand_in_one_message_are_refused(bare: Exchange) -> None:
    phones = await Phones(bare).open()
    phone = await phones.phone("tcp")
    many = ", ".join(f"<sip:{number}@192.0.2.1>" for number in range(10_000))
    phone.write(phone.text("REGISTER", contact=many)[:200_000])
    await phone.gone()
    phone = await phones.phone()
    some = ", ".join(f"<sip:{number}@b>" for number in range(MOST_CONTACTS + 1))
    assert (await phones.ask(phone, contact=some)).status == 403
    assert phones.registrar.known() == []


async def test_a_users_registers_fill_nothing_that_others_need() -> None:
    """All wait while the database hangs: eight of a user's do, and the others hear so at once."""
    house, shelf = registrar(), Hanging()
    house._shelf = shelf
    asked = [register([f"<sip:{number}@b>"], call_id=str(number)) for number in range(500)]
    tasks = [asyncio.ensure_future(house.register(one, flow(), "192.0.2.7", "alice")) for one in asked]
    done, waiting = await asyncio.wait(tasks, timeout=10, return_when=asyncio.FIRST_COMPLETED)
    while len(waiting) > MOST_WAITING:
        more, waiting = await asyncio.wait(waiting, timeout=10, return_when=asyncio.FIRST_COMPLETED)
        done |= more
    assert {one.result().status for one in done if isinstance(one.result(), Turned)} == {503}
    assert not isinstance(await _other(house), Turned), "bob is not alice"
    shelf.back.set()
    await asyncio.wait(waiting, timeout=10)
    assert len(house.known()) == MOST_CONTACTS + 1
    assert not house._waiting


class Hanging(Shelf):
    """Keeps bob's at once, and nobody else's before it is back."""

    def __init__(self) -> None:
        super().__init__()
        self.back = asyncio.Event()

    async def keep(self, put: Sequence[Binding], gone: Sequence[Binding]) -> None:
        if any(one.user != "bob" for one in (*put, *gone)):
            await self.back.wait()
        await super().keep(put, gone)


async def _other(house: SipRegistrar) -> object:
    return await house.register(register(["<sip:bob@b>"], user="bob"), flow(), "192.0.2.8", "bob")


async def test_a_contact_of_ten_kilobytes_is_refused(bare: Exchange) -> None:
    phones = await Phones(bare).open()
    for transport in ("udp", "tcp"):
        phone = await phones.phone(transport)
        for contact in (f"<sip:{'a' * 10_000}@b>", f"<sip:a@b;{'x' * 10_000}=1>", f"<sip:{'[' * 10_000}>"):
            assert (await phones.ask(phone, contact=contact)).status in (400, 513)
    assert phones.registrar.known() == []


async def test_two_registers_at_once_follow_one_another() -> None:
    house = registrar()
    both = [register(["<sip:a@b>"], cseq=number) for number in (2, 1)]
    first, second = await asyncio.gather(
        *(house.register(request, flow(), "192.0.2.7", "alice") for request in both)
    )
    assert not isinstance(first, Turned)
    assert isinstance(second, Turned)
    assert second.status == 500


@pytest.mark.parametrize("host", ["169.254.169.254", "127.0.0.1", "10.0.0.1", "[::1]", "metadata.internal"])
async def test_no_contact_and_no_path_has_anything_sent_to_its_host(host: str) -> None:
    house = registrar()
    request = register([f"<sip:a@{host}:22;maddr={host}>"], f"Path: <sip:{host}:22;lr>")
    await house.register(request, flow(), "192.0.2.7", "alice")
    (one,) = house.reach("alice")
    assert (one.flow.host, one.flow.port) == ("192.0.2.7", 5060)
