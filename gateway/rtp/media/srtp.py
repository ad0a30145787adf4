"""SRTP and SRTCP (RFC 3711, RFC 6188, RFC 7714) by libsrtp: one call's packets, sealed and opened.

What does not authenticate, or has come before, is not opened. After the other side took another key, packets
that it had sealed with the one before are opened for `OLD_KEY_S` more, so that a change of keys loses none.

Hot path: no logs, no locks. libsrtp knows nobody's key but those of its sessions, which end with the call.
"""

from __future__ import annotations

import importlib
from typing import Any, Final

from pylibsrtp import Error, Policy, Session

from gateway.edge.grammar.sdes import CryptoLine
from gateway.rtp.agreement import SrtpKeys
from gateway.rtp.payloads.packet import HEADER_BYTES, write_rtp

_BINDING: Final[Any] = importlib.import_module("pylibsrtp._binding")
"""libsrtp as C has it; it has no types."""
OLD_KEY_S: Final = 5.0
MOST_STREAMS: Final = 128
"""Of one key: libsrtp remembers of each what came, so that nothing comes twice, and a peer may begin as many
as it likes."""
STRIDE: Final = 1 << 14
"""Numbers from one packet to the next that a receiver follows without doubt."""
LATEST: Final = 256
"""Numbers by which a packet may come late under a new key."""
MOST_ROUNDS: Final = 16
"""Of 65,536 packets, 5.8 hours of them: what is awaited under a new key costs four packets for each."""
_PROFILES: Final = {
    "AES_CM_128_HMAC_SHA1_80": Policy.SRTP_PROFILE_AES128_CM_SHA1_80,
    "AES_CM_128_HMAC_SHA1_32": Policy.SRTP_PROFILE_AES128_CM_SHA1_32,
    "AES_256_CM_HMAC_SHA1_80": Policy.SRTP_PROFILE_AES128_CM_SHA1_80,
    "AES_256_CM_HMAC_SHA1_32": Policy.SRTP_PROFILE_AES128_CM_SHA1_32,
    "AEAD_AES_128_GCM": Policy.SRTP_PROFILE_AEAD_AES_128_GCM,
    "AEAD_AES_256_GCM": Policy.SRTP_PROFILE_AEAD_AES_256_GCM,
}
"""AES-256 in counter mode has no profile of its own: it is made of the one with AES-128 (`_longer`)."""
_AES_128: Final = (1, 30)
_AES_256: Final = (5, 46)
"""libsrtp's number of the cipher (SRTP_AES_ICM_128, SRTP_AES_ICM_256), and the bytes of key and salt."""


def _policy(crypto: CryptoLine, ssrc_type: int) -> Policy:
    policy = Policy(key=crypto.key, ssrc_type=ssrc_type, srtp_profile=_PROFILES[crypto.suite])
    if crypto.suite.startswith("AES_256_CM"):
        for part in (policy._policy.rtp, policy._policy.rtcp):
            _longer(part)
    policy.allow_repeat_tx = False
    return policy


def _longer(part: object) -> None:
    """AES-128 becomes AES-256: the first two words of what libsrtp calls a crypto policy.

    The wrapper knows that struct as something opaque. It is the library's public one, and the test vectors of
    RFC 6188 are tried in `tests/gateway/rtp/media/test_srtp.py`; of another layout nothing is changed.
    """
    ffi = _BINDING.ffi
    words = ffi.cast("uint32_t *", ffi.addressof(part))
    if (words[0], words[1]) != _AES_128:
        raise RuntimeError("libsrtp's policies have another layout: AES-256 in counter mode cannot be had")
    words[0], words[1] = _AES_256


class Opening:
    """Packets that one key of the other side's has sealed."""

    __slots__ = ("_session", "_streams", "crypto")

    def __init__(self, crypto: CryptoLine) -> None:
        self.crypto = crypto
        self._session = Session(_policy(crypto, Policy.SSRC_ANY_INBOUND))
        self._streams: set[bytes] = set()

    def open(self, data: bytes, *, reports: bool) -> bytes | None:
        """The packet within; None for what is not theirs, is changed, or has come before."""
        name = data[4:8] if reports else data[8:12]
        known = name in self._streams
        if not known and len(self._streams) >= MOST_STREAMS:
            return None
        try:
            opened = self._session.unprotect_rtcp(data) if reports else self._session.unprotect(data)
        except (Error, ValueError):
            return None
        if not known:
            self._streams.add(name)
        return opened


def _with_rollover(theirs: CryptoLine, ssrc: int, index: int) -> Opening:
    """One that awaits a stream near that extended number, beyond 16 bits.

    The library's wrapper cannot set the rollover counter, but a receiver's counter follows what it opens: it
    is shown packets of that key, each a quarter of a round farther (RFC 3711 §3.3.1).
    """
    opening = Opening(theirs)
    sealing = Session(_policy(theirs, Policy.SSRC_ANY_OUTBOUND))
    until = index - LATEST
    for at in range(until % STRIDE, until + 1, STRIDE):
        opening.open(sealing.protect(write_rtp(0, at, 0, ssrc, b"\0")), reports=False)
    return opening


class SrtpContext:
    """One call's, while it is encrypted."""

    __slots__ = ("_before", "_before_until", "_farther", "_opening", "_ours", "_sealing", "refused")

    def __init__(self, keys: SrtpKeys) -> None:
        self.refused = 0
        """packets that were not opened"""
        self._ours = keys.ours
        self._sealing = Session(_policy(keys.ours, Policy.SSRC_ANY_OUTBOUND))
        self._opening = Opening(keys.theirs)
        self._before: Opening | None = None
        """of the key that the other side had before"""
        self._before_until = 0.0
        self._farther: Opening | None = None
        """the newest key's too, for a stream that goes on counting its rounds, as not all do under another
        key; the first packet tells"""

    @property
    def suite(self) -> str:
        """What is agreed on."""
        return self._ours.suite

    def agree(self, keys: SrtpKeys, now: float, stream: tuple[int, int] | None = None) -> None:
        """The keys that hold from now on. One that stays goes on as it was: numbers used and packets seen.

        `stream`: what comes now, its SSRC and highest extended number.
        """
        if _other(keys.ours, self._ours):
            self._sealing = Session(_policy(keys.ours, Policy.SSRC_ANY_OUTBOUND))
        self._ours = keys.ours
        if _other(keys.theirs, self._opening.crypto):
            self._before, self._before_until = self._opening, now + OLD_KEY_S
            self._opening = Opening(keys.theirs)
            self._farther = None
            if stream is not None and 0 < stream[1] >> 16 <= MOST_ROUNDS:
                self._farther = _with_rollover(keys.theirs, *stream)

    def seal(self, packet: bytes) -> bytes | None:
        """An RTP packet for the wire; None where libsrtp will not, which ends nobody's turn."""
        try:
            return self._sealing.protect(packet)
        except (Error, ValueError):  # it is too long
            return None

    def seal_report(self, packet: bytes) -> bytes | None:
        """The same for RTCP."""
        try:
            return self._sealing.protect_rtcp(packet)
        except (Error, ValueError):
            return None

    def open(self, data: bytes, at: float) -> bytes | None:
        """The RTP packet in one that came at `at`; None for what is not to be heard."""
        return self._open(data, at, reports=False) if len(data) > HEADER_BYTES else None

    def open_report(self, data: bytes, at: float) -> bytes | None:
        """The same for RTCP."""
        return self._open(data, at, reports=True) if len(data) > HEADER_BYTES else None

    def _open(self, data: bytes, at: float, *, reports: bool) -> bytes | None:
        opened = self._opening.open(data, reports=reports)
        if self._farther is not None and not reports:
            if opened is None and (opened := self._farther.open(data, reports=False)) is not None:
                self._opening = self._farther
            if opened is not None:
                self._farther = None
        if opened is None and self._before is not None:
            if at < self._before_until:
                opened = self._before.open(data, reports=reports)
            else:
                self._before = None
        self.refused += opened is None
        return opened


def _other(one: CryptoLine, another: CryptoLine) -> bool:
    return (one.suite, one.key) != (another.suite, another.key)
