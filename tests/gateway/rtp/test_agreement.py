"""Offers that callers write, and what is agreed on."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from gateway.edge.grammar import sdp
from gateway.edge.grammar.sdes import SUITES, CryptoLine, SrtpRule, crypto_lines
from gateway.rtp.agreement import Agreement, Describer
from gateway.rtp.described_audio import CodecName, NoAgreement

NARROW: list[CodecName] = ["PCMU", "PCMA"]
WIDE: list[CodecName] = ["G722", "PCMU", "PCMA"]
SESSION = "v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\n"


def describer(codecs: list[CodecName] | None = None) -> Describer:
    return Describer("127.0.0.1", 30_000, codecs or NARROW, 42)


def answered(media: str, codecs: list[CodecName] | None = None) -> tuple[str, Agreement]:
    return describer(codecs).answer(SESSION + media.replace("\n", "\r\n"))


AUDIO = "m=audio 4000 RTP/AVP 8 0 101\na=rtpmap:101 telephone-event/8000\n"


def test_the_callers_first_codec_that_we_have_is_taken() -> None:
    text, agreed = answered(AUDIO)
    assert (agreed.codec, agreed.sent_as, agreed.rate_hz) == ("PCMA", 8, 8_000)
    assert agreed.peer == ("192.0.2.1", 4000)
    assert agreed.peer_rtcp == ("192.0.2.1", 4001)
    assert "m=audio 30000 RTP/AVP 8 101\r\n" in text
    assert (agreed.event, agreed.takes_events) == (101, frozenset({101}))
    assert (agreed.sending, agreed.receiving) == (True, True)
    assert "a=ptime" not in text


def test_a_wide_line_takes_g722_and_its_clock() -> None:
    _, agreed = answered("m=audio 4000 RTP/AVP 9 0\n", WIDE)
    assert (agreed.codec, agreed.rate_hz) == ("G722", 16_000)
    assert dict(agreed.takes) == {9: "G722"}


OPUS = "m=audio 4000 RTP/AVP 111 9 0 101 102\na=rtpmap:111 opus/48000/2\n"
KEYS = "a=rtpmap:101 telephone-event/8000\na=rtpmap:102 telephone-event/48000\n"


def test_opus_is_taken_where_it_comes_first_and_at_its_own_clock() -> None:
    text, agreed = answered(OPUS + KEYS, ["OPUS", "G722", "PCMU", "PCMA"])
    assert (agreed.codec, agreed.sent_as, agreed.rate_hz, agreed.clock_hz) == ("OPUS", 111, 16_000, 48_000)
    assert "m=audio 30000 RTP/AVP 111 102\r\n" in text
    assert "a=rtpmap:111 opus/48000/2\r\n" in text, "RFC 7587 §7: always two channels"
    assert "a=fmtp:111 useinbandfec=1;maxplaybackrate=16000;sprop-maxcapturerate=16000\r\n" in text
    assert "a=rtpmap:102 telephone-event/48000\r\n" in text, "RFC 4733 §2.1: keys at the sound's clock"
    assert (agreed.event, agreed.event_hz) == (102, 48_000)
    assert dict(agreed.takes) == {111: "OPUS"}, "G.722 beside it has another clock"
    text, agreed = answered(OPUS + KEYS.partition("a=rtpmap:102")[0], ["OPUS", "PCMU"])
    assert (agreed.event, agreed.event_hz) == (101, 8_000)
    assert "a=rtpmap:101 telephone-event/8000\r\n" in text


def test_keys_of_another_clock_than_the_codec_s_are_not_taken_where_there_are_better() -> None:
    _, agreed = answered("m=audio 4000 RTP/AVP 0 102 101\n" + KEYS)
    assert (agreed.event, agreed.event_hz) == (101, 8_000)


@pytest.mark.parametrize(
    ("line", "wishes"),
    [
        ("", (False, 40_000)),
        ("a=fmtp:111 minptime=10;useinbandfec=1\n", (True, 40_000)),
        ("a=fmtp:111 useinbandfec=1; maxaveragebitrate=20000\n", (True, 20_000)),
        ("a=fmtp:111 maxaveragebitrate=510000;stereo=1;cbr=0;usedtx=1\n", (False, 40_000)),
        ("a=fmtp:111 maxaveragebitrate=1\n", (False, 6_000)),
        ("a=fmtp:111 maxaveragebitrate=-1;useinbandfec=;;=;x\n", (False, 40_000)),
        ("a=fmtp:111 maxaveragebitrate=99999999999999999999\n", (False, 40_000)),
        ("a=fmtp:0 useinbandfec=1\n", (False, 40_000)),
    ],
)
def test_what_a_caller_wishes_of_opus(line: str, wishes: tuple[bool, int]) -> None:
    _, agreed = answered(OPUS + line, ["OPUS"])
    assert (agreed.opus.fec, agreed.opus.bitrate) == wishes


@pytest.mark.parametrize("written", ["opus/8000", "opus/48000/1x", "opus/16000", "OPUSX/48000/2"])
def test_what_is_called_opus_and_is_not_is_passed_over(written: str) -> None:
    _, agreed = answered(OPUS.replace("opus/48000/2", written), ["OPUS", "PCMU"])
    assert agreed.codec == ("OPUS" if written.startswith("opus/48000") else "PCMU")


def test_our_own_offer_has_opus_on_a_type_of_its_own() -> None:
    text = describer(["OPUS", "G722", "PCMU", "PCMA"]).offer()
    assert "m=audio 30000 RTP/AVP 107 9 0 8 101\r\na=rtpmap:107 opus/48000/2\r\n" in text


@pytest.mark.parametrize("line", ["a=rtpmap:111 opus/48000/2\r\n", "a=rtpmap:111 OPUS/48000/2\r\n"])
def test_opus_passes_the_edge_with_what_it_says_of_itself(line: str) -> None:
    said = (
        SESSION + f"m=audio 4000 RTP/AVP 111 0\r\n{line}a=fmtp:111 useinbandfec=1\r\na=rtcp-fb:111 nack\r\n"
    )
    assert sdp.offered_codecs(said.encode()) == ("OPUS", "PCMU")
    lean = sdp.lean(said.encode()).decode()
    assert line in lean
    assert "a=fmtp:111 useinbandfec=1\r\n" in lean
    assert "nack" not in lean


def test_a_codec_on_a_dynamic_type_is_sent_and_taken_on_it() -> None:
    text, agreed = answered("m=audio 4000 RTP/AVP 97\na=rtpmap:97 pcmu/8000\n")
    assert (agreed.sent_as, agreed.takes[97]) == (97, "PCMU")
    assert "a=rtpmap:97 PCMU/8000\r\n" in text


def test_either_law_is_taken_whichever_was_agreed() -> None:
    _, agreed = answered("m=audio 4000 RTP/AVP 0\n")
    assert agreed.takes[8] == "PCMA"


def test_without_telephone_event_keys_are_taken_on_101_and_none_are_sent() -> None:
    text, agreed = answered("m=audio 4000 RTP/AVP 0\n")
    assert (agreed.event, agreed.takes_events) == (None, frozenset({101}))
    assert "telephone-event" not in text


@pytest.mark.parametrize(
    ("theirs", "ours", "sending", "receiving"),
    [
        ("sendrecv", "sendrecv", True, True),
        ("sendonly", "recvonly", False, True),
        ("recvonly", "sendonly", True, False),
        ("inactive", "inactive", False, False),
    ],
)
def test_a_direction_is_answered_by_its_mirror(
    theirs: str, ours: str, sending: bool, receiving: bool
) -> None:
    text, agreed = answered(f"{AUDIO}a={theirs}\n")
    assert f"a={ours}\r\n" in text
    assert (agreed.sending, agreed.receiving) == (sending, receiving)


def test_a_direction_of_the_session_holds_where_the_section_says_none() -> None:
    text, agreed = describer().answer(SESSION + "a=sendonly\r\n" + AUDIO.replace("\n", "\r\n"))
    assert not agreed.sending
    assert "a=recvonly\r\n" in text


def test_the_address_0_0_0_0_is_a_hold() -> None:
    _, agreed = describer().answer(
        (SESSION + AUDIO.replace("\n", "\r\n")).replace("192.0.2.1\r\nt", "0.0.0.0\r\nt")
    )
    assert not agreed.sending


@pytest.mark.parametrize(
    ("asked", "packet_ms", "said"),
    [
        ("a=ptime:30\n", 30, 30),
        ("a=ptime:10\n", 10, 10),
        ("a=ptime:5\n", 10, 10),
        ("a=ptime:500\n", 120, 120),
        ("a=ptime:60\na=maxptime:40\n", 40, 40),
        ("a=maxptime:10\n", 10, 10),
        ("a=ptime:25.5\n", 20, 20),
        ("a=ptime:x\n", 20, None),
    ],
)
def test_packets_are_as_long_as_the_caller_wants_and_the_answer_says_so(
    asked: str, packet_ms: int, said: int | None
) -> None:
    text, agreed = answered(AUDIO + asked)
    assert agreed.packet_ms == packet_ms
    assert (f"a=ptime:{said}\r\n" in text) == (said is not None)


def test_comfort_noise_is_taken_where_it_is_offered() -> None:
    text, agreed = answered("m=audio 4000 RTP/AVP 0 13\n")
    assert "m=audio 30000 RTP/AVP 0 13\r\n" in text
    assert agreed.takes_noise == frozenset({13})


def test_rtcp_goes_where_it_is_wanted() -> None:
    _, agreed = answered(AUDIO + "a=rtcp:5005 IN IP4 192.0.2.9\n")
    assert agreed.peer_rtcp == ("192.0.2.9", 5005)
    text, agreed = answered(AUDIO + "a=rtcp-mux\n")
    assert agreed.peer_rtcp == agreed.peer
    assert "a=rtcp-mux\r\n" in text


def test_all_sections_are_answered_and_one_is_on() -> None:
    text, agreed = answered(
        "m=video 9 RTP/AVP 96\nm=audio 0 RTP/AVP 0\nm=audio 4000 RTP/AVPF 0\nm=audio 4002 RTP/AVP 0\n"
    )
    assert [line for line in text.split("\r\n") if line.startswith("m=")] == [
        "m=video 0 RTP/AVP 96",
        "m=audio 0 RTP/AVP 0",
        "m=audio 30000 RTP/AVPF 0",
        "m=audio 0 RTP/AVP 0",
    ]
    assert agreed.peer == ("192.0.2.1", 4000)


@pytest.mark.parametrize(
    "media",
    [
        "",
        "m=audio 0 RTP/AVP 0\n",
        "m=audio 4000 RTP/SAVP 0\n",
        "m=audio 4000 RTP/AVP 9 4\n",
        "m=video 9 RTP/AVP 0\n",
    ],
)
def test_where_there_is_nothing_to_talk_in_that_is_said(media: str) -> None:
    with pytest.raises(NoAgreement, match="PCMU, PCMA"):
        answered(media)


def test_the_version_counts_changes_and_nothing_else() -> None:
    mine = describer()
    offer = SESSION + AUDIO.replace("\n", "\r\n")
    first, _ = mine.answer(offer)
    again, _ = mine.answer(offer)
    held, _ = mine.answer(offer + "a=sendonly\r\n")
    assert first == again == first.replace("o=- 42 2", "o=- 42 1")
    assert "o=- 42 1 " in first
    assert "o=- 42 2 " in held
    assert mine.again() == held


def test_our_offer_is_understood_by_ourselves() -> None:
    offer = describer(WIDE).offer()
    text, theirs = Describer("192.0.2.7", 5000, NARROW, 7).answer(offer)
    ours = describer(WIDE).answered(text)
    assert (theirs.codec, ours.codec) == ("PCMU", "PCMU")
    assert ours.peer == ("192.0.2.7", 5000)
    assert ours.event == theirs.event == 101


@pytest.mark.parametrize("kind", [96, 101])
def test_keys_come_on_the_type_of_the_offer_or_of_the_answer(kind: int) -> None:
    answer = SESSION + f"m=audio 4000 RTP/AVP 0 {kind}\r\na=rtpmap:{kind} telephone-event/8000\r\n"
    agreed = describer().answered(answer)
    assert agreed.takes_events == frozenset({101, kind})
    assert agreed.event == kind


@pytest.mark.parametrize("said", ["pbx.example.org", "x" * 300, "1", "127.1", ""])
def test_a_name_is_not_looked_up(said: str) -> None:
    """Somebody else's name server would decide when the next 20 ms of all calls are."""
    offer = SESSION.replace("c=IN IP4 192.0.2.1", f"c=IN IP4 {said}") + AUDIO.replace("\n", "\r\n")
    _, agreed = describer().answer(offer)
    assert (agreed.peer, agreed.peer_rtcp, agreed.sending) == (("", 4000), ("", 4001), True)
    _, agreed = answered(AUDIO + f"a=rtcp:5005 IN IP4 {said}\n")
    assert agreed.peer == ("192.0.2.1", 4000)
    assert agreed.peer_rtcp[0] in ("", "192.0.2.1")


def test_who_is_bound_everywhere_writes_an_ipv4_peer_as_its_socket_does() -> None:
    here = Describer("::", 30_000, NARROW, 42)
    text, agreed = here.answer(SESSION + AUDIO.replace("\n", "\r\n"))
    assert (agreed.peer, agreed.peer_rtcp) == (("::ffff:192.0.2.1", 4000), ("::ffff:192.0.2.1", 4001))
    assert "c=IN IP6 ::\r\n" in text  # the edge writes what the caller reaches
    six = SESSION.replace("IP4 192.0.2.1", "IP6 2001:db8::7")
    _, agreed = here.answer(six + AUDIO.replace("\n", "\r\n"))
    assert agreed.peer == ("2001:db8::7", 4000)


def test_what_the_edge_makes_of_an_offer_is_enough() -> None:
    written = (
        SESSION + "m=video 5 RTP/AVP 96\r\nm=audio 4000 RTP/AVP 111 9 0 8 13 101\r\n"
        "a=rtpmap:111 opus/48000/2\r\na=rtpmap:101 telephone-event/8000\r\na=ptime:40\r\na=sendonly\r\n"
    ).encode()
    text, agreed = describer().answer(sdp.lean(written).decode())
    assert "a=ptime:40\r\n" in text
    assert (agreed.codec, agreed.packet_ms, agreed.sending) == ("PCMU", 40, False)


def test_an_agreement_names_the_same_thing_for_everyone() -> None:
    fields: dict[str, Any] = {name: getattr(answered(AUDIO)[1], name) for name in Agreement.__slots__}
    assert Agreement(**fields) == answered(AUDIO)[1]


CRYPTO = "a=crypto:{} {} inline:" + base64.b64encode(bytes(30)).decode() + "\n"
USUAL = "AES_CM_128_HMAC_SHA1_80"
SAVP = "m=audio 4000 RTP/SAVP 0\n" + CRYPTO.format(2, USUAL)


def securing(rule: SrtpRule) -> Describer:
    return Describer("127.0.0.1", 30_000, NARROW, 42, rule)


def said(text: str) -> list[CryptoLine]:
    return crypto_lines(text.split("\r\n"))


def asked(media: str) -> str:
    return SESSION + media.replace("\n", "\r\n")


def test_of_keys_one_is_answered_under_the_callers_number() -> None:
    text, agreed = securing("optional").answer(asked(SAVP + CRYPTO.format(3, USUAL)))
    assert agreed.srtp is not None
    assert said(text) == [agreed.srtp.ours]
    assert (agreed.srtp.ours.tag, agreed.srtp.theirs.tag) == (2, 2)
    assert "m=audio 30000 RTP/SAVP 0\r\n" in text
    assert str(bytes(30)) not in repr(agreed)


def test_our_key_stays_while_the_suite_does_and_no_longer() -> None:
    mine = securing("optional")
    keys = []
    for tag, suite in ((1, USUAL), (2, USUAL), (2, "AES_CM_128_HMAC_SHA1_32"), (1, USUAL)):
        _, agreed = mine.answer(asked("m=audio 4000 RTP/SAVP 0\n" + CRYPTO.format(tag, suite)))
        assert agreed.srtp is not None
        assert (agreed.srtp.ours.tag, agreed.srtp.ours.suite) == (tag, suite)
        keys.append(agreed.srtp.ours.key)
    assert keys[0] == keys[1]
    assert len(set(keys)) == 3, "a key that was used once is not used again, nor under another suite"


def test_what_was_agreed_is_offered_again() -> None:
    mine = securing("required")
    text, agreed = mine.answer(asked(SAVP))
    assert said(mine.offer()) == said(mine.again()) == said(text)
    again = mine.answered(asked(SAVP))
    assert again.srtp == agreed.srtp
    with pytest.raises(NoAgreement, match="none of those that were offered"):
        mine.answered(asked(SAVP.replace("crypto:2", "crypto:3")))
    with pytest.raises(NoAgreement, match="no audio section of SRTP"):
        mine.answered(asked(AUDIO))


def test_an_offer_in_the_clear_is_taken_where_it_may_be() -> None:
    mine = securing("optional")
    offer = mine.offer()
    assert [one.suite for one in said(offer)] == list(SUITES)
    assert len({one.key for one in said(offer)}) == len(SUITES)
    assert "m=audio 30000 RTP/AVP " in offer
    assert mine.answered(asked(AUDIO)).srtp is None
    with pytest.raises(NoAgreement, match="which was not offered"):
        mine.answered(asked(SAVP.replace("crypto:2", "crypto:4")))
    taken = mine.answered(asked(SAVP.replace("SAVP", "AVP").replace("crypto:2", "crypto:4")))
    assert taken.srtp is not None
    assert taken.srtp.ours.key == said(offer)[3].key
    _, clear = mine.answer(asked(AUDIO))
    assert clear.srtp is None
    assert said(mine.again()) == []


@pytest.mark.parametrize(
    ("rule", "media"),
    [
        ("off", SAVP),
        ("required", AUDIO),
        ("optional", "m=audio 4000 RTP/SAVP 0\n"),
        ("required", AUDIO + CRYPTO.format(1, "F8_128_HMAC_SHA1_80")),
        ("optional", SAVP.replace("RTP/SAVP", "UDP/TLS/RTP/SAVPF")),
    ],
)
def test_where_the_rule_leaves_nothing_that_is_said(rule: SrtpRule, media: str) -> None:
    with pytest.raises(NoAgreement, match="no audio section of"):
        securing(rule).answer(asked(media))
