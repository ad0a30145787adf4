"""A trusted peer's headers choose a call's route, are said aloud and kept; a stranger's change nothing."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.gateway_process import House
from tests.gateway.edge.stir import StirAuthority, pem
from tests.gateway.line.rawphone import RawPhone
from tests.needs import HANGS_S

pytestmark = pytest.mark.e2e

PLAN = """
[[route]]
name = "gold"
called = ["desk"]
headers = { p-asserted-identity = ["+4930*"], diversion = ["100"], x-customer = ["gold"] }
keep = { transcript = true, caller_audio = false }
do = [
  { verb = "answer" },
  { verb = "disclose", principal = "Lindens", language = "en" },
  { verb = "say", text = "Customer {header.x-customer}, case {header.user-to-user}." },
  { verb = "hangup" },
]

[[route]]
name = "anybody"
called = ["desk"]
do = [{ verb = "answer" }, { verb = "hangup" }]
"""
SAID = {
    "P-Asserted-Identity": "<sip:+4930123@carrier.example>",
    "Diversion": "<sip:100@pbx.example>;reason=no-answer",
    "History-Info": "<sip:100@pbx.example>;index=1",
    "User-to-User": "seven",
    "X-Customer": "gold",
}


async def call(house: House, host: str, identity: str) -> dict[str, Any]:
    """Calls from that address with those headers; the call's session once it is over."""
    phone = await RawPhone(("127.0.0.1", house.sip_port), dials="desk", host=host).open()
    ended = len(house.events("call.ended"))
    said = (*SAID.items(), ("Identity", identity))
    try:
        phone.invite("".join(f"{name}: {value}\r\n" for name, value in said))
        answer = await phone.final()
        assert answer.status == 200, answer.start
        phone.send("ACK", "", f"Route: {answer.headers['record-route']}\r\n", same=True)
        await phone.request("BYE", HANGS_S)
    finally:
        phone.close()
    await asyncio.to_thread(
        house.wait_for, "its end", lambda: len(house.events("call.ended")) > ended, HANGS_S
    )
    call_id = house.events("call.ended")[-1]["call_id"]
    return dict(await asyncio.to_thread(house.get, f"/api/calls/{call_id}"))


async def shown(house: House, call_id: str) -> dict[str, Any]:
    """What `calls show --json` says."""
    argv = [sys.executable, "-m", "gateway.cli", "calls", "show", "--json", call_id]
    ran = await asyncio.to_thread(
        subprocess.run, argv, env=house.environ, capture_output=True, timeout=HANGS_S, check=True
    )
    return dict(json.loads(ran.stdout))


@pytest.mark.long("a whole gateway")
async def test_headers_of_a_trusted_peer_choose_the_route_and_a_strangers_do_not(tmp_path: Path) -> None:
    trust = tmp_path / "stir.pem"
    trust.write_bytes(pem(StirAuthority().certificate))
    signed = {"stir_trust": trust, "stir_hosts": "certificates.example"}
    house = House(tmp_path, wide_calls=0, web_lines=0, trusted_proxies="127.0.0.1", **signed)
    house.plan(PLAN)
    await asyncio.to_thread(house.start)
    try:
        signer = StirAuthority("nobody").signer()
        identities = [signer.identity(claims={"orig": {"tn": "4930123"}}) for _ in range(2)]
        trusted = await call(house, "127.0.0.1", identities[0])
        stranger = await call(house, "127.0.0.2", identities[1])
        told = b"".join(path.read_bytes() for path in (tmp_path / "data").rglob("*.aof"))
    finally:
        await asyncio.to_thread(house.stop)
    none = {"attestation": "none", "attestation-why": "another caller's number"}
    kept = {**{name.lower(): value for name, value in SAID.items()}, **none}
    kept["attestation-why"] = "another called number"  # the caller's is a trusted peer's word
    for token in ".".join(one.partition(";")[0] for one in identities).split("."):
        assert token.encode() not in told + house.log_path.read_bytes()
    assert (trusted["route"], trusted["headers"]) == ("gold", kept)
    assert b"Customer gold, case seven." in told
    assert stranger["route"] == "anybody"
    assert not [value for value in SAID.values() if value in json.dumps(stranger)]
    for session, headers in ((trusted, kept), (stranger, none)):  # the house is down: what SQL has
        assert (await shown(house, session["call_id"])).get("headers") == headers
