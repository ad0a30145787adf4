"""The telephones of a user ring at once (RFC 3261 §16.7): one of them has the call, no other one keeps it."""

from __future__ import annotations

import asyncio
import re
import secrets
from typing import Any, Self

import pytest

from gateway.edge.trunks import out_branch, out_call
from gateway.ipc.line_signature import target_signature
from tests.gateway.edge.conftest import Exchange
from tests.gateway.edge.peers import ANSWER, BOOT, OFFER, Caller, Said, reply
from tests.gateway.edge.registrar.phones import Phones

WITHIN_S = 10.0
HOME = "<sip:home@voicegate.invalid>"
OUTBOUND = ';+sip.instance="<urn:uuid:{}>";reg-id={}'


class Fork:
    """A caller whom the plan hands to alice's telephones, seen from its line, which is a socket."""

    def __init__(self, exchange: Exchange) -> None:
        self.exchange = exchange
        self.phones = Phones(exchange)
        self.tag, self.sip_call_id = secrets.token_hex(4), secrets.token_hex(8)
        self.branch = "z9hG4bK" + secrets.token_hex(6)
        self.answer: Said | None = None

    async def open(self, **rules: Any) -> Self:
        await self.phones.open(**rules)
        self.line = await self.exchange.line()
        self.caller = await self.exchange.caller()
        self.exchange.desk.targets = {"home": "user:alice"}
        await self.exchange.call(self.caller, self.line)
        (dialog,) = self.phones.edge._board.dialogs
        self.call_id = dialog.token.call_id
        return self

    @property
    def left(self) -> int:
        return len(self.phones.edge.trunks.calls.left)

    async def phone(self, rest: str = "", transport: str = "udp") -> Caller:
        """One more telephone of alice's, registered."""
        made = await self.exchange.caller(transport)
        contact = f"<sip:alice@192.0.2.{len(self.exchange.peers)}>{rest}"
        said = await self.phones.ask(made, "Supported: outbound, path", contact=contact)
        assert said.status == 200, said.start
        made.kept.clear()
        return made

    async def passed(self) -> None:
        """The edge has read all that was sent to it before."""
        self.caller.send("OPTIONS", to="<sip:demo@127.0.0.1>", routes=[])
        await self.caller.next(200, "OPTIONS", WITHIN_S)

    def dial(self) -> None:
        self.said("INVITE", OFFER)

    def said(
        self, method: str, body: str = "", cseq: int = 1, to: str = "<sip:home@voicegate.invalid>"
    ) -> None:
        """A request of the line's in its dialog with the target."""
        signed = target_signature(BOOT, self.call_id, "home", self.sip_call_id)
        branch = self.branch if method in ("INVITE", "CANCEL") else "z9hG4bK" + secrets.token_hex(6)
        lines = [
            f"{method} sip:home@voicegate.invalid SIP/2.0",
            f"Via: SIP/2.0/UDP 127.0.0.1:{self.line.port};branch={branch};rport",
            "Max-Forwards: 70", f"From: <sip:voicegate@voicegate.invalid>;tag={self.tag}", f"To: {to}",
            f"Call-ID: {self.sip_call_id}", f"CSeq: {cseq} {method}",
            f"Contact: <sip:127.0.0.1:{self.line.port}>", f"X-VG-Call: {self.call_id}", "X-VG-Target: home",
            f"X-VG-Auth: {signed}", "X-VG-SRTP: off",
            *(["Content-Type: application/sdp"] if body else []), f"Content-Length: {len(body)}", "", body,
        ]  # fmt: skip
        self.line.transport.sendto("\r\n".join(lines).encode(), self.line.edge)

    async def final(self) -> Said:
        """What the line hears at last."""
        async with asyncio.timeout(WITHIN_S):
            while True:
                for said in self.line.kept:
                    if said.status >= 200 and said.method == "INVITE":
                        self.line.kept.remove(said)
                        return said
                self.line._came.clear()
                await self.line._came.wait()

    async def up(self) -> Said:
        """The line hears a 200, and acknowledges it."""
        answer = await self.final()
        assert answer.status == 200, answer.start
        self.said("ACK", to=answer["to"])
        self.answer = answer
        return answer


@pytest.fixture
async def fork(bare: Exchange) -> Fork:
    return await Fork(bare).open()


async def asked(phone: Caller, method: str) -> Said:
    return await phone.next(method=method, within_s=WITHIN_S)


def says(phone: Caller, request: Said, status: int, *, tag: str = "", body: str = "") -> None:
    """A telephone's answer, with a Contact and a tag of its own."""
    contact = f"Contact: <sip:alice@127.0.0.1:{phone.port}>"
    phone.write(reply(request, status, contact, body=body, tag=tag or phone.own_tag))


async def rung(*phones: Caller) -> list[Said]:
    """Each has an INVITE and rings."""
    invites = [await asked(phone, "INVITE") for phone in phones]
    for phone, invite in zip(phones, invites, strict=True):
        says(phone, invite, 180)
    return invites


async def is_cancelled(phone: Caller, invite: Said) -> None:
    cancel = await asked(phone, "CANCEL")
    assert cancel["via"] == invite["via"]
    phone.reply(cancel, 200)
    says(phone, invite, 487)
    await asked(phone, "ACK")


async def test_all_ring_the_first_has_the_call_and_the_others_are_cancelled(fork: Fork) -> None:
    desk, mobile, soft = [await fork.phone() for _ in range(3)]
    fork.dial()
    first, second, third = await rung(desk, mobile, soft)
    assert first["call-id"] == second["call-id"] == third["call-id"]
    assert len({said["via"] for said in (first, second, third)}) == 3
    says(mobile, second, 200, body=ANSWER)
    answer = await fork.up()
    assert answer.tag("to") == mobile.own_tag
    assert "ack" in (await asked(mobile, "ACK")).start.lower()
    await is_cancelled(desk, first)
    await is_cancelled(soft, third)
    fork.said("BYE", cseq=2, to=answer["to"])
    bye = await asked(mobile, "BYE")
    assert bye.uri == f"sip:alice@127.0.0.1:{mobile.port}"
    mobile.reply(bye, 200)
    assert fork.left == 0
    for phone in (desk, soft):
        assert not [said.start for said in phone.kept if said.start.startswith(("BYE", "INVITE"))]


async def test_a_second_answer_that_crosses_is_acknowledged_and_hung_up(fork: Fork) -> None:
    desk, mobile = await fork.phone(), await fork.phone()
    fork.dial()
    first, second = await rung(desk, mobile)
    says(desk, first, 200, body=ANSWER)
    says(mobile, second, 200, body=ANSWER)
    says(mobile, second, 200, body=ANSWER)  # its ACK was lost
    answer = await fork.up()
    winner, loser = (desk, mobile) if answer.tag("to") == desk.own_tag else (mobile, desk)
    await asked(winner, "ACK")
    await asked(loser, "ACK")
    bye = await asked(loser, "BYE")
    assert bye.tag("to") == loser.own_tag
    loser.reply(bye, 200)
    assert not [said for said in loser.kept if said.start.startswith("BYE")], "one goodbye is enough"
    assert fork.left == 1
    fork.said("BYE", cseq=2, to=answer["to"])
    winner.reply(await asked(winner, "BYE"), 200)
    assert fork.left == 0


@pytest.mark.parametrize("ours_first", [True, False])
async def test_a_cancel_of_ours_that_crosses_each_answer_leaves_nobody_in_a_call(
    fork: Fork, ours_first: bool
) -> None:
    """The line gives up as all pick up: one 200 is the line's to end, the others are ours."""
    phones = [await fork.phone() for _ in range(3)]
    fork.dial()
    invites = await rung(*phones)
    if ours_first:
        fork.said("CANCEL")
        for phone in phones:
            phone.reply(await asked(phone, "CANCEL"), 200)
    for phone, invite in zip(phones, invites, strict=True):
        says(phone, invite, 200, body=ANSWER)
    if not ours_first:
        fork.said("CANCEL")
    answer = await fork.up()
    fork.said("BYE", cseq=2, to=answer["to"])
    for phone in phones:
        await asked(phone, "ACK")
        phone.reply(await asked(phone, "BYE"), 200)
    assert fork.left == 0


async def test_who_gives_up_cancels_all(fork: Fork) -> None:
    phones = [await fork.phone() for _ in range(3)]
    fork.dial()
    invites = await rung(*phones)
    fork.said("CANCEL")
    for phone, invite in zip(phones, invites, strict=True):
        await is_cancelled(phone, invite)
    assert (await fork.final()).status == 487
    assert fork.left == 0


async def test_a_6xx_ends_all(fork: Fork) -> None:
    desk, mobile = await fork.phone(), await fork.phone()
    fork.dial()
    first, second = await rung(desk, mobile)
    says(desk, first, 603)
    assert (await fork.final()).status == 603
    await asked(desk, "ACK")
    cancel = await asked(mobile, "CANCEL")
    mobile.reply(cancel, 200)
    says(mobile, second, 200, body=ANSWER)  # too late
    await asked(mobile, "ACK")
    mobile.reply(await asked(mobile, "BYE"), 200)
    assert fork.left == 0


@pytest.mark.parametrize(
    ("statuses", "heard"),
    [((480, 486), 486), ((486, 480), 486), ((500, 404), 404), ((503, 487), 487), ((486, 420), 420)],
)
async def test_when_all_refuse_the_best_answer_is_told(
    fork: Fork, statuses: tuple[int, int], heard: int
) -> None:
    desk, mobile = await fork.phone(), await fork.phone()
    fork.dial()
    for phone, invite, status in zip((desk, mobile), await rung(desk, mobile), statuses, strict=True):
        says(phone, invite, status)
        await asked(phone, "ACK")
    assert (await fork.final()).status == heard
    assert fork.left == 0


async def test_one_that_refuses_leaves_the_others_ringing(fork: Fork) -> None:
    desk, mobile = await fork.phone(), await fork.phone()
    fork.dial()
    first, second = await rung(desk, mobile)
    says(desk, first, 486)
    await asked(desk, "ACK")
    says(mobile, second, 200, body=ANSWER)
    assert (await fork.up()).tag("to") == mobile.own_tag


async def test_nobodys_early_sound_is_heard_while_several_ring(fork: Fork) -> None:
    desk, mobile = await fork.phone(), await fork.phone()
    fork.dial()
    for phone in (desk, mobile):
        says(phone, await asked(phone, "INVITE"), 183, body=ANSWER)
    for _ in range(2):
        assert (await fork.line.next(183)).body == ""


async def test_one_alone_may_be_heard_early(fork: Fork) -> None:
    desk = await fork.phone()
    fork.dial()
    says(desk, await asked(desk, "INVITE"), 183, body=ANSWER)
    assert "m=audio" in (await fork.line.next(183)).body


async def test_who_is_preferred_less_rings_along_later(fork: Fork) -> None:
    less, more = await fork.phone(";q=0.3"), await fork.phone(";q=0.9")
    fork.dial()
    (first,) = await rung(more)
    assert not less.kept
    (call,) = fork.phones.edge.trunks.calls.left
    later = call._next_at._handle
    assert later is not None
    assert 0 < later.when() - asyncio.get_running_loop().time() <= out_call.ALONE_S
    later._run()  # its time has come
    (second,) = await rung(less)
    says(less, second, 200, body=ANSWER)
    await fork.up()
    await is_cancelled(more, first)


async def test_who_is_preferred_less_rings_at_once_when_the_others_refuse(fork: Fork) -> None:
    less, more = await fork.phone(";q=0.3"), await fork.phone(";q=0.9")
    fork.dial()
    (first,) = await rung(more)
    says(more, first, 486)
    await rung(less)


async def test_two_flows_of_a_telephone_are_one_that_rings(fork: Fork) -> None:
    """RFC 5626 §7: never by both at once, and no other flow after an answer that is the telephone's own."""
    old = await fork.phone(OUTBOUND.format("1", 1))
    new = await fork.phone(OUTBOUND.format("1", 2))
    other = await fork.phone(OUTBOUND.format("2", 1))
    fork.dial()
    first, second = await rung(new, other)
    says(new, first, 486)
    await asked(new, "ACK")
    says(other, second, 486)
    assert (await fork.final()).status == 486
    assert not old.kept


@pytest.mark.parametrize("how", ["430", "silent", "closed", "closed while it rings"])
async def test_a_flow_that_fails_is_replaced_by_the_next_one(
    fork: Fork, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(out_branch, "TRY_S", 0.3)
    old = await fork.phone(OUTBOUND.format("1", 1))
    new = await fork.phone(OUTBOUND.format("1", 2), "udp" if how in ("430", "silent") else "tcp")
    fork.dial()
    invite = await asked(new, "INVITE")
    monkeypatch.undo()
    if how == "430":
        says(new, invite, 430)
    elif how == "closed while it rings":
        says(new, invite, 180)
        await fork.line.next(180)
    if how.startswith("closed"):
        new.close()
    (again,) = await rung(old)
    says(old, again, 200, body=ANSWER)
    assert (await fork.up()).tag("to") == old.own_tag
    reached = [one.flow.port for one in fork.phones.registrar.reach("alice")]
    assert reached == [old.port], "a flow that failed is not tried again"


async def test_a_flow_that_failed_is_used_again_once_its_telephone_is_heard(fork: Fork) -> None:
    phone = await fork.phone(OUTBOUND.format("1", 1))
    fork.dial()
    says(phone, await asked(phone, "INVITE"), 430)
    assert (await fork.final()).status == 430
    registrar = fork.phones.registrar
    assert registrar.reach("alice") == []
    await registrar.tidy()
    assert [one.lost_at is None for one in fork.phones.shelf.kept.values()] == [False]
    phone.write(b"\r\n\r\n")
    phone.send("OPTIONS", to="<sip:demo@127.0.0.1>")
    await phone.next(200, "OPTIONS", WITHIN_S)
    assert [one.flow.port for one in registrar.reach("alice")] == [phone.port]
    await registrar.tidy()
    assert [one.lost_at for one in fork.phones.shelf.kept.values()] == [None]


async def test_a_flow_that_a_proxy_has_lost_is_gone(bare: Exchange) -> None:
    fork = Fork(bare)
    await fork.open(trusted_proxies=("127.0.0.1",))
    proxy = await bare.caller()
    contact = f"<sip:alice@192.0.2.1>{OUTBOUND.format('1', 1)}"
    extra = ("Supported: outbound, path", "Path: <sip:192.0.2.8;lr;ob>")
    assert (await fork.phones.ask(proxy, *extra, user="", contact=contact)).status == 200
    proxy.kept.clear()
    fork.dial()
    says(proxy, await asked(proxy, "INVITE"), 430)
    assert (await fork.final()).status == 430
    assert fork.phones.registrar.known() == []
    await fork.phones.registrar.tidy()
    assert fork.phones.shelf.kept == {}


async def test_a_connection_that_closes_leaves_the_others_ringing(fork: Fork) -> None:
    desk, mobile = await fork.phone(), await fork.phone(transport="tcp")
    fork.dial()
    first, _ = await rung(desk, mobile)
    mobile.close()
    says(desk, first, 200, body=ANSWER)
    assert (await fork.up()).tag("to") == desk.own_tag


@pytest.mark.parametrize("after", [486, 401, 603, 302])
async def test_who_has_answered_cannot_refuse_any_more(fork: Fork, after: int) -> None:
    phone = await fork.phone()
    fork.dial()
    (invite,) = await rung(phone)
    says(phone, invite, 200, body=ANSWER)
    says(phone, invite, after, tag="other")
    says(phone, invite, 200, body=ANSWER)
    answer = await fork.up()
    await asked(phone, "ACK")
    await fork.passed()
    assert not [said.start for said in phone.kept if said.start.startswith(("BYE", "INVITE"))]
    fork.said("BYE", cseq=2, to=answer["to"])
    phone.reply(await asked(phone, "BYE"), 200)
    assert fork.left == 0


async def test_who_has_refused_and_answers_is_hung_up(fork: Fork) -> None:
    phone = await fork.phone()
    fork.dial()
    (invite,) = await rung(phone)
    says(phone, invite, 486)
    says(phone, invite, 200, body=ANSWER)
    assert (await fork.final()).status == 486
    phone.reply(await asked(phone, "BYE"), 200)
    assert fork.left == 0


async def test_eight_at_most_ring(fork: Fork) -> None:
    phone = await fork.phone()
    for number in range(12):
        said = await fork.phones.ask(phone, contact=f"<sip:{number}@192.0.2.1>")
        assert said.status == 200
    fork.dial()
    invites = [await asked(phone, "INVITE") for _ in range(8)]
    assert len({said["via"] for said in invites}) == 8
    for invite in invites:
        says(phone, invite, 480, tag=secrets.token_hex(4))
    assert (await fork.final()).status == 480
    assert not [said.start for said in phone.kept if said.start.startswith("INVITE")]


async def test_a_telephone_that_answers_under_many_names_gets_few_goodbyes(fork: Fork) -> None:
    desk = await fork.phone()
    fork.dial()
    (invite,) = await rung(desk)
    says(desk, invite, 200, body=ANSWER)
    await fork.up()
    for number in range(50):
        says(desk, invite, 200, tag=f"other{number}", body=ANSWER)
    await fork.passed()
    byes = {said.tag("to") for said in desk.kept if said.start.startswith("BYE")}
    assert len(byes) == out_branch.MOST_UNWANTED


async def test_a_path_that_names_us_goes_nowhere_but_the_flow(fork: Fork) -> None:
    phone = await fork.exchange.caller()
    own = f"sip:127.0.0.1:{fork.phones.edge.port}"
    said = await fork.phones.ask(phone, f"Path: <{own};lr>, <{own};lr;ob>", contact=f"<{own};transport=tcp>")
    assert said.status == 200
    offered = len(fork.exchange.desk.calls)
    fork.dial()
    invite = await asked(phone, "INVITE")
    assert invite.all("route") == [f"<{own};lr>, <{own};lr;ob>"]
    assert re.search(rf"^INVITE {re.escape(own)};transport=tcp ", invite.start)
    says(phone, invite, 486)
    assert (await fork.final()).status == 486
    assert len(fork.exchange.desk.calls) == offered, "no call of it came to us"


def test_of_no_answer_nobody_is_there() -> None:
    assert out_call._best([])[0] == 480
