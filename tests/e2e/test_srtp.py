"""Encrypted calls to a whole gateway, by telephones that are not ours; and nobody else has their keys."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.captures import captured, sound_bits
from tests.e2e.conftest import loudness
from tests.e2e.gateway_process import House
from tests.e2e.test_baresip import dial, heard_s, network, softphone  # noqa: F401  # a fixture among them
from tests.e2e.test_linphone import HEARD_S, Linphone
from tests.gateway.edge.authority import Authority
from tests.gateway.edge.peers import TlsCaller
from tests.gateway.line.line_harness import tone
from tests.gateway.rtp.srtp_phone import SrtpPhone
from tests.needs import HANGS_S

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.prove,
    pytest.mark.long("whole gateways, called in real time by programs that start slowly"),
]
ENCRYPTED_BITS = 7.9
"""Bits a byte, of 8."""
CLEAR_BITS = 7.4
"""More is not said in the clear."""


@contextmanager
def encrypting(folder: Path, name: str, **settings: Any) -> Iterator[tuple[House, Authority]]:
    """A house with a certificate for that name, and who signed it."""
    authority = Authority(folder / "ca")
    chain, key = authority.sign(name)
    usual = {"tls_certificate": chain, "tls_key": key, "wide_calls": 0, "web_lines": 0, "sip_auth": "off"}
    house = House(folder / "house", **{**usual, **settings})
    house.folder.mkdir()
    house.start()
    try:
        yield house, authority
    finally:
        house.stop()


def suite_of(house: House) -> str | None:
    """What its line says of its one call."""
    (suite,) = [event["srtp"] for event in house.events("call.confirmed") if "srtp" in event]
    return suite


def test_baresip_over_tls_with_srtp(network: str, tmp_path: Path) -> None:  # noqa: F811
    with encrypting(tmp_path, network, host="0.0.0.0", sip_srtp="required") as (house, authority):
        over_tls = f"sip:demo@{network}:{house.sip_tls_port};transport=tls"
        phone = softphone(tmp_path / "tls", password="x", trusts=authority.ca, encrypts="srtp-mand")
        with captured(tmp_path / "tls.pcap"):
            log = dial(phone, over_tls, 6)
        assert "Call established" in log, log
        house.wait_for("its end", lambda: len(house.events("call.ended")) == 1)
        assert heard_s(phone) > 2
        suite = suite_of(house)
        assert suite
        # baresip opens the way with pings by RTCP, in the clear: they are not believed
        assert sum(event["packets"] for event in house.events("srtp.refused")) <= 5
        packets, bits = sound_bits(tmp_path / "tls.pcap")
        print(f"encrypted: {packets} packets, {bits:.2f} bits a byte, {suite}")
        assert packets > 200
        assert bits > ENCRYPTED_BITS
        plain = softphone(tmp_path / "plain", password="x", trusts=authority.ca)
        keys = softphone(tmp_path / "keys", password="x", encrypts="srtp-mand")
        for one, where in ((plain, over_tls), (keys, f"sip:demo@{network}:{house.sip_port}")):
            log = dial(one, where, 3)
            assert "488" in log, log
            assert "Call established" not in log


def test_the_same_in_the_clear_is_seen_to_be(network: str, tmp_path: Path) -> None:  # noqa: F811
    with encrypting(tmp_path, network, host="0.0.0.0") as (house, authority):
        plain = softphone(tmp_path / "plain", password="x", trusts=authority.ca)
        with captured(tmp_path / "clear.pcap"):
            assert "Call established" in dial(plain, f"sip:demo@{network}:{house.sip_port}", 6)
        packets, bits = sound_bits(tmp_path / "clear.pcap")
        print(f"in the clear: {packets} packets, {bits:.2f} bits a byte")
        assert packets > 200
        assert bits < CLEAR_BITS


@pytest.mark.parametrize(
    "suite", ["AES_CM_128_HMAC_SHA1_80", "AES_CM_128_HMAC_SHA1_32", "AES_256_CM_HMAC_SHA1_80"]
)
def test_linphonec_over_tls_with_srtp(tmp_path: Path, suite: str) -> None:
    heard = tmp_path / "heard.wav"
    with encrypting(tmp_path, "localhost", sip_srtp="required") as (house, authority):
        wants = f"media_encryption=srtp\nmedia_encryption_mandatory=1\nsrtp_crypto_suites={suite}\n"
        phone = Linphone(tmp_path / "home", f"root_ca={authority.ca}\n{wants}", -1)
        try:
            called = f"sip:demo@localhost:{house.sip_tls_port};transport=tls"
            for line in ("ipv6 disable", "soundcard use files", f"record {heard}", f"call {called}"):
                phone.type(line)
            house.wait_for(
                "its media", lambda: "Media streams established" in phone.log or " error." in phone.log
            )
            assert "Media streams established" in phone.log, phone.log
            whole = HEARD_S * 16_000
            house.wait_for("its recording", lambda: heard.exists() and heard.stat().st_size > whole, 20.0)
            phone.type("terminate")
            house.wait_for("its end", lambda: "ended (No error)" in phone.log)
            assert suite_of(house) == suite
        finally:
            phone.close()
    assert (loudness(heard) > 0.01).sum() * 0.02 > 0.5 * HEARD_S, "the disclosure"


@pytest.mark.asyncio
async def test_no_key_is_kept_anywhere(tmp_path: Path) -> None:
    """Of a call that changes its keys and is offered nonsense: logs (debug), Redis, SQL, files, API."""
    begun = encrypting(tmp_path, "gate.example", log_level="debug")
    house, authority = await asyncio.to_thread(begun.__enter__)
    caller, phone = TlsCaller(house.sip_tls_port, authority.trusted()), await SrtpPhone().open()
    keys = [phone.key]
    try:
        await caller.open()
        caller.send("INVITE", phone.offer())
        answer = await caller.next(200, "INVITE", HANGS_S)
        caller.learn(answer)
        phone.media = ("127.0.0.1", int(answer.body.partition("m=audio ")[2].split()[0]))
        phone.learn(answer.body)
        keys.append(phone.theirs)
        caller.send("ACK")
        phone.talk(tone(440, rate_hz=8000))
        await phone.hears_loud(HANGS_S)
        for suite in ("", "AEAD_AES_256_GCM"):
            phone.rekey(suite)
            caller.send("INVITE", phone.offer())
            phone.learn((await caller.next(200, "INVITE", HANGS_S)).body)
            keys += [phone.key, phone.theirs]
            caller.send("ACK")
            await phone.hears_loud(HANGS_S)
        for wrong in (
            phone.offer().replace("SAVP 0", "SAVP 4"),
            phone.offer().replace("inline:", "inline:?"),
        ):
            caller.send("INVITE", wrong)
            refused = await caller.next(488, "INVITE", HANGS_S)
            assert not [key for key in keys if base64.b64encode(key).decode() in str(refused)]
            caller.send("ACK", branch=caller.branch)
        caller.send("BYE")
        await caller.next(200, "BYE", HANGS_S)
        await asyncio.to_thread(house.wait_for, "its end", lambda: house.events("call.ended"))
        (call,) = house.calls()
        course = str(house.get(f"/api/calls/{call['call_id']}/course"))
        assert course.count("(blanked)") > 8, "its SIP is shown, with all these keys in it"
        said = str(house.get(f"/api/calls/{call['call_id']}")) + str(house.get("/metrics")) + course
    finally:
        phone.close()
        caller.close()
        await asyncio.to_thread(begun.__exit__, None, None, None)
    assert "call.confirmed" in house.log_path.read_text()
    assert len(set(keys)) == 5, "ours stays while the suite does"
    files = {path: path.read_bytes() for path in house.folder.rglob("*") if path.is_file()}
    assert len(files) > 5
    for key in set(keys):
        for shown in (key, base64.b64encode(key), key.hex().encode(), repr(key)[2:-1].encode()):
            assert not [path for path, held in files.items() if shown[:24] in held]
            assert shown[:24].decode("latin-1") not in said
