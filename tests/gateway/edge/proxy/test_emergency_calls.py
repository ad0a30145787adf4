"""Who calls for help hears at once that nobody hears it here, whatever else the house has to do."""

from __future__ import annotations

import pytest

from gateway.config.emergency import EMERGENCY
from tests.gateway.edge.conftest import Exchange
from tests.gateway.edge.peers import OFFER
from tests.gateway.edge.registrar.phones import credentials, ha1


@pytest.mark.parametrize(
    "called", ["sip:112@127.0.0.1", "sip:+911@127.0.0.1", "tel:110", "urn:service:sos.police"]
)
async def test_such_a_call_is_refused_with_380_without_a_line_and_in_a_busy_house(
    bare: Exchange, called: str
) -> None:
    edge = await bare.edge(emergency=EMERGENCY)
    bare.desk.busy = True
    caller = await bare.caller()
    caller.send("INVITE", OFFER, uri=called)
    refused = await caller.next(380)
    assert "use another telephone" in refused["reason"]
    assert refused.start.endswith("Alternative Service")
    assert bare.desk.calls == []
    (noted,) = bare.desk.refusals
    assert (noted.status, noted.facts.called) == (380, called)
    assert edge.stats()["emergency_calls_refused"] == 1


async def test_where_a_recording_answers_it_is_a_call(bare: Exchange) -> None:
    await bare.edge(emergency=EMERGENCY)
    bare.desk.recording = True
    line, caller = await bare.line(), await bare.caller()
    caller.send("INVITE", OFFER, uri="urn:service:sos")
    await line.invited()
    assert bare.desk.calls[0].facts.called == "urn:service:sos"


async def test_who_must_log_in_is_asked_first(bare: Exchange) -> None:
    await bare.edge(emergency=EMERGENCY, ha1=ha1)
    caller = await bare.caller()
    caller.send("INVITE", OFFER, uri="sip:112@127.0.0.1")
    challenge = await caller.next(401)
    login = credentials(challenge, "alice", "correct-horse", "INVITE", "sip:112@127.0.0.1")
    caller.send("INVITE", OFFER, login, uri="sip:112@127.0.0.1")
    await caller.next(380)


async def test_another_urn_is_no_address_of_ours(bare: Exchange) -> None:
    await bare.edge(emergency=EMERGENCY)
    caller = await bare.caller()
    caller.send("INVITE", OFFER, uri="urn:service:counseling")
    await caller.next(416)
