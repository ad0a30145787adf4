"""What a trusted peer says of a call reaches the router; from anybody else it is dropped."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.edge.grammar.message import Unreadable, read
from gateway.edge.grammar.peer_headers import LONGEST, MOST, peer_headers
from gateway.edge.grammar.sip_message import Request
from tests.gateway.edge.conftest import Exchange
from tests.gateway.edge.peers import OFFER

SAID = (
    'P-Asserted-Identity: "Ann" <sip:+4930123@carrier.example>', "P-Asserted-Identity: <tel:+4930123>",
    "Diversion: <sip:100@pbx>;reason=no-answer", "History-Info: <sip:100@pbx>;index=1",
    "User-to-User: 00;encoding=hex", "Remote-Party-ID: <sip:200@pbx>", "Privacy: id", "X-Customer: gold",
    "x-GROUP: 7", "X-VG-Call: mine", "X-VG-Auth: mine", "Subject: hello",
)  # fmt: skip


async def test_a_trusted_peers_reach_the_router_and_no_line(bare: Exchange) -> None:
    await bare.edge(trusted_proxies=("127.0.0.1",))
    line, caller = await bare.line(), await bare.caller()
    caller.send("INVITE", OFFER, *SAID)
    invite = await line.invited()
    assert bare.desk.calls[0].facts.headers == {
        "p-asserted-identity": '"Ann" <sip:+4930123@carrier.example>, <tel:+4930123>',
        "remote-party-id": "<sip:200@pbx>",
        "diversion": "<sip:100@pbx>;reason=no-answer",
        "history-info": "<sip:100@pbx>;index=1",
        "user-to-user": "00;encoding=hex",
        "privacy": "id",
        "x-customer": "gold",
        "x-group": "7",
    }
    assert not {"p-asserted-identity", "x-customer", "diversion"} & {name for name, _ in invite.headers}


async def test_a_strangers_are_dropped_also_of_one_who_may_call(bare: Exchange) -> None:
    await bare.edge(allow=("127.0.0.1",))
    line, caller = await bare.line(), await bare.caller()
    caller.send("INVITE", OFFER, *SAID)
    await line.invited()
    assert bare.desk.calls[0].facts.headers is None


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["X-A", "x-a", "Diversion", "X-" + "b" * 60, "X-\u00e9", "X-VG-Call"])
            | st.integers(0, 60).map(lambda number: f"X-N{number}"),
            st.text(st.characters(codec="utf-8", exclude_characters="\r\n\0"), max_size=300),
        ),
        max_size=30,
    )
)
def test_whatever_it_says_is_printable_short_and_little(lines: list[tuple[str, str]]) -> None:
    head = ["INVITE sip:a@b SIP/2.0", "Via: SIP/2.0/UDP x;branch=z9hG4bKa", "From: <sip:a@b>;tag=1",
            "To: <sip:a@b>", "Call-ID: c", "CSeq: 1 INVITE", "Contact: <sip:a@b>"]  # fmt: skip
    try:
        request = read("\r\n".join([*head, *(f"{name}: {value}" for name, value in lines), "", ""]).encode())
    except Unreadable:
        return
    assert isinstance(request, Request)
    found = peer_headers(request)
    assert len(found) <= MOST
    for name, value in found.items():
        assert name == name.lower()
        assert not name.startswith("x-vg-")
        assert 0 < len(value) <= LONGEST
        assert value.isprintable()
