"""What a trusted peer says of a call stands in its session, and is said where the plan says so."""

from __future__ import annotations

import json

from gateway.dialplan import Answer, Converse, Disclose, Hangup, Say
from gateway.ipc.call_facts import CallFacts
from tests.gateway.hall.virtual_hall import House

HOUSE_TIME = True

FACTS = CallFacts(
    caller="sip:bob@x", called="sip:demo@y", display="Bob", source="127.0.0.1", transport="udp",
    headers={"x-name": "Ann {time} {header.x-other}", "p-asserted-identity": "<tel:+4930>"},
)  # fmt: skip
TOLD = Disclose(principal="Lindens", language="en")


async def test_a_header_is_said_once_and_as_it_is(house: House) -> None:
    """Braces in what a peer wrote are no facts of the plan's."""
    say = Say(text="Hello {header.x-name}{header.x-missing}")
    phone = await house.ring(Answer(), TOLD, say, Hangup(), facts=FACTS)
    await house.says("Hello Ann {time} {header.x-other}")
    await house.over(phone)


async def test_headers_name_and_number_are_in_the_session_and_its_events(house: House) -> None:
    phone = await house.ring(Answer(), TOLD, Hangup(), facts=FACTS)
    await house.over(phone)
    kept = house.memory.hashes[f"vg:call:{phone.call_id}"]
    assert json.loads(kept["headers"]) == FACTS.headers
    assert (kept["name"], kept["caller"]) == ("Bob", "sip:bob@x")
    (opened,) = house.events(phone, "opened")
    assert opened["headers"] == FACTS.headers
    record = await house.memory.get(phone.call_id)
    assert record is not None
    assert record.to_json()["headers"] == FACTS.headers


async def test_a_conversation_knows_no_header(house: House) -> None:
    """Not even where a plan was made that the loader refuses."""
    talk = Converse(instructions="Be kind to {header.x-name}.", greeting="Hello {header.x-name}")
    phone = await house.ring(Answer(), TOLD, talk, facts=FACTS)
    await house.says("Hello {header.x-name}")
    assert "Ann" not in repr([session.told for session in house.engine.sessions])
    await house.hang_up(phone)
    await house.over(phone)
