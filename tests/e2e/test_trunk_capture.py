"""A trunk that requires SRTP: what leaves us for it is captured, and nothing of it can be read or heard.

The trunk is a real Kamailio, at an address of its own, with the telephone that answers behind it.
"""

from __future__ import annotations

import asyncio
import base64
import os
import re
from pathlib import Path

import numpy as np
import pytest
from pylibsrtp import Policy

from tests.e2e.captures import (
    HEARD,
    Seen,
    alike,
    as_g711,
    captured,
    comes_to_hear,
    entropy,
    is_tls,
    sentence,
    spoken,
)
from tests.e2e.gateway_process import House
from tests.e2e.kamailio import OFFICE, PASSWORD, kamailio
from tests.e2e.test_trunks import certificate, told, trunk
from tests.gateway.line.rawphone import RawPhone
from tests.gateway.rtp.srtp_phone import CRYPTO, SrtpPhone, session
from tests.needs import HANGS_S, need_sounds

pytestmark = [pytest.mark.e2e, pytest.mark.prove, pytest.mark.long("a whole gateway, and Kamailio")]

HERE, THERE = "127.0.0.1", f"127.77.{os.getpid() >> 8 & 0xFF}.{os.getpid() & 0xFF}"
"""The gateway and its caller; the trunk, at an address that no test beside this one has."""
PLAN = f"""
[targets]
office = "trunk:carrier/{OFFICE}"

[[route]]
name = "put-through"
called = ["through"]
do = [ {{ verb = "answer" }}, {{ verb = "transfer", target = "office" }}, {{ verb = "hangup" }} ]
"""
SENTENCES = ("cannot-complete-as-dialed", "conf-adminmenu-162")
"""What the two ends say: people's voices."""
WORDS = (b"SIP/2.0", b"INVITE", b"inline:", b"m=audio", OFFICE.encode(), b"carrier", PASSWORD.encode())
"""What nobody but the trunk may read."""
ENCRYPTED_BITS, CLEAR_BITS = 7.9, 7.85
NOT_HEARD = 0.2
"""How much of a sentence is found again (`alike`): in the clear .9 and more, in noise .07."""


async def answers(phone: RawPhone) -> None:
    """The telephone behind Kamailio takes the call; with its own keys where it has some."""
    invite = await phone.request("INVITE", HANGS_S)
    port = re.search(r"m=audio (\d+)", invite.body)
    assert port is not None
    phone.media = (HERE, int(port[1]))
    if isinstance(phone, SrtpPhone):
        assert "RTP/SAVP " in invite.body
        offered = {suite: (int(tag), key) for tag, suite, key in CRYPTO.findall(invite.body)}
        phone.number, key = offered[phone.suite]
        phone.opening = session(phone.suite, base64.b64decode(key), Policy.SSRC_ANY_INBOUND)
        phone.adopt()
    routes = f"Record-Route: {invite.headers['record-route']}\r\n"
    phone.answer(invite, body=phone.offer(), headers=routes)
    await phone.request("ACK", HANGS_S)


async def call(folder: Path, *, encrypted: bool) -> tuple[Seen, tuple[np.ndarray, np.ndarray], int]:
    """What passed between us and the trunk in a call whose two ends heard each other; what the caller and the
    other said; and the trunk's port."""
    said = tuple(
        spoken(need_sounds() / f"{name}.wav") for name in ("cannot-complete-as-dialed", "conf-adminmenu-162")
    )
    answering = await (SrtpPhone(host=THERE) if encrypted else RawPhone(host=THERE)).open()
    house = House(folder / "house")
    house.folder.mkdir()
    caller = RawPhone((HERE, house.sip_port), dials="through")
    try:
        with (
            certificate(folder, THERE) as chain,
            kamailio(folder, answering.sip_port, algorithm="SHA-256", chain=chain, host=THERE) as ports,
        ):
            house.environ["VOICEGATE_TLS_TRUST"] = str(chain)
            port = ports.tls if encrypted else ports.plain
            transport, rule = ("tls", "required") if encrypted else ("udp", "off")
            trunk(house.folder, port, transport=transport, host=THERE, more=f'srtp = "{rule}"\n')
            house.plan(PLAN)
            with captured(folder / "trunk.pcapng", f"host {HERE} and host {THERE}"):
                await asyncio.to_thread(house.start)
                await told(house, "trunk.up")
                await caller.open()
                caller.invite("")
                taken = await caller.final(timeout_s=HANGS_S)
                assert taken.status == 200, taken.start
                caller.send("ACK", "", f"Route: {taken.headers['record-route']}\r\n", same=True)
                await answers(answering)
                caller.talk(sentence(said[0]))
                answering.talk(sentence(said[1]))
                await comes_to_hear(caller, said[1])
                await comes_to_hear(answering, said[0])
                async with asyncio.timeout(HANGS_S):
                    while not answering.reports:
                        await answering.hears(0.2, HANGS_S)
                await caller.hang_up()
                await answering.request("BYE", HANGS_S)
                await asyncio.to_thread(house.stop)
    finally:
        caller.close()
        answering.close()
        await asyncio.to_thread(house.stop)
    return await asyncio.to_thread(Seen.read, folder / "trunk.pcapng"), (said[0], said[1]), port


async def test_of_a_trunk_that_wants_srtp_nothing_leaves_in_the_clear(tmp_path: Path) -> None:
    seen, said, port = await call(tmp_path, encrypted=True)
    everything = seen.everything()
    assert [word for word in WORDS if word in everything] == []
    assert seen.streams
    for way, stream in seen.streams.items():
        assert f"{THERE}:{port}" in way
        assert is_tls(stream), way
    sounds = seen.sounds()
    assert {source.partition(":")[0] for source, _ in sounds} == {HERE, THERE}
    for way, sound in sounds.items():
        found = max(alike(as_g711(sound), each) for each in said)
        print(f"{way}: {len(sound) // 160} packets, {entropy(sound):.2f} bits a byte, alike {found:.2f}")
        assert entropy(sound) > ENCRYPTED_BITS
        assert found < NOT_HEARD
    reports = [data for data in seen.packets() if len(data) > 8 and data[1] in (200, 201)]
    assert reports
    assert all(data[-14] & 0x80 for data in reports), "encrypted (RFC 3711 §3.4)"
    others = [data for data in seen.packets() if data not in reports and data[0] != 0x80]
    assert others == []


async def test_the_same_trunk_in_the_clear_is_read_and_heard(tmp_path: Path) -> None:
    """Else the test above would prove nothing."""
    seen, said, _ = await call(tmp_path, encrypted=False)
    everything = seen.everything()
    assert [word for word in WORDS if word not in everything] == [b"inline:", b"carrier", PASSWORD.encode()]
    for (source, target), sound in seen.sounds().items():
        found = alike(as_g711(sound), said[source.startswith(THERE)])
        print(f"{source} > {target}: {entropy(sound):.2f} bits a byte, alike {found:.2f}")
        assert entropy(sound) < CLEAR_BITS
        assert found > HEARD
