"""Telephones register: who may, for how long, in what order, and how each is reached."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

import pytest

from gateway.edge.flows.transport import Flow
from gateway.edge.registrar.contacts import MOST_CONTACTS
from tests.gateway.edge.conftest import Exchange
from tests.gateway.edge.peers import Caller
from tests.gateway.edge.registrar.phones import Nowhere, Phones, answer, credentials

OUTBOUND = '+sip.instance="<urn:uuid:0001>";reg-id=1'


@pytest.fixture
async def phones(bare: Exchange) -> Phones:
    return await Phones(bare).open()


def contact(phone: Caller, user: str = "alice", rest: str = "") -> str:
    return f"<sip:{user}@{phone.host}:{phone.port}>{rest}"


async def test_a_user_registers_and_is_reached_over_the_flow_and_not_at_its_contact(phones: Phones) -> None:
    phone = await phones.phone()
    done = await phones.ask(phone, "Expires: 600", contact="<sip:alice@192.0.2.99:5060>")
    assert done.status == 200
    assert done.all("contact") == ["<sip:alice@192.0.2.99:5060>;expires=600"]
    assert "date" in done
    assert done["supported"] == "path, outbound"
    (one,) = phones.registrar.reach("alice")
    assert (one.flow.host, one.flow.port) == ("127.0.0.1", phone.port)
    assert one.contact.text == "sip:alice@192.0.2.99:5060"
    assert phones.registrar.reach("bob") == []
    (kept,) = phones.shelf.kept.values()
    assert kept == one.binding


async def test_the_flow_reaches_the_telephone(phones: Phones) -> None:
    for transport in ("udp", "tcp"):
        phone = await phones.phone(transport)
        assert (await phones.ask(phone, contact="<sip:alice@192.0.2.99:5060>")).status == 200
        (one,) = phones.registrar.reach("alice")
        one.flow.send(phone.text("OPTIONS").encode())
        assert (await phone.next(method="OPTIONS")).method == "OPTIONS"
        assert (await phones.ask(phone, "Expires: 0", contact="*")).status == 200


async def test_without_its_password_nobody_registers_also_where_calls_need_none(phones: Phones) -> None:
    phone = await phones.phone()
    assert (await phones.ask(phone, user="")).status == 401
    assert (await phones.ask(phone, password="guessed")).status == 401
    assert (await phones.ask(phone, user="mallory")).status == 401
    assert phones.edge.stats()["digest_wrong"] == 2
    assert phones.registrar.known() == []


async def test_nobody_registers_for_somebody_else(phones: Phones) -> None:
    phone = await phones.phone()
    for other in ("bob", "nobody", "%61lice2"):
        assert (await phones.ask(phone, to=other)).status == 403
    assert (await phones.ask(phone, to="%61lice")).status == 200, "that is alice, written otherwise"
    assert phones.registrar.reach("bob") == []


async def test_a_trusted_proxy_registers_the_houses_users_and_no_others(bare: Exchange) -> None:
    phones = await Phones(bare).open(trusted_proxies=("127.0.0.1",))
    phone = await phones.phone()
    assert (await phones.ask(phone, user="", to="mallory")).status == 404
    path = "Path: <sip:edge.example;lr;ob>, <sip:10.9.9.9;lr>"
    done = await phones.ask(phone, path, "Supported: path", user="", to="alice")
    assert (done.status, done["path"]) == (200, path[6:])
    (one,) = phones.registrar.reach("alice")
    assert one.path == (path[6:],)
    assert one.flow.port == phone.port, "the proxy's, whatever its Path says"


async def test_several_contacts_the_preferred_first_then_the_newest(phones: Phones) -> None:
    desk, mobile, soft = [await phones.phone() for _ in range(3)]
    for phone, rest in ((desk, ";q=0.5"), (mobile, ""), (soft, "")):
        assert (await phones.ask(phone, contact=contact(phone, rest=rest))).status == 200
    ports = [one.flow.port for one in phones.registrar.reach("alice")]
    assert ports == [soft.port, mobile.port, desk.port]
    asked = await phones.ask(desk, contact=contact(desk, rest=";q=0.5"))
    assert len(asked.all("contact")) == 3


async def test_one_register_may_bring_many_contacts_and_is_all_or_nothing(phones: Phones) -> None:
    phone = await phones.phone()
    two = "<sip:a@192.0.2.1>;expires=60, <sip:b@192.0.2.1>;expires=7"
    refused = await phones.ask(phone, contact=two)
    assert (refused.status, refused["min-expires"]) == (423, "60")
    assert phones.registrar.known() == []
    assert (await phones.ask(phone, contact=two.replace("=7", "=70"))).status == 200
    assert sorted(phones.reached()) == ["sip:a@192.0.2.1", "sip:b@192.0.2.1"]


async def test_bindings_are_fetched_and_nothing_changes(phones: Phones) -> None:
    phone = await phones.phone()
    await phones.ask(phone, contact="<sip:a@192.0.2.1>")
    before = phones.registrar.known()
    text = phone.text("REGISTER", to="<sip:alice@127.0.0.1>", uri="sip:127.0.0.1")
    bare = "\r\n".join(line for line in text.split("\r\n") if not line.startswith("Contact:"))
    phone.write(bare)
    login = credentials(await answer(phone), "alice", "correct-horse", "REGISTER", "sip:127.0.0.1")
    phone.write(
        bare.replace("CSeq: 3", "CSeq: 4").replace(";rport", "x;rport").replace("Max-", f"{login}\r\nMax-")
    )
    fetched = await answer(phone)
    assert fetched.status == 200
    assert fetched["contact"].startswith("<sip:a@192.0.2.1>;expires=")
    assert phones.registrar.known() == before


@pytest.mark.parametrize(("asked", "granted"), [("", 3600), ("99999", 3600), ("90", 90), ("soon", 3600)])
async def test_how_long_it_holds(phones: Phones, asked: str, granted: int) -> None:
    phone = await phones.phone()
    done = await phones.ask(phone, *([f"Expires: {asked}"] if asked else []))
    assert done["contact"].endswith(f";expires={granted}")


async def test_a_contact_leaves_by_itself_or_all_do(phones: Phones) -> None:
    phone = await phones.phone()
    for name in "abc":
        await phones.ask(phone, contact=f"<sip:{name}@192.0.2.1>")
    assert (await phones.ask(phone, contact="<sip:b@192.0.2.1>;expires=0")).status == 200
    assert phones.reached() == ["sip:c@192.0.2.1", "sip:a@192.0.2.1"]
    for extra, wanted in (((), "*"), (("Expires: 60",), "*"), (("Expires: 0",), "*, <sip:c@192.0.2.1>")):
        assert (await phones.ask(phone, *extra, contact=wanted)).status == 400
    gone = await phones.ask(phone, "Expires: 0", contact="*")
    assert (gone.status, gone.all("contact")) == (200, [])
    assert phones.shelf.kept == {}


async def test_what_comes_out_of_order_changes_nothing(phones: Phones) -> None:
    phone = await phones.phone()
    await phones.ask(phone, contact="<sip:a@192.0.2.1>")
    last = phone.cseq
    text = phone.text("REGISTER", to="<sip:alice@127.0.0.1>", uri="sip:127.0.0.1", cseq=last, contact="*")
    phone.write(text)
    login = credentials(await answer(phone), "alice", "correct-horse", "REGISTER", "sip:127.0.0.1")
    phone.send(
        "REGISTER", "", login, "Expires: 0",
        to="<sip:alice@127.0.0.1>", uri="sip:127.0.0.1", cseq=last, contact="*",
    )  # fmt: skip
    assert (await answer(phone)).status == 500
    assert phones.reached() == ["sip:a@192.0.2.1"]


async def test_a_flow_takes_the_place_of_its_telephones_last_one(phones: Phones) -> None:
    """RFC 5626: the telephone is known by its instance, and its Contact may be another one each time."""
    for transport in ("udp", "tcp"):
        phone = await phones.phone(transport)
        whole = f"{contact(phone, rest=';' + OUTBOUND)}"
        done = await phones.ask(phone, "Supported: outbound, path", contact=whole)
        assert (done.status, done["require"]) == (200, "outbound")
        assert '+sip.instance="<urn:uuid:0001>";reg-id=1' in done["contact"]
        (one,) = phones.registrar.reach("alice")
        assert one.flow.port == phone.port
    second = await phones.phone()
    other = contact(second, rest=";" + OUTBOUND.replace("reg-id=1", "reg-id=2"))
    assert len((await phones.ask(second, "Supported: outbound", contact=other)).all("contact")) == 2


async def test_a_flow_is_registered_by_itself_and_through_proxies_that_keep_it(phones: Phones) -> None:
    phone = await phones.phone()
    two = f"<sip:a@192.0.2.1>;{OUTBOUND}, <sip:b@192.0.2.1>;{OUTBOUND.replace('id=1', 'id=2')}"
    assert (await phones.ask(phone, "Supported: outbound", contact=two)).status == 400
    behind = ("Supported: outbound", "Via: SIP/2.0/UDP 192.0.2.7;branch=z9hG4bKbehind")
    one = f"<sip:a@192.0.2.1>;{OUTBOUND}"
    assert (await phones.ask(phone, *behind, contact=one)).status == 439
    assert (await phones.ask(phone, *behind, "Path: <sip:192.0.2.8;lr;ob>", contact=one)).status == 200


async def test_a_connection_that_ended_reaches_nobody_and_says_so(phones: Phones) -> None:
    phone = await phones.phone("tcp")
    await phones.ask(phone)
    assert len(phones.registrar.reach("alice")) == 1
    phone.close()
    await phones.shelf.loses()
    assert phones.registrar.reach("alice") == []
    assert phones.edge.stats()["bindings_lost"] == 1
    (kept,) = phones.shelf.kept.values()
    assert kept.lost_at is not None
    again = await phones.phone("tcp")
    await phones.ask(again, contact=contact(phone))
    (one,) = phones.registrar.reach("alice")
    assert one.flow.port == again.port
    assert phones.registrar.known()[0].lost_at is None


async def test_a_connection_that_ends_while_its_telephone_registers_anew_takes_nothing_back(
    phones: Phones,
) -> None:
    phone = await phones.phone("tcp")
    await phones.ask(phone)
    (before,) = phones.registrar.reach("alice")
    async with phones.registrar._turn("alice"):  # a REGISTER of the same telephone is under way …
        losing = asyncio.ensure_future(phones.registrar.lost(before.flow))
        await asyncio.sleep(0)
        anew = replace(before.binding, transport="udp", cseq=99)
        await phones.shelf.keep([anew], [])  # … and is kept
        phones.registrar.load([anew])
    await losing
    assert list(phones.shelf.kept.values()) == [anew]


async def test_the_next_edge_knows_them_and_no_connection_of_before(phones: Phones) -> None:
    udp, tcp = await phones.phone(), await phones.phone("tcp")
    await phones.ask(udp, contact=contact(udp))
    await phones.ask(tcp, contact=contact(tcp))
    kept = list(phones.shelf.kept.values())
    await phones.edge.stop()
    later = await Phones(phones.exchange).open()
    later.registrar.load(kept)
    assert [one.flow.port for one in later.registrar.reach("alice")] == [udp.port]
    assert len(later.registrar.known()) == 2


async def test_what_has_expired_is_gone(phones: Phones) -> None:
    phone = await phones.phone()
    await phones.ask(phone, contact="<sip:a@192.0.2.1>")
    (kept,) = phones.shelf.kept.values()
    over = replace(kept, expires_at=time.time() - 1)
    phones.shelf.kept = {(over.user, over.key): over}
    phones.registrar.load([over])
    assert phones.reached() == []
    phones.shelf.away = True
    await phones.registrar.tidy()  # it is over whether the database hears of it or not
    assert phones.registrar.known() == []
    phones.registrar.load([over])
    phones.shelf.away = False
    await phones.registrar.tidy()
    assert phones.shelf.kept == {}
    assert phones.edge.stats()["registrations"]["expired"] == 2


async def test_a_user_who_is_removed_is_not_reached(phones: Phones, monkeypatch: pytest.MonkeyPatch) -> None:
    phone = await phones.phone()
    await phones.ask(phone)
    monkeypatch.delitem(__import__("tests.gateway.edge.registrar.phones", fromlist=["USERS"]).USERS, "alice")
    assert phones.registrar.reach("alice") == []
    assert phones.registrar.known() == []


async def test_what_is_not_kept_did_not_happen(phones: Phones) -> None:
    phone = await phones.phone()
    await phones.ask(phone, contact="<sip:a@192.0.2.1>")
    phones.shelf.away = True
    refused = await phones.ask(phone, contact="<sip:b@192.0.2.1>")
    assert (refused.status, refused["retry-after"]) == (503, "10")
    refused = await phones.ask(phone, "Expires: 0", contact="*")
    assert refused.status == 503
    assert phones.reached() == ["sip:a@192.0.2.1"]


async def test_a_user_has_so_many_contacts_and_the_oldest_goes(phones: Phones) -> None:
    lost = await phones.phone("tcp")
    first = await phones.phone()
    await phones.ask(first, contact="<sip:first@192.0.2.1>")
    await phones.ask(lost, contact="<sip:lost@192.0.2.1>")
    lost.close()
    await phones.shelf.loses()
    for number in range(MOST_CONTACTS - 1):
        await phones.ask(first, contact=f"<sip:{number}@192.0.2.1>")
    known = [one.contact for one in phones.registrar.known()]
    assert len(known) == MOST_CONTACTS
    assert "sip:lost@192.0.2.1" not in known, "who cannot be reached goes before the oldest"
    await phones.ask(first, contact="<sip:one-more@192.0.2.1>")
    known = [one.contact for one in phones.registrar.known()]
    assert len(known) == MOST_CONTACTS
    assert "sip:first@192.0.2.1" not in known
    assert len(phones.shelf.kept) == MOST_CONTACTS


async def test_a_flood_of_registers_is_dropped_like_one_of_calls(bare: Exchange) -> None:
    phones = await Phones(bare).open(invites_per_s=1)
    phone = await phones.phone()
    flow = Flow("udp", "127.0.0.1", phone.port, Nowhere(), ("127.0.0.1", phone.port))
    for _ in range(12):
        text = phone.text("REGISTER", to="<sip:alice@127.0.0.1>", uri="sip:127.0.0.1")
        phones.edge._from_caller(text.encode(), flow)
    assert phones.edge.stats()["dropped"]["rate"] >= 8


async def test_while_it_drains_nobody_registers(phones: Phones) -> None:
    phone = await phones.phone()
    phones.edge.drain()
    assert (await phones.ask(phone)).status == 503


async def test_what_a_registrar_does_not_know_it_says(phones: Phones) -> None:
    phone = await phones.phone()
    refused = await phones.ask(phone, "Require: gruu, path")
    assert (refused.status, refused["unsupported"]) == (420, "gruu")
    assert (await phones.ask(phone, "Require: path, outbound")).status == 200
