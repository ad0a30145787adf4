"""A plan hands a caller to registered softphones as people have them: rung by their flow, heard, gone."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.e2e.gateway_process import House
from tests.e2e.registering import Softphone, bindings, users
from tests.e2e.test_baresip import network  # noqa: F401  # a fixture
from tests.e2e.test_linphone import Linphone
from tests.gateway.edge.authority import Authority
from tests.gateway.line.rawphone import RawPhone
from tests.needs import HANGS_S

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.prove,
    pytest.mark.long("whole gateways, and softphones that start slowly"),
]
PASSWORD = "correct-horse"
PLAN = """
[targets]
home = "user:alice"

[[route]]
name = "put-through"
called = ["through"]
do = [
  { verb = "answer" },
  { verb = "transfer", target = "home" },
  { verb = "hangup" },
]
"""


@contextlib.contextmanager
def alices_house(
    folder: Path, name: str, srtp: str = "", **settings: object
) -> Iterator[tuple[House, Authority]]:
    """One where alice may register, with a certificate for that name; `srtp` is her rule."""
    authority = Authority(folder / "ca")
    chain, key = authority.sign(name)
    usual = {"tls_certificate": chain, "tls_key": key, "wide_calls": 0, "web_lines": 0, "sip_auth": "off"}
    house = House(folder / "house", **{**usual, "qualify_s": 1.0, **settings})
    house.folder.mkdir()
    house.plan(PLAN)
    house.start()
    try:
        (folder / "password").write_text(f"{PASSWORD}\n")
        add = [sys.executable, "-m", "gateway.cli", "sip", "user", "add", "alice", "--password-from"]
        subprocess.run(
            [*add, folder / "password", "--srtp", srtp],
            check=True,
            env=house.environ,
            capture_output=True,
            timeout=60,
        )
        yield house, authority
    finally:
        house.stop()


@contextlib.asynccontextmanager
async def handed_over(house: House, host: str = "127.0.0.1") -> AsyncIterator[RawPhone]:
    """A caller whom the plan hands to alice, and to whom somebody there has answered."""
    caller = await RawPhone((host, house.sip_port), dials="through", host=host).open()
    try:
        caller.invite("")
        answer = await caller.final()
        assert answer.status == 200, answer.start
        caller.send("ACK", "", f"Route: {answer.headers['record-route']}\r\n", same=True)
        await asyncio.to_thread(house.wait_for, "an answer", lambda: house.events("target.answered"), HANGS_S)
        yield caller
        await caller.hang_up()
    finally:
        caller.close()


@pytest.mark.parametrize("transport", ["udp", "tcp", "tls"])
async def test_linphonec_registers_is_rung_and_leaves(tmp_path: Path, transport: str) -> None:
    with alices_house(tmp_path, "localhost") as (house, authority):
        phone = Linphone(tmp_path / "home", f"root_ca={authority.ca}\n", -1, -1)
        port = house.sip_tls_port if transport == "tls" else house.sip_port
        host = "localhost" if transport == "tls" else "127.0.0.1"
        try:
            for line in (
                "ipv6 disable", "soundcard use files", "autoanswer enable",
                f"register sip:alice@{host} sip:{host}:{port};transport={transport} {PASSWORD}",
            ):  # fmt: skip
                phone.type(line)
            await asyncio.to_thread(house.wait_for, "its registration", lambda: bindings(house), HANGS_S)
            (held,) = bindings(house)
            assert held.transport == transport
            assert "Linphone" in held.user_agent
            await asyncio.to_thread(
                house.wait_for, "its answer to OPTIONS",
                lambda: held.reg_id or "answers in" in users(house)[1], HANGS_S,
            )  # fmt: skip
            async with handed_over(house) as caller:
                await asyncio.to_thread(
                    house.wait_for, "its sound", lambda: "Media streams established" in phone.log, HANGS_S
                )
                assert caller.packets
            await asyncio.to_thread(
                house.wait_for, "its end", lambda: "ended (No error)" in phone.log, HANGS_S
            )
            phone.type("unregister")
            await asyncio.to_thread(house.wait_for, "its leave", lambda: not bindings(house), HANGS_S)
        finally:
            phone.close()


async def established(house: House, phone: Softphone) -> None:
    await asyncio.to_thread(house.wait_for, "its call", lambda: phone.said("Call established"), HANGS_S)


async def test_two_softphones_ring_and_one_has_the_call(network: str, tmp_path: Path) -> None:  # noqa: F811
    """baresip by a flow over UDP and one over TCP, each of an instance of its own; the second picks up."""
    with alices_house(tmp_path, network, host="0.0.0.0") as (house, _):
        where = f"{network}:{house.sip_port}"
        waits = Softphone(tmp_path / "waits", 5070, where, "udp", PASSWORD)
        picks_up = Softphone(tmp_path / "picks-up", 5074, where, "tcp", PASSWORD, more=";answermode=auto")
        try:
            await asyncio.to_thread(house.wait_for, "both", lambda: len(bindings(house)) == 2, HANGS_S)
            async with handed_over(house, network):
                await asyncio.to_thread(house.wait_for, "it rang", lambda: waits.said("Incoming call"), 10)
                await asyncio.to_thread(
                    house.wait_for, "its CANCEL", lambda: waits.said("session closed"), HANGS_S
                )
                await established(house, picks_up)
                assert not waits.said("Call established")
        finally:
            for phone in (waits, picks_up):
                await asyncio.to_thread(phone.end)


async def test_a_telephone_with_two_flows_rings_once(network: str, tmp_path: Path) -> None:  # noqa: F811
    """baresip registers by two flows (RFC 5626): one is tried, and when that is gone the other."""
    with alices_house(tmp_path, network, host="0.0.0.0") as (house, _):
        where = f"{network}:{house.sip_port}"
        second = f';outbound2="sip:{where};transport=tcp"'
        phone = Softphone(tmp_path / "phone", 5070, where, "udp", PASSWORD, more=f"{second};answermode=auto")
        try:
            await asyncio.to_thread(house.wait_for, "both flows", lambda: len(bindings(house)) == 2, HANGS_S)
            held = bindings(house)
            assert len({one.instance for one in held}) == 1
            assert sorted(one.reg_id for one in held) == [1, 2]
            async with handed_over(house, network):
                await established(house, phone)
            assert phone.log.read_text(errors="replace").count("Call established") == 1
            assert not house.events("trunk.way_failed")
        finally:
            await asyncio.to_thread(phone.end)
        await asyncio.to_thread(house.wait_for, "both leave", lambda: not bindings(house), HANGS_S)
