"""A telephone that encrypts (SDES), on pylibsrtp alone: it shares no line with what it tests."""

from __future__ import annotations

import base64
import re
import secrets
from dataclasses import dataclass, field

import pylibsrtp
from pylibsrtp import Policy, Session

from tests.gateway.line.rawphone import Message, RawPhone

PROFILES = {
    "AES_CM_128_HMAC_SHA1_80": (Policy.SRTP_PROFILE_AES128_CM_SHA1_80, 30),
    "AES_CM_128_HMAC_SHA1_32": (Policy.SRTP_PROFILE_AES128_CM_SHA1_32, 30),
    "AEAD_AES_128_GCM": (Policy.SRTP_PROFILE_AEAD_AES_128_GCM, 28),
    "AEAD_AES_256_GCM": (Policy.SRTP_PROFILE_AEAD_AES_256_GCM, 44),
}
"""Suites that the wrapper has by itself."""
USUAL = "AES_CM_128_HMAC_SHA1_80"
CRYPTO = re.compile(r"^a=crypto:(\d+) (\S+) inline:(\S+)\r?$", re.MULTILINE)


def session(suite: str, key: bytes, ssrc_type: int) -> Session:
    return Session(Policy(key=key, ssrc_type=ssrc_type, srtp_profile=PROFILES[suite][0]))


@dataclass
class SrtpPhone(RawPhone):
    """See the module."""

    suite: str = USUAL
    proto: str = "RTP/SAVP"
    tag: str = field(default_factory=lambda: secrets.token_hex(4))
    number: int = 1
    """of its a=crypto"""
    refused: int = 0
    """packets of ours that it cannot open"""
    clear: list[bytes] = field(default_factory=list)
    """what it sent, before it was sealed"""
    sealed: list[bytes] = field(default_factory=list)
    """… and after"""
    raw: list[bytes] = field(default_factory=list)
    """what came, as it came"""

    async def open(self) -> SrtpPhone:
        self.rekey()
        self.theirs = b""
        """the line's key"""
        await super().open()
        return self

    def rekey(self, suite: str = "") -> None:
        """A new key; it is used once `adopt` is called, as it may be once the line has it."""
        self.suite = suite or self.suite
        self.key = secrets.token_bytes(PROFILES[self.suite][1])

    def adopt(self) -> None:
        """Seals with the newest key."""
        self.sealing = session(self.suite, self.key, Policy.SSRC_ANY_OUTBOUND)

    def crypto(self) -> str:
        return f"a=crypto:{self.number} {self.suite} inline:{base64.b64encode(self.key).decode()}\r\n"

    def offer(self, direction: str = "sendrecv", *, keys: bool = True) -> str:
        plain = super().offer(direction, keys=keys)
        return plain.replace("RTP/AVP", self.proto) + self.crypto()

    async def final(self, method: str = "INVITE", timeout_s: float = 5.0) -> Message:
        message = await super().final(method, timeout_s)
        if method == "INVITE" and message.status == 200:
            self.learn(message.body)
        return message

    def learn(self, body: str) -> None:
        """The line's key; what it sealed before cannot be opened any more, if that is another one."""
        found = CRYPTO.findall(body)
        assert len(found) == 1, body
        number, suite, key = found[0]
        assert (int(number), suite) == (self.number, self.suite)
        theirs = base64.b64decode(key)
        if theirs != self.theirs:
            self.theirs = theirs
            self.opening = session(suite, theirs, Policy.SSRC_ANY_INBOUND)
        self.adopt()

    def _rtp_came(self, data: bytes, source: tuple[str, int]) -> None:
        self.raw.append(data)
        try:
            opened = self.opening.unprotect(data)
        except pylibsrtp.Error:
            self.refused += bool(self.theirs)  # else the answer with the key is still on its way
            return
        super()._rtp_came(opened, source)

    def _rtcp_came(self, data: bytes, source: tuple[str, int]) -> None:
        self.raw.append(data)
        try:
            opened = self.opening.unprotect_rtcp(data)
        except pylibsrtp.Error:
            self.refused += bool(self.theirs)  # else the answer with the key is still on its way
            return
        super()._rtcp_came(opened, source)

    def send_packet(self, packet: bytes) -> None:
        self.clear.append(packet)
        self.sealed.append(self.sealing.protect(packet))
        super().send_packet(self.sealed[-1])

    def send_raw(self, packet: bytes) -> None:
        """Past the encryption."""
        super().send_packet(packet)

    def send_rtcp(self, packet: bytes) -> None:
        super().send_rtcp(self.sealing.protect_rtcp(packet))
