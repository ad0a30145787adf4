"""A trunk as its operator describes it: where it is, who we are there, and what may leave by it."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from gateway.config.emergency import EMERGENCY, is_emergency
from gateway.edge.grammar.sdes import SrtpRule

SIP_PORT: Final = 5060
SIPS_PORT: Final = 5061
Transport = Literal["udp", "tcp", "tls"]
KnownBy = Literal["address", "certificate", "either", "both"]
FINGERPRINT: Final = "sha256:"
"""What a fingerprint among names begins with."""

DEAR: Final = (
    "+1900", "+1976", "+448", "+449", "+49137", "+4918", "+49900", "+3389", "+43900", "+43930", "+41900",
    "+41901", "+41906", "+3990", "+3489", "+3480", "+870", "+878", "+881", "+882", "+883", "+888", "+979",
    "0900", "0137",
)  # fmt: skip
"""Numbers that cost by the minute or go by satellite: they leave only where the trunk's prefixes name at
least as much of them."""
_HOST: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::([0-9]{1,5}))?")


@dataclass(frozen=True, slots=True)
class TrunkHost:
    """One place of a trunk: a name or an address, and a port; None: what its records say, else the usual."""

    name: str
    port: int | None

    @classmethod
    def read(cls, text: str) -> TrunkHost:
        """Raises `ValueError`."""
        found = _HOST.fullmatch(text)
        port = int(found[2]) if found is not None and found[2] else None
        if found is None or (port is not None and not 0 < port < 65_536):
            raise ValueError(f'{text!r} is not a host; write for example "sip.example.com:5060"')
        return cls(found[1].strip("[]"), port)

    @property
    def address(self) -> str | None:
        """The IP address, when it is one."""
        try:
            return str(ipaddress.ip_address(self.name))
        except ValueError:
            return None

    def __str__(self) -> str:
        name = f"[{self.name}]" if ":" in self.name else self.name
        return name if self.port is None else f"{name}:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Trunk:
    """One `[[trunk]]`. What is not named may not leave: without `prefixes` no call goes out."""

    name: str
    hosts: tuple[TrunkHost, ...]
    """tried in this order"""
    transport: Transport = "udp"
    domain: str = ""
    """in From, To and the Request-URI; empty: the first host"""
    user: str = ""
    """who we are there; empty: we are known by our address"""
    password: str = field(default="", repr=False)
    realm: str = ""
    """the only one whose challenges are answered; empty: any"""
    register: bool = False
    expires_s: int = 600
    numbers: tuple[str, ...] = ()
    """whom our calls come from, the usual one first; nobody else is ever named as the caller"""
    calls: int = 2
    """at once"""
    per_minute: int = 10
    prefixes: tuple[str, ...] = ()
    """of the numbers that may be called"""
    networks: tuple[str, ...] = ()
    """where its own calls come from, beside its hosts"""
    trusted: bool = False
    """what its headers say of who calls is believed"""
    srtp: SrtpRule = "off"
    ping_s: float = 30.0
    """between two OPTIONS; 0: none"""
    sips: bool = False
    """it is called by `sips:`: over TLS on each hop, or not at all (RFC 5630)"""
    certificate: Path | None = None
    """shown to it, with the `key`; None: the house's"""
    key: Path | None = None
    authority: Path | None = None
    """whose certificates are its own, of its servers and its clients; None: the house's trust"""
    shows: tuple[str, ...] = ()
    """names of the certificate by which it connects to us, or "sha256:" and a fingerprint"""
    known_by: KnownBy = "address"
    """how we know that somebody who comes to us is the trunk"""

    @property
    def realm_host(self) -> str:
        """The domain that stands in our requests."""
        host = self.domain or self.hosts[0].name
        return f"[{host}]" if ":" in host else host

    @property
    def scheme(self) -> str:
        """Of URIs that name somebody there."""
        return "sips" if self.sips else "sip"

    @property
    def sound_rule(self) -> SrtpRule:
        """Whether sound is encrypted: keys go over TLS alone."""
        return self.srtp if self.transport == "tls" else "off"

    @property
    def default_port(self) -> int:
        return SIPS_PORT if self.transport == "tls" else SIP_PORT

    def why_not(self, number: str) -> str | None:
        """Why a number may not be called by this trunk; None: it may."""
        if is_emergency(number, EMERGENCY):
            return "it is an emergency number, and this house calls none"
        named = [prefix for prefix in self.prefixes if number.startswith(prefix)]
        if not self.prefixes:
            return "the trunk names no prefixes that may be called"
        if not named:
            return "the number has none of the trunk's prefixes"
        whole = _international(number)
        dear = max((one for one in DEAR if whole.startswith(one)), key=len, default="")
        if dear and not any(_international(prefix).startswith(dear) for prefix in named):
            return f"the number is a premium or satellite number ({dear}), which the trunk does not name"
        return None

    def shown_as(self, caller: str) -> str:
        """The number that a call comes from: the caller's own where the list has it, else the usual one."""
        if caller in self.numbers:
            return caller
        return self.numbers[0] if self.numbers else self.user or "anonymous"


def _international(number: str) -> str:
    """With the + that `00` and `011` stand for."""
    for dialled in ("00", "011"):
        if number.startswith(dialled):
            return "+" + number[len(dialled) :]
    return number
