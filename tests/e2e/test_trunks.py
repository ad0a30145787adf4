"""A whole gateway behind a real Kamailio: registered by password; a caller is handed to somebody there."""

from __future__ import annotations

import asyncio
import contextlib
import re
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.gateway_process import House
from tests.e2e.kamailio import BUSY, DIRECT, MOVED, OFFICE, PASSWORD, USER, kamailio
from tests.gateway.edge.authority import Authority
from tests.gateway.line.line_harness import is_tone, tone
from tests.gateway.line.rawphone import RawPhone
from tests.needs import HANGS_S, need_program

pytestmark = pytest.mark.e2e

PLAN = """
[targets]
office = "trunk:carrier/{office}"
busy = "trunk:carrier/{busy}"
moved = "trunk:carrier/{moved}"

[[route]]
name = "put-through"
called = ["through", "{user}"]
do = [
  {{ verb = "answer" }},
  {{ verb = "transfer", target = "busy" }},
  {{ verb = "transfer", target = "{target}" }},
  {{ verb = "hangup" }},
]
"""

TRUNK = """
[[trunk]]
name = "carrier"
hosts = ["{host}:{port}"]
transport = "{transport}"
user = "{user}"
password_file = "carrier.password"
register = true
numbers = ["+4930777"]
prefixes = ["+4930"]
"""


def trunk(
    folder: Path,
    port: int,
    *,
    password: str = PASSWORD,
    transport: str = "udp",
    host: str = "127.0.0.1",
    more: str = "",
) -> None:
    """The file of trunks, and that of the password."""
    data = folder / "data"
    data.mkdir(parents=True, exist_ok=True)
    text = TRUNK.format(host=host, port=port, user=USER, transport=transport)
    (data / "trunks.toml").write_text(text + more)
    secret = data / "carrier.password"
    secret.write_text(password + "\n")
    secret.chmod(0o600)


async def handed_over(house: House, answering: RawPhone, *, fails_first: bool) -> None:
    """A caller whom the plan puts through: both hear each other, and who hangs up ends it for both."""
    caller = await RawPhone(("127.0.0.1", house.sip_port), dials="through").open()
    try:
        caller.invite("")
        answer = await caller.final()
        assert answer.status == 200, answer.start
        caller.send("ACK", "", f"Route: {answer.headers['record-route']}\r\n", same=True)
        invite = await answering.request("INVITE", HANGS_S)
        assert f"sip:{OFFICE}@" in invite.start
        assert "<sip:+4930777@127.0.0.1>" in invite.headers["from"]
        assert PASSWORD not in str(invite)
        port = re.search(r"m=audio (\d+)", invite.body)
        assert port is not None
        answering.media = ("127.0.0.1", int(port[1]))
        routes = f"Record-Route: {invite.headers['record-route']}\r\n"
        answering.answer(invite, "180 Ringing", headers=routes)
        answering.answer(invite, body=answering.offer(), headers=routes)
        await answering.request("ACK", HANGS_S)
        caller.talk(tone(440, rate_hz=8000))
        answering.talk(tone(660, rate_hz=8000))
        await _comes_to_hear(caller, 660)
        await _comes_to_hear(answering, 440)
        (known,) = house.calls()
        assert known["state"] == "transferred"
        await caller.hang_up()
        await answering.request("BYE", HANGS_S)
        shown = house.get(f"/api/calls/{known['call_id']}")
        assert fails_first is ("486" in str(shown))
    finally:
        caller.close()


async def _comes_to_hear(phone: RawPhone, hz: float) -> None:
    async with asyncio.timeout(HANGS_S):
        while not is_tone(await phone.hears(0.3, HANGS_S), hz, phone.coder.rate_hz):
            pass


@contextlib.contextmanager
def certificate(folder: Path, host: str = "127.0.0.1") -> Iterator[Path]:
    """One for that address, signed by itself, with its key beside it."""
    chain, key = folder / "chain.pem", folder / "key.pem"
    words = f"req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN={host} -keyout {key} -out {chain}"
    command = [need_program("openssl"), *words.split(), "-addext", f"subjectAltName=IP:{host}"]
    subprocess.run(command, check=True, capture_output=True, timeout=HANGS_S)
    yield chain


@contextlib.asynccontextmanager
async def carrier(
    folder: Path, *, transport: str = "udp", algorithm: str = "MD5", password: str = PASSWORD
) -> AsyncIterator[tuple[House, RawPhone]]:
    """A gateway with a trunk at a Kamailio, and the telephone that is behind that."""
    answering = await RawPhone().open()
    house = House(folder / "house")
    house.folder.mkdir()
    try:
        with certificate(folder) as chain:
            house.environ["VOICEGATE_TLS_TRUST"] = str(chain)
            with kamailio(folder, answering.sip_port, algorithm=algorithm, chain=chain) as ports:
                port = ports.tls if transport == "tls" else ports.plain
                answering.line = ("127.0.0.1", ports.plain)
                trunk(house.folder, port, password=password, transport=transport)
                house.plan(PLAN.format(office=OFFICE, busy=BUSY, moved=MOVED, target="moved", user=USER))
                house.start()
                yield house, answering
                assert PASSWORD not in house.log_path.read_text()
    finally:
        answering.close()
        await asyncio.to_thread(house.stop)


def command(house: House, *argv: str) -> tuple[str, int]:
    """What the command prints, and its exit status."""
    ran = subprocess.run(
        [sys.executable, "-m", "gateway.cli", *argv], env=house.environ, capture_output=True, text=True,
        timeout=HANGS_S,
    )  # fmt: skip
    return ran.stdout + ran.stderr, ran.returncode


async def told(house: House, event: str) -> dict[str, Any]:
    """What the log says of the trunk."""
    await asyncio.to_thread(house.wait_for, event, lambda: house.events(event), HANGS_S)
    return house.events(event)[-1]


@pytest.mark.long("a whole gateway, and Kamailio")
@pytest.mark.parametrize(
    ("transport", "algorithm"),
    [
        ("udp", "SHA-256"),
        pytest.param("udp", "MD5", marks=pytest.mark.prove),
        pytest.param("tcp", "MD5", marks=pytest.mark.prove),
        pytest.param("tls", "SHA-256", marks=pytest.mark.prove),
    ],
)
async def test_a_caller_is_handed_over_by_a_trunk_that_challenges(
    tmp_path: Path, transport: str, algorithm: str
) -> None:
    async with carrier(tmp_path, transport=transport, algorithm=algorithm) as (house, answering):
        await told(house, "trunk.up")
        await handed_over(house, answering, fails_first=True)
        metrics = await asyncio.to_thread(house.get, "/metrics")
        assert 'voicegate_trunk_up{trunk="carrier"} 1.0' in metrics
        assert 'voicegate_trunk_answers_total{status="486",trunk="carrier"} 1.0' in metrics
        said, code = await asyncio.to_thread(command, house, "trunk", "list")
        assert "up, 0 of 2 calls" in said
        assert code == 0
        said, code = await asyncio.to_thread(command, house, "trunk", "test", "carrier", "--call", BUSY)
        assert code == 1
        assert "ok    REGISTER: answered 200 OK" in said
        assert "FAIL  INVITE: answered 486 Busy Here" in said
        assert PASSWORD not in said
        assert re.findall(r'response="(.*?)"', said) == ["…"] * said.count("response=")


@pytest.mark.prove
@pytest.mark.long("a whole gateway, and Kamailio")
@pytest.mark.parametrize("transport", ["udp", "tls"])
async def test_the_test_phone_dials_through_a_trunk(tmp_path: Path, transport: str) -> None:
    async with carrier(tmp_path, transport=transport) as (house, answering):
        await told(house, "trunk.up")
        argv = ("call", "--trunk", "carrier", "--duration", "2", MOVED)
        calling = asyncio.create_task(asyncio.to_thread(command, house, *argv))
        invite = await answering.request("INVITE", HANGS_S)
        port = re.search(r"m=audio (\d+)", invite.body)
        assert port is not None
        answering.media = ("127.0.0.1", int(port[1]))
        routes = f"Record-Route: {invite.headers['record-route']}\r\n"
        answering.answer(invite, body=answering.offer(), headers=routes)
        await answering.request("ACK", HANGS_S)
        answering.talk(tone(660, rate_hz=8000))
        await answering.request("BYE", HANGS_S)
        said, code = await calling
        assert f"ok    INVITE: answered 200 OK\n{MOVED}: answered after" in said
        assert code == 0
        assert "first audio never" not in said
        assert PASSWORD not in said


@pytest.mark.prove
@pytest.mark.long("a whole gateway, and Kamailio")
async def test_a_wrong_password_is_told_and_nothing_leaves(tmp_path: Path) -> None:
    async with carrier(tmp_path, password="another one") as (house, _):
        down = await told(house, "trunk.down")
        assert "password" in down["why"]
        caller = await RawPhone(("127.0.0.1", house.sip_port), dials="through").open()
        caller.invite("")
        answer = await caller.final()
        caller.send("ACK", "", f"Route: {answer.headers['record-route']}\r\n", same=True)
        await caller.request("BYE", HANGS_S)
        caller.close()
        said, code = await asyncio.to_thread(command, house, "trunk", "test", "carrier")
        assert "FAIL  REGISTER: the trunk refuses the user or the password" in said
        assert code == 1
        assert {event["status"] for event in house.events("target.refused_by")} == {407}


@pytest.mark.prove
@pytest.mark.long("a whole gateway, and Kamailio")
async def test_a_call_of_the_trunk_comes_by_our_registration_and_is_the_trunks(tmp_path: Path) -> None:
    async with carrier(tmp_path) as (house, telephone):
        await told(house, "trunk.up")
        telephone.dials = USER
        telephone.invite("")
        assert (await telephone.final()).status == 200
        offered = await told(house, "call.offered")
        assert offered["trunk"] == "carrier"


@pytest.mark.prove
@pytest.mark.long("a whole gateway, and Kamailio")
async def test_a_trunk_out_of_service_takes_no_call_either_way_and_comes_back(tmp_path: Path) -> None:
    async with carrier(tmp_path) as (house, telephone):
        await told(house, "trunk.up")
        said, code = await asyncio.to_thread(command, house, "trunk", "out", "carrier", "--why", "fraud")
        assert code == 0, said
        telephone.dials = USER
        telephone.invite("")
        assert (await telephone.final()).status == 500  # what a proxy makes of our 503 (RFC 3261 §16.7)
        caller = await RawPhone(("127.0.0.1", house.sip_port), dials="through").open()
        caller.invite("")
        assert (await caller.final()).status == 503  # at this address everybody is the trunk
        caller.close()
        said, _ = await asyncio.to_thread(command, house, "trunk", "list")
        assert "up, 0 of 2 calls, out of service since" in said
        said, code = await asyncio.to_thread(command, house, "trunk", "back", "carrier")
        assert code == 0, said
        await handed_over(house, telephone, fails_first=True)


TLS_TRUNK = """
[[trunk]]
name = "carrier"
hosts = ["127.0.0.1:{port}"]
transport = "tls"
user = "{user}"
password_file = "carrier.password"
register = {registers}
numbers = ["+4930777"]
prefixes = ["+4930"]
certificate = "us.pem"
key = "us-key.pem"
authority = "authority.pem"
shows = ["{shows}"]
"""


@contextlib.asynccontextmanager
async def certified(folder: Path, *, shows: str = "carrier.example") -> AsyncIterator[tuple[House, RawPhone]]:
    """The same where both ends want certificates, each by an authority of its own."""
    telephone = await RawPhone().open()
    ours, theirs = Authority(folder / "ours", "ours"), Authority(folder / "theirs", "theirs")
    chain, key = theirs.sign("127.0.0.1", "carrier.example", to="carrier")
    beside = folder / "kamailio"
    beside.mkdir()
    shutil.copy(chain, beside / "chain.pem")
    shutil.copy(key, beside / "key.pem")
    believed = beside / "believed.pem"
    believed.write_bytes(ours.ca.read_bytes() + theirs.ca.read_bytes())
    own, own_key = ours.sign("127.0.0.1", to="gate")
    house = House(folder / "house", tls_certificate=own, tls_key=own_key, sip_auth="on")
    house.folder.mkdir()
    try:
        with kamailio(
            beside,
            telephone.sip_port,
            algorithm="MD5",
            chain=beside / "chain.pem",
            clients=believed,
            gate_port=house.sip_tls_port,
        ) as ports:
            telephone.line = ("127.0.0.1", ports.plain)
            trunk(house.folder, ports.tls)
            data = house.folder / "data"
            registers = "true" if shows == "carrier.example" else "false"
            (data / "trunks.toml").write_text(
                TLS_TRUNK.format(port=ports.tls, user=USER, shows=shows, registers=registers)
            )
            shutil.copy(theirs.ca, data / "authority.pem")
            for kind, file in zip(("us.pem", "us-key.pem"), ours.sign("us.example", to="us"), strict=True):
                shutil.copy(file, data / kind)
            house.plan(PLAN.format(office=OFFICE, busy=BUSY, moved=MOVED, target="office", user=USER))
            house.start()
            yield house, telephone
    finally:
        telephone.close()
        await asyncio.to_thread(house.stop)


@pytest.mark.prove
@pytest.mark.long("a whole gateway, and Kamailio")
async def test_a_kamailio_and_we_know_each_other_by_certificates(tmp_path: Path) -> None:
    async with certified(tmp_path) as (house, telephone):
        await told(house, "trunk.up")
        said, code = await asyncio.to_thread(command, house, "trunk", "test", "carrier")
        assert code == 0, said
        said, _ = await asyncio.to_thread(command, house, "trunk", "show", "carrier")
        assert "authority.pem for carrier.example" in said
        assert len(re.findall(r"us.pem, ends on 20\d\d-", said)) == 1
        telephone.dials = DIRECT
        telephone.invite("")
        assert (await telephone.final()).status == 200
        offered = await told(house, "call.offered")
        assert (offered["trunk"], offered["transport"]) == ("carrier", "tls")


@pytest.mark.prove
@pytest.mark.long("a whole gateway, and Kamailio")
async def test_a_kamailio_with_another_name_is_a_stranger(tmp_path: Path) -> None:
    async with certified(tmp_path, shows="other.example") as (house, telephone):
        telephone.dials = DIRECT
        telephone.invite("")
        assert (await telephone.final()).status == 401
        assert not house.events("call.offered")
