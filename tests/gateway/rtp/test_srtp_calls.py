"""Calls whose sound is encrypted (RFC 3711, keys by RFC 4568): a telephone on pylibsrtp, and a real line."""

from __future__ import annotations

import base64
import re
import secrets
from pathlib import Path

import pytest

from gateway.config.certificate import Certificate
from gateway.ipc.line_messages import (
    AnswerCall,
    CallConfirmed,
    CallLeft,
    CallStarted,
    DialDigits,
    KeyPressed,
    MediaTurned,
)
from gateway.rtp.media.call_media import CallMedia
from tests.gateway.edge.authority import Authority
from tests.gateway.edge.peers import TlsCaller
from tests.gateway.line.line_harness import is_tone, tone
from tests.gateway.line.rawphone import RawPhone
from tests.gateway.rtp.rtp_exchange import RtpExchange
from tests.gateway.rtp.srtp_phone import CRYPTO, PROFILES, USUAL, SrtpPhone
from tests.gateway.rtp.test_edge_to_rtp_line import Door
from tests.needs import HANGS_S

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def hear_each_other(exchange: RtpExchange, phone: SrtpPhone, number: int) -> None:
    exchange.hall.sounds[number] = tone(600, rate_hz=8000)
    phone.talk(tone(440, rate_hz=8000))
    assert is_tone(await phone.hears(0.2, HANGS_S), 600, 8000)
    await exchange.hall.hears_bytes(number, 1600, HANGS_S)
    assert is_tone(await exchange.hall.hears_bytes(number, 3200, HANGS_S), 440, 8000)


def media_of(exchange: RtpExchange) -> CallMedia:
    """Of the one call that there is."""
    (media,) = exchange.rtp_lines["n0"]._pass.calls.values()
    return media


async def up(exchange: RtpExchange, phone: SrtpPhone) -> int:
    """A call in which both hear each other; its number."""
    phone.rule = "optional" if phone.rule == "off" else phone.rule
    started = await exchange.answers(await exchange.plugged(phone))
    await hear_each_other(exchange, phone, started.call)
    return started.call


@pytest.mark.parametrize(
    ("proto", "rule"), [("RTP/SAVP", "required"), ("RTP/SAVPF", "optional"), ("RTP/AVP", "optional")]
)
async def test_both_hear_each_other_and_nothing_goes_in_the_clear(
    exchange: RtpExchange, proto: str, rule: str
) -> None:
    phone = SrtpPhone(proto=proto, rule=rule, number=7)
    await up(exchange, phone)
    assert phone.refused == 0
    assert phone.packets > 10
    assert not [one for one in phone.raw if len(one) != 12 + 160 + 10], "header, sound, tag"


@pytest.mark.parametrize(
    "suite",
    [suite if "256" in suite else pytest.param(suite, marks=pytest.mark.prove) for suite in PROFILES],
)
async def test_each_suite_is_spoken(exchange: RtpExchange, suite: str) -> None:
    phone = SrtpPhone(suite=suite)
    await up(exchange, phone)
    assert phone.refused == 0


async def test_of_several_suites_the_first_that_we_have_is_taken(exchange: RtpExchange) -> None:
    phone = await exchange.plugged(SrtpPhone(rule="optional", number=3))
    unknown = "a=crypto:1 F8_128_HMAC_SHA1_80 inline:" + base64.b64encode(bytes(30)).decode()
    mki = phone.crypto().replace("crypto:3", "crypto:2").replace("\r\n", "|2^20|1:4\r\n")
    last = phone.crypto().replace("crypto:3", "crypto:4")
    phone.send(
        "INVITE",
        phone.offer().replace(phone.crypto(), f"{unknown}\r\n{mki}{phone.crypto()}{last}"),
        phone.signed(),
    )
    started = await exchange.hall.hears(CallStarted, phone.call_id)
    await exchange.hall.ask(AnswerCall(phone.call_id))
    assert CRYPTO.findall((await phone.final()).body)[0][:2] == ("3", USUAL)
    phone.acknowledge()
    await hear_each_other(exchange, phone, started.call)


async def test_each_call_has_a_key_of_its_own(exchange: RtpExchange) -> None:
    keys = set()
    for _ in range(3):
        phone = await exchange.plugged(SrtpPhone(rule="optional"))
        await exchange.answers(phone)
        keys |= {phone.theirs, phone.key}
    assert len(keys) == 6


@pytest.mark.parametrize(
    ("rule", "proto", "crypto", "status"),
    [
        ("required", "RTP/AVP", False, 488),
        ("required", "RTP/SAVP", False, 488),
        ("optional", "RTP/SAVP", False, 488),
        ("off", "RTP/SAVP", True, 488),
        ("required", "UDP/TLS/RTP/SAVPF", True, 488),
        ("optional", "UDP/TLS/RTP/SAVPF", True, 488),
        ("optional", "RTP/AVP", False, 200),
        ("off", "RTP/AVP", True, 200),
    ],
)
async def test_what_a_line_answers_is_as_the_edge_wants_it(
    exchange: RtpExchange, rule: str, proto: str, crypto: bool, status: int
) -> None:
    phone = await exchange.plugged(RawPhone(rule=rule))
    key = base64.b64encode(secrets.token_bytes(30)).decode()
    body = phone.offer().replace("RTP/AVP", proto) + (
        f"a=crypto:1 {USUAL} inline:{key}\r\n" if crypto else ""
    )
    phone.send("INVITE", body, phone.signed())
    if status == 200:
        await exchange.hall.hears(CallStarted, phone.call_id)
        await exchange.hall.ask(AnswerCall(phone.call_id))
    answer = await phone.final()
    phone.acknowledge()
    assert answer.status == status
    if status == 200:
        assert "crypto" not in answer.body
        await exchange.hall.hears(CallConfirmed, phone.call_id)
    else:
        assert answer.headers["reason"].startswith('SIP;cause=488;text="no audio section of ')


async def test_a_rule_that_the_edge_did_not_sign_opens_nothing(exchange: RtpExchange) -> None:
    phone = await exchange.plugged(SrtpPhone(rule="required"))
    phone.invite(phone.signed().replace("X-VG-SRTP: required", "X-VG-SRTP: optional"))
    assert (await phone.final()).status == 403


async def test_a_changed_packet_is_not_heard_and_a_replayed_one_neither(exchange: RtpExchange) -> None:
    phone = SrtpPhone()
    number = await up(exchange, phone)
    media = media_of(exchange)
    assert media.srtp is not None
    phone.hush()
    await exchange.hall.hears_ticks(number, 20)
    before, refused = media.receiver.received, media.srtp.refused
    for at in (1, 8, 20, -1):  # kind, SSRC, sound, tag
        phone.send_rtp(bytes(160))
        whole = bytearray(phone.sealed[-1])
        whole[at] ^= 1
        phone.send_raw(bytes(whole))
    again = phone.sealed[-20:]
    for one in again:
        phone.send_raw(one)
    await exchange.hall.hears_ticks(number, 10)
    assert media.receiver.received == before + 4
    assert media.srtp.refused == refused + 4 + len(again)
    assert media.receiver.duplicates == 0


async def test_a_packet_in_the_clear_is_not_heard(exchange: RtpExchange) -> None:
    phone = SrtpPhone()
    number = await up(exchange, phone)
    media = media_of(exchange)
    phone.hush()
    await exchange.hall.hears_ticks(number, 20)
    before = media.receiver.received
    for clear in phone.clear[-10:]:
        phone.send_raw(clear)
    await exchange.hall.hears_ticks(number, 10)
    assert media.receiver.received == before


async def test_who_cannot_authenticate_moves_no_sound(exchange: RtpExchange) -> None:
    """Neither a stranger nor who sends copies from elsewhere; the caller itself may move."""
    phone = SrtpPhone()
    number = await up(exchange, phone)
    media = media_of(exchange)
    phone.hush()
    phone.media, there = phone.media, media.latch.to
    eve = await exchange.plugged(RawPhone())
    eve.media = phone.media
    await exchange.hall.hears_ticks(number, 60)  # whom nothing is heard of may be replaced
    for n in range(10):
        eve.send_packet(phone.sealed[-15 + n])
        eve.send_rtp(bytes(160))
    await exchange.hall.hears_ticks(number, 10)
    assert media.latch.to == there
    assert media.latch.strangers == 0
    await phone.move()
    phone.talk(tone(440, rate_hz=8000))
    await exchange.hall.hears_bytes(number, 1600, HANGS_S)
    assert media.latch.to == ("127.0.0.1", phone.rtp_port)


async def test_a_new_stream_is_heard_and_the_numbers_may_go_round(exchange: RtpExchange) -> None:
    phone = SrtpPhone()
    number = await up(exchange, phone)
    phone.hush()
    phone.ssrc, phone.sequence = phone.ssrc ^ 1, 65_500
    phone.talk(tone(440, rate_hz=8000))
    media = media_of(exchange)
    await exchange.hall.hears_ticks(number, 70)
    assert phone.sequence > 65_536
    assert media.srtp is not None
    assert media.srtp.refused == 0
    assert is_tone(await exchange.hall.hears_bytes(number, 6400, HANGS_S), 440, 8000)


@pytest.mark.parametrize("suite", [USUAL, "AEAD_AES_256_GCM"])
async def test_a_change_of_keys_loses_nothing_either_way(exchange: RtpExchange, suite: str) -> None:
    """What the caller had sealed with its old key is opened, and we go on with ours. Where the suite changes
    we need another one, and what overtakes our answer cannot be opened by anybody."""
    phone = SrtpPhone()
    number = await up(exchange, phone)
    media = media_of(exchange)
    assert media.srtp is not None
    for _ in range(2):
        ours = phone.theirs
        phone.rekey(suite)
        phone.send("INVITE", phone.offer())
        assert (await phone.final()).status == 200
        phone.acknowledge()
        assert (phone.theirs == ours) == (len(ours) == len(phone.theirs))
        await hear_each_other(exchange, phone, number)
    assert media.srtp.refused == 0
    if suite == USUAL:
        assert phone.refused == 0


async def test_a_hold_and_its_end_keep_the_keys(exchange: RtpExchange) -> None:
    phone = SrtpPhone()
    number = await up(exchange, phone)
    ours = phone.theirs
    for direction in ("sendonly", "inactive", "sendrecv"):
        assert (await phone.turn(direction)).status == 200
        await exchange.hall.hears(MediaTurned, phone.call_id)
    assert phone.theirs == ours
    await hear_each_other(exchange, phone, number)
    assert phone.refused == 0


async def test_what_must_be_encrypted_is_not_turned_into_the_clear(exchange: RtpExchange) -> None:
    phone = SrtpPhone(rule="required")
    number = await up(exchange, phone)
    phone.send("INVITE", RawPhone.offer(phone))
    assert (await phone.final()).status == 488
    phone.acknowledge()
    await hear_each_other(exchange, phone, number)


async def test_a_caller_without_an_offer_gets_keys_and_answers_with_its_own(exchange: RtpExchange) -> None:
    for rule, proto in (("required", "RTP/SAVP"), ("optional", "RTP/AVP")):
        phone = await exchange.plugged(SrtpPhone(rule=rule, proto=proto))
        phone.invite(offers=False)
        started = await exchange.hall.hears(CallStarted, phone.call_id)
        await exchange.hall.ask(AnswerCall(phone.call_id))
        offer = await RawPhone.final(phone)
        assert f" {proto} " in offer.body
        offered = CRYPTO.findall(offer.body)
        assert len({key for _, _, key in offered}) == len(offered) == 6
        number, suite, key = next(one for one in offered if one[1] == USUAL)
        phone.number = int(number)
        phone.learn(f"a=crypto:{number} {suite} inline:{key}\r\n")
        phone.acknowledge(phone.offer())
        await exchange.hall.hears(CallConfirmed, phone.call_id)
        await hear_each_other(exchange, phone, started.call)


async def test_an_answer_with_a_key_for_what_was_not_offered_ends_the_call(exchange: RtpExchange) -> None:
    for change in ((":1 ", ":9 "), (USUAL, "AES_CM_128_HMAC_SHA1_32"), ("a=crypto", "a=x-crypto")):
        phone = await exchange.plugged(SrtpPhone(rule="required"))
        phone.invite(offers=False)
        await exchange.hall.hears(CallStarted, phone.call_id)
        await exchange.hall.ask(AnswerCall(phone.call_id))
        offer = await RawPhone.final(phone)
        phone.number = int(next(n for n, suite, _ in CRYPTO.findall(offer.body) if suite == USUAL))
        answer = phone.offer().replace(f":{phone.number} ", ":1 ").replace(*change)
        phone.acknowledge(answer if change[0] != USUAL else answer.replace(":1 ", f":{phone.number} "))
        left = await exchange.hall.hears(CallLeft, phone.call_id)
        assert left.how.startswith("failed: ")


@pytest.mark.parametrize("mux", [False, True])
async def test_reports_are_sealed_and_those_of_the_caller_are_believed(
    exchange: RtpExchange, mux: bool
) -> None:
    phone = await exchange.plugged(SrtpPhone(rule="optional"))
    offer = phone.offer() + ("a=rtcp-mux\r\n" if mux else "")
    phone.send("INVITE", offer, phone.signed())
    started = await exchange.hall.hears(CallStarted, phone.call_id)
    await exchange.hall.ask(AnswerCall(phone.call_id))
    assert ("a=rtcp-mux" in (await phone.final()).body) == mux
    phone.acknowledge()
    await hear_each_other(exchange, phone, started.call)
    media = media_of(exchange)
    report = b"\x81\xc9\x00\x07" + phone.ssrc.to_bytes(4, "big") + media.sender.ssrc.to_bytes(4, "big")
    report += bytes(20)
    if mux:
        phone.send_raw(report)
        phone.send_raw(phone.sealing.protect_rtcp(report))
    else:
        RawPhone.send_rtcp(phone, report)
        phone.send_rtcp(report)
    await exchange.hall.hears_ticks(started.call, 5)
    assert media.rtcp.reports == 1
    assert media.rtcp.told is not None
    quality = media.quality("c", last=True)
    assert quality is not None
    assert quality.far is not None
    assert quality.srtp == USUAL
    media.report(0, bye=True)
    if mux:
        phone._rtp_came = phone._rtcp_came  # type: ignore[method-assign]
    await phone._until(lambda: bool(phone.reports) or mux, HANGS_S)


async def test_keys_are_pressed_both_ways(exchange: RtpExchange) -> None:
    phone = SrtpPhone()
    await up(exchange, phone)
    phone.press("5")
    assert (await exchange.hall.hears(KeyPressed, phone.call_id)).digit == "5"
    await exchange.hall.ask(DialDigits(phone.call_id, "1#"))
    assert await phone.hears_keys(2) == "1#"


async def over_tls(exchange: RtpExchange, caller: TlsCaller, phone: SrtpPhone) -> int:
    """A call whose SIP goes by the edge; its number."""
    caller.send("INVITE", phone.offer())
    started = await exchange.hall.hears(CallStarted, within_s=HANGS_S)
    await exchange.hall.ask(AnswerCall(started.call_id))
    answer = await caller.next(200, "INVITE", HANGS_S)
    assert f" {phone.proto} " in answer.body
    caller.learn(answer)
    media = re.search(r"m=audio (\d+)", answer.body)
    assert media is not None
    phone.media = ("127.0.0.1", int(media[1]))
    phone.learn(answer.body)
    caller.send("ACK")
    await exchange.hall.hears(CallConfirmed, started.call_id, HANGS_S)
    return started.call


async def test_a_call_over_tls_is_encrypted_as_it_offers_and_changes_keys(
    exchange: RtpExchange, tmp_path: Path
) -> None:
    """By the edge, whose rule is the house's default."""
    authority = Authority(tmp_path)
    tls = Certificate(*authority.sign("gate.example")).serving()
    async with Door.opened(exchange, tls=tls) as door:
        caller = await TlsCaller(door.edge.tls_port, authority.trusted()).open()
        phone = await SrtpPhone().open()
        try:
            number = await over_tls(exchange, caller, phone)
            await hear_each_other(exchange, phone, number)
            phone.rekey()
            caller.send("INVITE", phone.offer())
            phone.learn((await caller.next(200, "INVITE", HANGS_S)).body)
            caller.send("ACK")
            await hear_each_other(exchange, phone, number)
            assert phone.refused == 0
        finally:
            phone.close()
            caller.close()


async def test_sip_without_encryption_is_what_it_was(exchange: RtpExchange) -> None:
    phone, started = await exchange.call()
    exchange.hall.sounds[started.call] = tone(600, rate_hz=8000)
    assert is_tone(await phone.hears(0.4, HANGS_S), 600, 8000)
    assert not re.search("crypto", phone.offer())
