"""What either side of a dialog gets for what it asks."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.edge.dialogs.transaction import Served
from gateway.edge.flows.transport import Flow
from gateway.edge.grammar.message import read
from gateway.edge.grammar.responses import ALLOW_OUT, response
from gateway.edge.grammar.sip_message import Request, Response
from gateway.edge.grammar.uri import URI
from gateway.rtp.agreement import Agreement, Describer
from gateway.rtp.dialogs.dialog_server import DialogServer
from gateway.rtp.dialogs.dialog_state import DialogState, describe
from gateway.rtp.dialogs.referral import Referral

OFFER = "v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\nm=audio 4000 RTP/AVP {}\r\n"


class Wire(Flow):
    """A flow to nowhere that keeps what went out."""

    def __init__(self) -> None:
        super().__init__("udp", "127.0.0.1", 5060, None)
        self.sent: list[Response] = []

    def send(self, message: bytes) -> None:
        answer = read(message, from_edge=True)
        assert isinstance(answer, Response)
        self.sent.append(answer)


class Side:
    """A call that says what was done to it, in order; `busy` turns offers away."""

    def __init__(self) -> None:
        self.wire = Wire()
        self.state = DialogState("id", "<sip:us@x>;tag=u", "<sip:them@x>;tag=t", URI.read("sip:first@x"))
        self.done: list[str] = []
        self.busy = False
        describer = Describer("127.0.0.1", 30_000, ("PCMU",), 42)
        self.server = DialogServer(self, self.state, describer, ALLOW_OUT, last=1)

    def hung_up(self) -> None:
        self.done.append("hung up")

    def pressed(self, digit: str) -> None:
        self.done.append(f"pressed {digit}")

    def refused_offer(self, served: Served) -> Response | None:
        return response(served.request, served.flow, 491) if self.busy else None

    def own_offer(self) -> str:
        return "ours"

    def take_offer(self, served: Served, body: str) -> None:
        ok = response(served.request, served.flow, 200)
        describe(ok, body)
        served.answer(ok)

    def agree(self, agreed: Agreement) -> None:
        self.done.append(f"agreed on {agreed.codec} after {self.wire.sent[-1].code}")

    def take_own(self, served: Served) -> bool:
        if served.request.method != "NOTIFY":
            return False
        served.answer(response(served.request, served.flow, 200))
        return True

    def asked(self, method: str, sequence: int = 2, body: str = "", **headers: str) -> Response:
        """The one answer to a request of the other side's."""
        before = len(self.wire.sent)
        self.server.take(served(self.wire, method, sequence, body, **headers))
        (answer,) = self.wire.sent[before:]
        return answer


def served(wire: Wire, method: str, sequence: int, body: str, **headers: str) -> Served:
    more = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    text = (
        f"{method} sip:us@127.0.0.1 SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1;branch=z9hG4bK{sequence}\r\n"
        f"From: <sip:them@x>;tag=t\r\nTo: <sip:us@x>;tag=u\r\nCall-ID: id\r\nCSeq: {sequence} {method}\r\n"
        f"Max-Forwards: 70\r\n{more}Content-Length: {len(body)}\r\n\r\n{body}"
    )
    request = read(text.encode(), from_edge=True)
    assert isinstance(request, Request)
    return Served(request, wire, lambda: None, lambda _, __: None)


@pytest.fixture
async def side() -> Side:
    return Side()  # inside a loop: an answer starts its transaction's timers


async def test_a_bye_has_its_200_before_the_call_is_over(side: Side) -> None:
    assert side.asked("BYE").code == 200
    assert side.done == ["hung up"]


@pytest.mark.parametrize("sequence", [0, 1])
async def test_what_comes_out_of_order_does_nothing(side: Side, sequence: int) -> None:
    assert side.asked("BYE", sequence).code == 500
    assert side.asked("OPTIONS", 5).code == 200
    assert side.asked("BYE", 5).code == 500
    assert side.done == []


@pytest.mark.parametrize("method", ["INVITE", "UPDATE"])
async def test_an_offer_holds_once_its_200_is_sent(side: Side, method: str) -> None:
    taken = side.asked(method, body=OFFER.format(0), Contact="<sip:second@x>")
    assert (taken.code, taken.headers["Content-Type"]) == (200, "application/sdp")
    assert b"m=audio 30000 RTP/AVP 0" in taken.body
    assert side.done == ["agreed on PCMU after 200"]
    assert str(side.state.request("BYE").uri) == "sip:second@x"


async def test_an_offer_that_does_not_fit_changes_nothing(side: Side) -> None:
    refused = side.asked("INVITE", body=OFFER.format(97), Contact="<sip:second@x>")
    assert (refused.code, side.done) == (488, [])
    assert (refused.headers["Reason"] or "").startswith('SIP;cause=488;text="')
    assert str(side.state.target) == "sip:first@x"


async def test_an_offer_that_cannot_be_taken_now_changes_nothing(side: Side) -> None:
    side.busy = True
    assert side.asked("INVITE", body=OFFER.format(0), Contact="<sip:second@x>").code == 491
    assert (side.done, str(side.state.target)) == ([], "sip:first@x")


async def test_an_invite_without_an_offer_gets_ours_and_an_update_none(side: Side) -> None:
    assert side.asked("INVITE").body == b"ours"
    assert side.asked("UPDATE", 3).body == b""
    assert side.done == []


@pytest.mark.parametrize(
    ("kind", "body", "status", "done"),
    [
        ("application/dtmf-relay", "Signal=5\r\nDuration=100\r\n", 200, ["pressed 5"]),
        ("application/dtmf-relay", "Signal=55\r\n", 400, []),
        ("text/plain", "5", 200, []),
    ],
)
async def test_keys_by_info(side: Side, kind: str, body: str, status: int, done: list[str]) -> None:
    assert side.asked("INFO", body=body, Content_Type=kind).code == status
    assert side.done == done


async def test_options_say_what_may_be_asked(side: Side) -> None:
    said = side.asked("OPTIONS")
    assert (said.code, said.headers["Allow"], said.headers["Accept"]) == (200, ALLOW_OUT, "application/sdp")


@pytest.mark.parametrize(
    ("method", "status", "phrase"),
    [("REFER", 603, "Decline"), ("MESSAGE", 405, "Method Not Allowed"), ("NOTIFY", 200, "OK")],
)
async def test_the_other_side_refers_nobody_and_a_side_answers_what_is_its_own(
    side: Side, method: str, status: int, phrase: str
) -> None:
    answer = side.asked(method)
    assert (answer.code, answer.phrase) == (status, phrase)
    assert answer.headers.get("Allow") == (ALLOW_OUT if status == 405 else None)


def test_requests_of_ours_count_up_and_go_by_the_route_set() -> None:
    state = DialogState(
        "id", "<sip:us@x>;tag=u", "<sip:them@x>", URI.read("sip:t@x"), ["<sip:a;lr>", "<sip:b;lr>"]
    )
    first, ack, second = state.request("INVITE"), state.request("ACK", 1), state.request("BYE")
    assert [one.cseq.sequence for one in (first, ack, second)] == [1, 1, 2]
    assert second.headers.getlist("Route") == ["<sip:a;lr>", "<sip:b;lr>"]
    assert (second.headers["From"], second.headers["To"]) == ("<sip:us@x>;tag=u", "<sip:them@x>")


# ── a REFER of ours ──────────────────────────────────────────────────────────────────────────────────


def notified(referral: Referral, fragment: str) -> int:
    wire = Wire()
    referral.notified(served(wire, "NOTIFY", 2, fragment))
    return wire.sent[0].code


async def test_a_transfer_s_outcome_is_told_once() -> None:
    told: list[Any] = []
    referral = Referral(lambda *outcome: told.append(outcome))
    assert notified(referral, "SIP/2.0 200 OK") == 481, "nothing was asked"
    assert referral.headers("sip:a@b;x", "<sip:us>") == {"Refer-To": "<sip:a@b;x>", "Referred-By": "<sip:us>"}
    assert notified(referral, "SIP/2.0 180 Ringing\r\n") == 200
    assert told == []
    assert notified(referral, "nonsense") == 481
    assert notified(referral, "SIP/2.0 486 Busy Here\r\n") == 200
    assert notified(referral, "SIP/2.0 200 OK\r\n") == 481
    referral.answered(None)
    assert told == [(486, "Busy Here")]


async def test_a_refer_that_nobody_answers_has_failed() -> None:
    told: list[Any] = []
    referral = Referral(lambda *outcome: told.append(outcome))
    assert referral.headers("tel:+4930", "<sip:us>")["Refer-To"] == "tel:+4930"
    referral.answered(Response(202, "Accepted"))
    assert told == []
    referral.answered(None)
    assert told == [(408, "Request Timeout")]
