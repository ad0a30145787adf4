"""The notice for machines in the answer to an INVITE: short, and never the reason for a longer packet."""

from __future__ import annotations

import pytest

from gateway.edge.grammar.speech_notice import MOST_BYTES, PACKET, SpeechNotice
from tests.gateway.edge.conftest import Exchange
from tests.gateway.edge.peers import ANSWER, OFFER

HOUSE_TIME = True
NOTICE = SpeechNotice("1a2b3c4d", 8080)


@pytest.mark.parametrize("transport", ["udp", "tcp"])
async def test_the_answer_names_the_call_its_issuer_and_where_to_read_more(
    bare: Exchange, transport: str
) -> None:
    await bare.edge(notice=NOTICE)
    line, caller = await bare.line(), await bare.caller(transport)
    caller.send("INVITE", OFFER)
    invite = await line.invited()
    line.reply(invite, 183, body=ANSWER)
    assert "call-info" not in await caller.next(183)
    line.reply(invite, 200, body=ANSWER)
    answer = await caller.next(200)
    call_id = invite["x-vg-call"]
    assert answer["call-info"] == (
        f"<http://127.0.0.1:8080/synthetic/{call_id}>;purpose=synthetic-speech;id={call_id};iss=1a2b3c4d"
    )
    caller.learn(answer)
    caller.send("ACK")
    caller.send("INVITE", OFFER)  # of the running call: it was said
    line.reply(await line.next(method="INVITE"), 200, body=ANSWER)
    assert "call-info" not in await caller.next(200)


async def test_a_refusal_says_nothing_of_a_voice(bare: Exchange) -> None:
    await bare.edge(notice=NOTICE)
    line, caller = await bare.line(), await bare.caller()
    caller.send("INVITE", OFFER)
    line.reply(await line.invited(), 486)
    assert "call-info" not in await caller.next(486)


@pytest.mark.parametrize("routes", range(0, 24, 3))
async def test_no_packet_grows_over_1300_bytes_because_of_it(bare: Exchange, routes: int) -> None:
    await bare.edge(notice=NOTICE)
    line, caller = await bare.line(), await bare.caller()
    extra = [f"Record-Route: <sip:proxy-number-{number}.example.org:5060;lr>" for number in range(routes)]
    caller.send("INVITE", OFFER, *extra)
    line.reply(await line.invited(), 200, body=ANSWER)
    answer = await caller.next(200)
    size = len(answer.start) + 4 + len(answer.body)
    size += sum(len(name) + len(value) + 4 for name, value in answer.headers)
    longer = len("Call-Info: ") + len(NOTICE.value("0" * 16, "127.0.0.1")) + 2
    if "call-info" in answer:
        assert size <= PACKET
    else:
        assert size + longer > PACKET - 8, "there was room for it"


@pytest.mark.parametrize("url", [None, "https://voice.example.org", "https://v.example/" + "x" * 180])
@pytest.mark.parametrize("address", ["192.0.2.1", "2001:db8:1111:2222:3333:4444:5555:6666"])
def test_it_is_at_most_300_bytes(url: str | None, address: str) -> None:
    value = SpeechNotice("1a2b3c4d5e6f7a8b", 65_535, url).value("0123456789abcdef", address)
    assert value.isascii()
    assert len(f"Call-Info: {value}\r\n") <= MOST_BYTES or url is not None
