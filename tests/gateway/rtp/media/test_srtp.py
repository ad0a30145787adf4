"""Packets sealed and opened: suites beside their RFCs, keys that change, numbers that go round."""

from __future__ import annotations

import hmac
import secrets

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from gateway.edge.grammar.sdes import SUITES, CryptoLine
from gateway.rtp.agreement import SrtpKeys
from gateway.rtp.media.srtp import MOST_STREAMS, OLD_KEY_S, SrtpContext
from gateway.rtp.payloads.packet import write_rtp

TAGS = {suite: 4 if suite.endswith("_32") else 16 if "GCM" in suite else 10 for suite in SUITES}
"""Bytes after an RTP packet's sound."""


def pair(suite: str = "AES_CM_128_HMAC_SHA1_80") -> tuple[SrtpContext, SrtpContext]:
    """Both ends of a call."""
    one, other = CryptoLine.fresh(1, suite), CryptoLine.fresh(1, suite)
    return SrtpContext(SrtpKeys(one, other)), SrtpContext(SrtpKeys(other, one))


def packet(number: int, ssrc: int = 7) -> bytes:
    return write_rtp(0, number, number * 160, ssrc, b"sound" * 32)


REPORT = b"\x80\xc9\x00\x01" + (7).to_bytes(4, "big")


@pytest.mark.parametrize("suite", SUITES)
def test_each_suite_seals_and_opens_sound_and_reports(suite: str) -> None:
    we, they = pair(suite)
    for n in range(3):
        sealed = we.seal(packet(n))
        assert sealed is not None
        assert b"sound" not in sealed
        assert len(sealed) == len(packet(n)) + TAGS[suite]
        assert they.open(sealed, 0.0) == packet(n)
        assert they.open(sealed, 0.0) is None, "it came before"
        report = we.seal_report(REPORT)
        assert report is not None
        assert len(report) == len(REPORT) + 4 + (16 if "GCM" in suite else 10)
        assert they.open_report(report, 0.0) == REPORT
        assert they.open_report(report, 0.0) is None
    assert they.refused == 6


def ctr(key: bytes, counter: bytes, data: bytes) -> bytes:
    return Cipher(algorithms.AES(key), modes.CTR(counter)).encryptor().update(data)


def derived(key: bytes, salt: bytes, label: int, length: int) -> bytes:
    """RFC 3711 §4.3.1, with an index of 0."""
    start = int.from_bytes(salt, "big") ^ (label << 48)
    return ctr(key, (start << 16).to_bytes(16, "big"), bytes(length))


@pytest.mark.parametrize("suite", [suite for suite in SUITES if "CM" in suite and "GCM" not in suite])
def test_counter_mode_is_what_its_rfc_says(suite: str) -> None:
    """By another library; for AES-256 with the keys of RFC 6188 §7.3, which has what they derive to."""
    key = bytes.fromhex("f0f04914b513f2763a1b1fa130f10e2998f6f6e43e4309d1e622a0e332b9f1b6")
    salt = bytes.fromhex("3b04803de51ee7c96423ab5b78d2")
    if "256" in suite:
        assert derived(key, salt, 0, 32).hex() == (
            "5ba1064e30ec51613cad926c5a28ef731ec7fb397f70a960653caf06554cd8c4"
        )
        assert derived(key, salt, 2, 14).hex() == "fa31791685ca444a9e07c6c64e93"
        assert derived(key, salt, 1, 20).hex() == "fd9c32d39ed5fbb5a9dc96b30818454d1313dc05"
    else:
        key = key[:16]
    size = len(key)
    ours = CryptoLine(1, suite, key + salt)
    plain = packet(9)
    number_salt = int.from_bytes(derived(key, salt, 2, 14), "big")
    counter = (number_salt << 16) ^ (7 << 64) ^ (9 << 16)
    sealed = plain[:12] + ctr(derived(key, salt, 0, size), counter.to_bytes(16, "big"), plain[12:])
    tag = hmac.digest(derived(key, salt, 1, 20), sealed + bytes(4), "sha1")
    made = SrtpContext(SrtpKeys(ours, CryptoLine.fresh(1, suite))).seal(plain)
    assert made == sealed + tag[: TAGS[suite]]


def test_numbers_go_round_more_than_once() -> None:
    we, they = pair()
    for n in range(65_000, 65_536 * 2 + 1000, 7):
        sealed = we.seal(packet(n))
        assert sealed is not None
        assert they.open(sealed, 0.0) is not None
    old = we.seal(packet(n + 1))
    assert old is not None
    assert they.open(old, 0.0) is not None
    assert they.refused == 0


@pytest.mark.parametrize("anew", [False, True])
def test_whoever_changes_its_key_may_count_rounds_on_or_anew(anew: bool) -> None:
    """RFC 3711 has one counter a stream; many begin again at 0 with another key."""
    we, they = pair()
    last = 0
    for n in range(60_000, 65_536 * 3 + 500, 1000):
        assert they.open(we.seal(packet(n)) or b"", 0.0) is not None
        last = n
    new = CryptoLine.fresh(1, "AES_CM_128_HMAC_SHA1_80")
    they.agree(SrtpKeys(they._ours, new), 0.0, (7, last))
    ahead = SrtpContext(SrtpKeys(new, they._ours))
    if not anew:
        for n in range(last % 1000, last, 1000):
            ahead.seal(packet(n))
    assert they.open(we.seal(packet(last + 3)) or b"", 1.0) == packet(last + 3), "with the key before"
    for n in range(last + 1, last + 50):
        sealed = ahead.seal(packet(n))
        assert sealed is not None
        assert they.open(sealed, 1.0) == packet(n)
        assert they.open(sealed, 1.0) is None
    assert they.refused == 49


def test_of_a_key_that_was_changed_packets_are_opened_for_a_while() -> None:
    we, they = pair()
    late, later = we.seal(packet(1)), we.seal(packet(2))
    new = CryptoLine.fresh(1, "AES_CM_128_HMAC_SHA1_80")
    they.agree(SrtpKeys(they._ours, new), now=10.0)
    we.agree(SrtpKeys(new, they._ours), now=10.0)
    assert late is not None
    assert later is not None
    fresh = we.seal(packet(3))
    assert fresh is not None
    assert they.open(fresh, 10.0) == packet(3)
    assert they.open(late, 10.0) == packet(1)
    assert they.open(late, 10.0) is None
    assert they.open(later, 10.0 + OLD_KEY_S) is None


def test_a_key_that_stays_goes_on_where_it_was() -> None:
    we, they = pair()
    sealed = we.seal(packet(1))
    assert sealed is not None
    assert they.open(sealed, 0.0) == packet(1)
    keys = SrtpKeys(we._ours.tagged(5), we._opening.crypto.tagged(5))
    we.agree(keys, 1.0)
    they.agree(SrtpKeys(keys.theirs, keys.ours), 1.0)
    assert they.open(sealed, 1.0) is None, "it is still known to have come"
    assert we.seal(packet(1)) is None, "a number is used once under one key"
    assert we.seal(packet(2)) is not None


def test_a_peer_cannot_begin_streams_without_end() -> None:
    we, they = pair()
    opened = [they.open(we.seal(packet(1, ssrc)) or b"", 0.0) for ssrc in range(MOST_STREAMS + 50)]
    assert sum(one is not None for one in opened) == MOST_STREAMS
    assert they.open(we.seal(packet(2, 5)) or b"", 0.0) == packet(2, 5), "those that it has go on"


def test_rubbish_of_any_length_is_not_opened() -> None:
    we, they = pair()
    for length in range(0, 1500, 13):
        assert they.open(secrets.token_bytes(length), 0.0) is None
        assert they.open_report(secrets.token_bytes(length), 0.0) is None
    assert we.seal(packet(1) + bytes(1500)) is None
