"""The 49 torture messages of RFC 4475, each by UDP and by TCP: what we answer, why, and that we still live.

The messages in `rfc4475/` are the RFC's own, under its names (The Internet Society, 2006; its distribution is
unlimited).
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.gateway.edge.conftest import Exchange
from tests.gateway.edge.peers import Inbox, Line, Said, TcpCaller

HOUSE_TIME = True

MESSAGES = Path(__file__).parent / "rfc4475"
FORWARDED = "forwarded"
"""It is a call: a line gets it."""
SILENCE = "silence"
"""It is dropped; a connection that brought it may end."""


@dataclass(frozen=True)
class Due:
    """What a message gets, and why; by TCP it gets the same, if nothing else is said."""

    what: int | str
    why: str
    by_tcp: int | str | None = None


DUE = {
    # §3.1.1: valid
    "wsinv": Due(481, "it belongs to a dialog that is not here: its To has a tag"),
    "intmeth": Due(501, "nobody knows its method"),
    "esc01": Due(FORWARDED, "escapes in a user say the same as what they stand for"),
    "escnull": Due(405, "there is no registrar here"),
    "esc02": Due(501, "its method is not REGISTER: there are no escapes in methods"),
    "lwsdisp": Due(200, "nothing has to stand between a name and its bracket"),
    "longreq": Due(FORWARDED, "long names, long values and 34 Vias are no fault"),
    "dblreq": Due(405, "there is no registrar here", by_tcp=405),
    "semiuri": Due(200, "a semicolon may stand in a user"),
    "transports": Due(200, "the transports of other people's Vias are theirs"),
    "mpart01": Due(405, "there are no messages here"),
    "unreason": Due(SILENCE, "nobody asked for this response"),
    "noreason": Due(SILENCE, "nobody asked for this response"),
    # §3.1.2: invalid
    "badinv01": Due(400, "its Via has empty parameters and empty neighbours"),
    "clerr": Due(400, "its body is shorter than it says", by_tcp=SILENCE),  # which waits for the rest
    "ncl": Due(400, "its Content-Length is negative", by_tcp=SILENCE),  # where nobody knows where it ends
    "scalar02": Due(400, "its CSeq and its Max-Forwards are out of range"),
    "scalarlg": Due(SILENCE, "nobody asked for this response"),
    "quotbal": Due(400, "a quote in its To is never closed"),
    "ltgtruri": Due(400, "its Request-URI stands in brackets"),
    "lwsruri": Due(400, "a blank stands in its Request-URI"),
    "lwsstart": Due(400, "two blanks stand between the parts of its first line"),
    "trws": Due(200, "blanks at the end of the first line mean nothing"),
    "escruri": Due(400, "its Request-URI brings headers of its own"),
    "baddate": Due(FORWARDED, "we do not read its Date"),
    "regbadct": Due(405, "there is no registrar here"),
    "badaspec": Due(400, "blanks stand in the brackets of its To"),
    "baddn": Due(200, "a comma in a name without quotes means nothing else where one address may stand"),
    "badvers": Due(505, "it is of SIP 7.0"),
    "mismatch01": Due(400, "its CSeq is another method's"),
    "mismatch02": Due(400, "its CSeq is another method's"),
    "bigcode": Due(SILENCE, "no status has ten digits"),
    # §3.2: transactions
    "badbranch": Due(200, "a branch of nothing but the magic cookie is one of before RFC 3261"),
    # §3.3: applications
    "insuf": Due(400, "it has no Call-ID, From and To; what it has comes back"),
    "unkscm": Due(416, "nobody knows the scheme of its Request-URI"),
    "novelsc": Due(416, "the scheme of its Request-URI is not one of a telephone"),
    "unksm2": Due(405, "there is no registrar here; the schemes of To and From are their reader's affair"),
    "bext01": Due(420, "it requires what we do not have"),
    "invut": Due(415, "its body is of a kind that nobody knows"),
    "regaut01": Due(405, "there is no registrar here"),
    "multi01": Due(400, "it has two of what may stand once"),
    "mcl01": Due(400, "it has two lengths", by_tcp=SILENCE),  # where nobody knows where it ends
    "bcast": Due(SILENCE, "nobody asked for this response"),
    "zeromf": Due(483, "it has no hops left"),
    "cparam01": Due(405, "there is no registrar here"),
    "cparam02": Due(405, "there is no registrar here"),
    "regescrt": Due(405, "there is no registrar here"),
    "sdp01": Due(406, "it takes answers of an unknown kind only"),
    # §3.4: of before RFC 3261
    "inv2543": Due(FORWARDED, "then there were neither branches nor tags, and a Contact was not needed"),
}


class Sender(Inbox):
    """A client at the address and the port to which the answers to a message go."""

    async def open(self, data: bytes, edge: tuple[str, int]) -> None:
        loop = asyncio.get_running_loop()
        sent_by = re.search(rb"SIP\s*/\s*[\d.]+\s*/\s*\w+\s+[^\s;,:]+:?(\d*)", data)
        port = int(sent_by[1]) if sent_by and sent_by[1] else 5060
        self.transport, _ = await loop.create_datagram_endpoint(
            lambda: self, local_addr=("127.44.75.1", port), remote_addr=edge
        )
        self.transport.sendto(data)


def test_none_is_left_out() -> None:
    assert {path.stem for path in MESSAGES.iterdir()} == set(DUE)
    assert len(DUE) == 49


@pytest.mark.parametrize("name", DUE)
async def test_by_udp(exchange: Exchange, name: str) -> None:
    line, sender = await exchange.line(), Sender()
    data = (MESSAGES / f"{name}.dat").read_bytes()
    await sender.open(data, ("127.0.0.1", exchange.edges[0].port))
    try:
        await _gets(DUE[name].what, sender, line)
    finally:
        sender.transport.close()
    await _goes_on(exchange, line)


@pytest.mark.parametrize("name", DUE)
async def test_by_tcp(exchange: Exchange, name: str) -> None:
    line, sender = await exchange.line(), await exchange.caller("tcp")
    assert isinstance(sender, TcpCaller)
    sender.write((MESSAGES / f"{name}.dat").read_bytes())
    due = DUE[name]
    await _gets(due.by_tcp or due.what, sender, line)
    await _goes_on(exchange, line)


async def _gets(due: int | str, sender: Inbox, line: Line) -> None:
    if due == FORWARDED:
        invite = await line.invited()
        line.reply(invite, 486)
        await sender.next(486)
        await line.next(method="ACK")
    elif due == SILENCE:
        await sender.nothing(12.0)  # longer than a connection may take for a message that it began
        await line.nothing()
    else:
        answer = await _answer(sender)
        assert answer.status == due
        await line.nothing()


async def _answer(sender: Inbox) -> Said:
    """The first that is not provisional."""
    async with asyncio.timeout(3):
        while True:
            for said in sender.kept:
                if said.start.startswith("SIP/2.0 ") and said.status >= 200:
                    return said
            await asyncio.sleep(0.01)


async def _goes_on(exchange: Exchange, line: Line) -> None:
    """An OPTIONS is answered, and a call comes to a line."""
    caller = await exchange.caller()
    caller.send("OPTIONS")
    await caller.next(200)
    await exchange.call(caller, line)
    assert exchange.edges[0].stats()["slots_free"] == 3
