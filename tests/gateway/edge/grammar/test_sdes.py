"""`a=crypto` as callers write it, and what lines get of it."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.edge.grammar.sdes import MAX_CRYPTO, SUITES, CryptoLine, SrtpRule, crypto_lines
from gateway.edge.grammar.sdp import at_address, lean, offered_codecs, why_none, without_keys
from tests.gateway.edge.grammar.test_sdp import offer

KEY = bytes(range(30))
WRITTEN = base64.b64encode(KEY).decode()
LONG = base64.b64encode(bytes(46)).decode()
GOOD = f"a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:{WRITTEN}"


@pytest.mark.parametrize(
    "line",
    [
        GOOD,
        f"{GOOD}|2^48",
        f"{GOOD}|1048576",
        f"{GOOD} WSH=64",
        f"{GOOD} -X-vendor=1",
        GOOD.replace("inline", "INLINE"),
        GOOD.replace(" ", " \t"),
        GOOD.lower().replace(WRITTEN.lower(), WRITTEN),
        f"{GOOD} ",
    ],
)
def test_what_means_the_same_is_read(line: str) -> None:
    assert CryptoLine.read(line) == CryptoLine(1, "AES_CM_128_HMAC_SHA1_80", KEY)


def test_a_key_without_its_padding_is_read() -> None:
    line = f"a=crypto:1 AES_256_CM_HMAC_SHA1_80 inline:{LONG}"
    assert CryptoLine.read(line) == CryptoLine.read(line.rstrip("=")) is not None


@pytest.mark.parametrize(
    "line",
    [
        "a=crypto:",
        GOOD.replace(":1", ":01"),
        GOOD.replace(":1", ":1234567890"),
        GOOD.replace(":1", ":x"),
        GOOD.replace("AES_CM_128_HMAC_SHA1_80", "F8_128_HMAC_SHA1_80"),
        GOOD.replace("AES_CM_128_HMAC_SHA1_80", "AES_256_CM_HMAC_SHA1_80"),
        GOOD.replace("inline:", "uri:"),
        GOOD[:-4],
        GOOD + "AAAA",
        GOOD.replace(WRITTEN, ""),
        GOOD.replace(WRITTEN, "ä" * 40),
        f"{GOOD}|1:4",
        f"{GOOD}|2^20|1:4",
        f"{GOOD}|2^49",
        f"{GOOD}|0",
        f"{GOOD}|2^99",
        f"{GOOD};inline:{WRITTEN}",
        f"{GOOD} KDR=1",
        f"{GOOD} UNENCRYPTED_SRTP",
        f"{GOOD} UNENCRYPTED_SRTCP",
        f"{GOOD} UNAUTHENTICATED_SRTP",
        f"{GOOD} FEC_ORDER=FEC_SRTP",
        f"{GOOD} X-vendor=1",
    ],
)
def test_what_weakens_or_is_not_understood_is_not_used(line: str) -> None:
    assert CryptoLine.read(line) is None


@given(st.text(max_size=300))
def test_whatever_stands_there_is_read_without_an_error(text: str) -> None:
    CryptoLine.read(f"a=crypto:{text}")
    CryptoLine.read(f"{GOOD}{text}")


def test_no_more_than_a_few_are_read_and_a_tag_counts_once() -> None:
    assert len(crypto_lines([GOOD.replace(":1", f":{n}") for n in range(1, 100)])) == MAX_CRYPTO
    assert len(crypto_lines([GOOD, GOOD.replace(WRITTEN, "A" * 40), "a=rtpmap:0 PCMU/8000"])) == 1


@pytest.mark.parametrize("suite", SUITES)
def test_what_we_write_is_what_is_read(suite: str) -> None:
    mine = CryptoLine.fresh(4, suite)
    assert CryptoLine.read(str(mine)) == mine
    assert mine != CryptoLine.fresh(4, suite)


def test_a_key_is_shown_to_nobody() -> None:
    mine = CryptoLine.fresh(1, "AES_CM_128_HMAC_SHA1_80")
    written = base64.b64encode(mine.key).decode()
    assert written not in repr(mine)
    assert repr(mine.key) not in repr(mine)


AVP, SAVP, DTLS = "audio 4000 RTP/AVP 0", "audio 4000 RTP/SAVP 0", "audio 4000 UDP/TLS/RTP/SAVPF 0"
BAD = f"{GOOD} KDR=1"


@pytest.mark.parametrize(
    ("body", "rules", "why"),
    [
        (offer(AVP), {"optional", "off"}, "the sound must be encrypted here"),
        (offer(AVP, GOOD), {"required", "optional", "off"}, ""),
        (offer(AVP, BAD), {"optional", "off"}, "the sound must be encrypted here"),
        (
            offer(SAVP, GOOD),
            {"required", "optional"},
            "the offer is encrypted only (SRTP), for which SIP must",
        ),
        (offer("audio 4000 rtp/savpf 0", GOOD), {"required", "optional"}, "the offer is encrypted only"),
        (offer(SAVP, BAD), set(), "none of the offer's a=crypto has"),
        (offer(SAVP), set(), "none of the offer's a=crypto has"),
        (offer(DTLS, GOOD), set(), "the offer is a browser's"),
        (offer(SAVP, GOOD, f"m={AVP}"), {"required", "optional", "off"}, ""),
        (offer("audio 4000 RTP/SAVP 4", GOOD), set(), "none of the offered codecs"),
    ],
)
def test_which_offers_a_line_gets_by_which_rule(body: bytes, rules: set[str], why: str) -> None:
    every: list[SrtpRule] = ["required", "optional", "off"]
    said = {rule: why_none(body, rule=rule) for rule in every if not offered_codecs(body, rule=rule)}
    assert set(every) - said.keys() == rules
    assert any(one.startswith(why) for one in said.values()) or not why
    assert all(len(one) <= 100 for one in said.values())


def test_keys_go_to_a_line_only_where_they_are_used() -> None:
    body = offer(AVP, GOOD, BAD, GOOD.replace(":1", ":2"))
    wanted = offer(AVP, GOOD, GOOD.replace(":1", ":2"))
    assert lean(body, rule="optional") == wanted
    assert lean(body, rule="required") == wanted
    assert lean(body) == without_keys(body) == offer(AVP)
    assert lean(offer(SAVP, GOOD, f"m={AVP}")) == offer("audio 0 RTP/SAVP 0", f"m={AVP}")
    assert b"inline" in at_address(wanted, "192.0.2.9")
