"""Kamailio and rtpengine stand between a caller and us, as at a carrier's border: the relay encrypts for one
side, or changes the codec; caller and gateway hear each other through it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from scipy.signal import resample_poly

from gateway.edge.grammar.sdes import SUITES
from tests.e2e.captures import HEARD, alike, sentence, spoken
from tests.e2e.gateway_process import House
from tests.e2e.rtpengine import rtpengine
from tests.e2e.sip_page import SipPage
from tests.e2e.test_behind_kamailio import before, browser_page, kinds, newest
from tests.gateway.edge.authority import Authority
from tests.gateway.line.rawphone import RawPhone
from tests.gateway.rtp.srtp_phone import SrtpPhone
from tests.needs import HANGS_S, need_sounds
from watermark import sound

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.prove,
    pytest.mark.long("a whole gateway, Kamailio and rtpengine, in real time"),
]

OURS, THEIRS = "agent-pass", "cannot-complete-as-dialed"
"""What we play, and what the caller says: people's voices."""
PLAN = """
[[route]]
name = "message"
called = ["message"]
[[route.do]]
verb = "answer"
[[route.do]]
verb = "play"
file = "prompts/ours.wav"
synthetic = false
text = "Please enter your password."
[[route.do]]
verb = "disclose"
principal = "Lindens"
language = "en"
[[route.do]]
verb = "record"
announce = "Please speak."
max_s = 8
beep = false
[[route.do]]
verb = "hangup"
"""


@dataclass(frozen=True)
class Case:
    """A way through the relay."""

    phone: type[RawPhone]
    towards_us: str
    codec: str = "PCMU"
    """what we speak"""
    transport: str = "udp"
    srtp: str | None = None
    """the suite that we speak"""
    anew: bool = False
    """a hold, and its end, each have other keys"""


USUAL = "replace-origin ICE=remove"


def only(suite: str) -> str:
    """Words that have rtpengine offer that suite alone."""
    return " ".join(f"SDES-no-{one}" for one in SUITES if one != suite)


CASES = {
    "clear": Case(RawPhone, f"RTP/AVP {USUAL}"),
    "srtp-to-clear": Case(SrtpPhone, f"RTP/AVP {USUAL}"),
    "clear-to-srtp": Case(
        RawPhone,
        f"RTP/SAVP DTLS=off {only('AES_CM_128_HMAC_SHA1_80')} {USUAL}",
        transport="tls",
        srtp="AES_CM_128_HMAC_SHA1_80",
    ),
    "clear-to-gcm": Case(
        RawPhone,
        f"RTP/SAVP DTLS=off {USUAL}",
        transport="tls",
        srtp="AEAD_AES_256_GCM",
    ),
    "gcm-128": Case(
        RawPhone,
        f"RTP/SAVP DTLS=off {only('AEAD_AES_128_GCM')} {USUAL}",
        transport="tls",
        srtp="AEAD_AES_128_GCM",
    ),
    "gcm-rekeyed": Case(
        RawPhone, f"RTP/SAVP DTLS=off {USUAL}", transport="tls", srtp="AEAD_AES_256_GCM", anew=True
    ),
    "pcmu-to-g729": Case(RawPhone, f"RTP/AVP codec-mask-PCMU codec-transcode-G729 {USUAL}", "G729"),
}


def narrow(path: Path) -> bytes:
    """A recording at 8 kHz, int16."""
    kept = sound.read(path)
    low = resample_poly(kept.channels[0], 8000, kept.rate_hz)
    return (low * 32767).clip(-32768, 32767).astype("<i2").tobytes()


@pytest.mark.parametrize("name", CASES)
async def test_each_hears_the_other_through_it(tmp_path: Path, name: str) -> None:
    case = CASES[name]
    said = spoken(need_sounds() / f"{THEIRS}.wav")
    played = need_sounds() / f"{OURS}.wav"
    settings: dict[str, Any] = {}
    if case.srtp:
        chain, key = Authority(tmp_path / "ca").sign("127.0.0.1")
        settings = {"tls_certificate": chain, "tls_key": key, "sip_srtp": "required"}
    house = House(tmp_path / "house", wide_calls=0, web_lines=0, sip_auth="off", **settings)
    house.folder.mkdir()
    house.plan(PLAN)
    prompts = house.folder / "data" / "dialplans" / "prompts"
    prompts.mkdir()
    (prompts / "ours.wav").write_bytes(played.read_bytes())
    await asyncio.to_thread(house.start)
    try:
        with (
            rtpengine(tmp_path) as relay,
            before(
                house,
                tmp_path / "edge",
                case.transport,
                rtpengine_port=relay,
                towards_us=case.towards_us,
                anew=case.anew,
            ) as edge,
        ):
            phone = await case.phone(("127.0.0.1", edge.port), dials="message").open()
            try:
                phone.invite("")
                answer = await phone.final(timeout_s=HANGS_S)
                assert answer.status == 200, answer.start
                routes = [f"Route: {one}\r\n" for one in reversed(answer.headers["record-route"].split(","))]
                phone.target = answer.headers["contact"].strip("<>")
                phone.send("ACK", "", "".join(routes), same=True)
                phone.talk(sentence(said))
                for direction in ("sendonly", "sendrecv") if case.anew else ():
                    if direction == "sendonly":
                        await phone.hears(1.0, HANGS_S)
                    phone.send("INVITE", phone.offer(direction), "".join(routes))
                    assert (await phone.final(timeout_s=HANGS_S)).status == 200
                    phone.send("ACK", "", "".join(routes), same=True)
                if case.anew:
                    del phone.pcm[:]
                    await phone.hears(1.0, HANGS_S)
                await phone.request("BYE", HANGS_S)
            finally:
                phone.close()
            await asyncio.to_thread(house.wait_for, "its end", lambda: house.events("call.ended"), HANGS_S)
    finally:
        await asyncio.to_thread(house.stop)
    begun = (tmp_path / "rtpengine.log").read_text().count("Creating new call")
    assert begun == (3 if case.anew else 1)
    assert not house.events("srtp.refused")
    (confirmed,) = [event for event in house.events("call.confirmed") if "codec" in event]
    assert (confirmed["codec"], confirmed["srtp"]) == (case.codec, case.srtp)
    (kept,) = (house.folder / "data").glob("recordings/*/*.wav")
    ours, theirs = alike(bytes(phone.pcm), spoken(played)), alike(narrow(kept), said)
    print(f"{name}: {confirmed['codec']}, {confirmed['srtp']}: heard {ours:.2f} by them, {theirs:.2f} by us")
    assert min(ours, theirs) > HEARD


async def test_a_browser_is_a_telephone_to_us(tmp_path: Path) -> None:
    """DTLS-SRTP and ICE end at the relay; a line for telephones has the call."""
    house = House(tmp_path / "house", sip_auth="off")
    house.folder.mkdir()
    await asyncio.to_thread(house.start)
    try:
        with (
            rtpengine(tmp_path) as relay,
            before(
                house,
                tmp_path / "edge",
                rtpengine_port=relay,
                towards_us=f"RTP/AVP rtcp-mux-demux {USUAL}",
            ) as edge,
        ):
            async with asyncio.timeout(HANGS_S), browser_page() as page:
                phone = await SipPage.open(page, house, "jssip", socket=f"wss://127.0.0.1:{edge.tls_port}/")
                await phone.do("call", "sip:demo@127.0.0.1")
                await phone.until("phone.confirmed")
                await phone.until_louder()
                call_id = newest(house)["call_id"]
                await phone.do("event", "6")
                await asyncio.to_thread(
                    house.wait_for, "a key", lambda: kinds(house, call_id, "dtmf"), HANGS_S
                )
                await phone.do("hold")
                await asyncio.to_thread(
                    house.wait_for, "hold", lambda: kinds(house, call_id, "hold"), HANGS_S
                )
                heard = await phone.do("heard")
                await phone.do("resume")
                await phone.until_louder(heard["energy"])
                await phone.do("hangUp")
            await asyncio.to_thread(house.wait_for, "its end", lambda: house.events("call.ended"), HANGS_S)
    finally:
        await asyncio.to_thread(house.stop)
    (confirmed,) = [event for event in house.events("call.confirmed") if "codec" in event]
    assert (confirmed["process"], confirmed["srtp"]) == ("sip0", None)
    print(confirmed)
