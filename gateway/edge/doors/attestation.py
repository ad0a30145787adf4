"""How sure a caller's network is of its number (STIR/SHAKEN): A, B or C, where a signature says so.

All that is not proven is `none`, and never refuses a call (RFC 8224 §6.2). Certificates come from `chain_at`,
which does not wait: the first call with one that is not there yet is `none`.
"""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Final, Literal

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.x509 import verification

from gateway.dialplan.uri_parts import split_uri
from gateway.edge.grammar.header import addresses
from gateway.edge.grammar.passport import NoPassport, Passport, digits, read_passport
from gateway.edge.grammar.sip_message import Request

FRESH_S: Final = 60
"""How far `iat` may be from our clock, either way (RFC 8224 §6.2.2)."""
MOST_ABOVE: Final = 3
"""Certificates between a signer's and an authority of the list."""
TN_AUTH_LIST: Final = x509.ObjectIdentifier("1.3.6.1.5.5.7.1.26")
_TELEPHONE: Final = ("sip", "sips", "tel")

Chain = tuple[x509.Certificate, ...]
"""A signer's certificate, and those above it."""


@dataclass(frozen=True, slots=True)
class CallAttestation:
    """`why` says in words of ours why it is none; empty otherwise."""

    level: Literal["A", "B", "C", "none"]
    why: str = ""

    def to_headers(self) -> dict[str, str]:
        """As it stands among what peers say of a call; none of theirs has such a name."""
        return {"attestation": self.level, **({"attestation-why": self.why} if self.why else {})}


class SignedCalls:
    """Judges INVITEs. `authorities` are the operator's; `hosts` where certificates may be, with ports other
    than 443; `chain_at` has what is there of a URL at once, or says why nothing is."""

    def __init__(
        self,
        authorities: Iterable[x509.Certificate],
        hosts: Collection[str],
        chain_at: Callable[[str], Chain | str],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.believe(authorities)
        self._hosts = frozenset(hosts)
        self._chain_at = chain_at
        self._clock = clock

    def believe(self, authorities: Iterable[x509.Certificate]) -> None:
        """These from now on, and no others."""
        self._store = verification.Store(list(authorities))

    def judge(self, request: Request, *, trusted: bool) -> CallAttestation:
        """Of a request; who sent it is `trusted` where its P-Asserted-Identity is believed. Never raises."""
        try:
            return CallAttestation(self._proven(request, trusted=trusted))
        except NoPassport as why:
            return CallAttestation("none", str(why))
        except Exception as error:  # a stranger's bytes: whatever they do, nothing is proven
            return CallAttestation("none", f"{type(error).__name__} while it was judged")

    def _proven(self, request: Request, *, trusted: bool) -> Literal["A", "B", "C"]:
        """Raises `NoPassport`. What costs least comes first; no certificate is asked for in vain."""
        passport = read_passport(request.headers.getlist("Identity"))
        now = self._clock()
        if abs(now - passport.at) > FRESH_S:
            raise NoPassport("signed too long ago" if passport.at < now else "signed in the future")
        if _callers(request, trusted=trusted) != {passport.caller}:
            raise NoPassport("another caller's number")
        if _number(request.to_address.uri.plain) not in passport.called:
            raise NoPassport("another called number")
        if passport.host not in self._hosts:
            raise NoPassport("certificate's host is not on the list")
        chain = self._chain_at(passport.url)
        if isinstance(chain, str):
            raise NoPassport(chain)
        self._check_chain(chain, now)
        _check_signature(passport, chain[0])
        return passport.attest

    def _check_chain(self, chain: Chain, now: float) -> None:
        at = datetime.datetime.fromtimestamp(now, datetime.UTC)
        verifier = (
            verification.PolicyBuilder()
            .store(self._store)
            .time(at)
            .max_chain_depth(MOST_ABOVE)
            .extension_policies(ca_policy=_AUTHORITIES, ee_policy=_SIGNERS)
            .build_client_verifier()
        )
        try:
            verifier.verify(chain[0], list(chain[1:]))
        except verification.VerificationError:
            raise NoPassport("certificate does not verify") from None
        if not _is_providers(chain[0]):
            raise NoPassport("certificate is not a telephone company's")


def _is_providers(signer: x509.Certificate) -> bool:
    """Whether its TNAuthList names codes of telephone companies, and nothing else (RFC 8226 §9).

    One for numbers (RFC 9060) signs no SHAKEN; one for a web server signs no calls.
    """
    try:
        found = signer.extensions.get_extension_for_oid(TN_AUTH_LIST).value
    except (x509.ExtensionNotFound, x509.DuplicateExtension):
        return False
    value = found.value if isinstance(found, x509.UnrecognizedExtension) else b""
    entries = value[2:]
    if value[:1] != b"\x30" or len(value) < 2 or value[1] > 0x7F or value[1] != len(entries) or not entries:
        return False
    while entries:
        if len(entries) < 5 or entries[0] != 0xA0 or entries[2] != 0x16:  # [0] IA5String: a code
            return False
        size = entries[1] + 2
        if size != entries[3] + 4 or len(entries) < size or not entries[4:size].isalnum():
            return False
        entries = entries[size:]
    return True


def _check_signature(passport: Passport, signer: x509.Certificate) -> None:
    key = signer.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise NoPassport("certificate has another kind of key")
    r, s = int.from_bytes(passport.signature[:32]), int.from_bytes(passport.signature[32:])
    try:
        key.verify(encode_dss_signature(r, s), passport.signed, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        raise NoPassport("signature does not verify") from None


def _callers(request: Request, *, trusted: bool) -> set[str]:
    """All numbers that the call says are its caller's: a plan may go by any, so each must be signed."""
    said = [request.from_address]
    if trusted:
        try:
            said += addresses(request.headers.getlist("P-Asserted-Identity"))
        except ValueError:
            raise NoPassport("P-Asserted-Identity cannot be read") from None
    return {number for one in said if (number := _number(one.uri.plain))}


def _number(uri: str) -> str | None:
    if uri.partition(":")[0] not in _TELEPHONE:
        return None
    return digits(split_uri(uri)[0])


def _signs_calls(policy: verification.Policy, signer: x509.Certificate, usage: x509.KeyUsage | None) -> None:
    if usage is None or not usage.digital_signature:
        raise ValueError("its key does not sign")


def _is_authority(
    policy: verification.Policy, authority: x509.Certificate, bounds: x509.BasicConstraints | None
) -> None:
    if bounds is None or not bounds.ca:
        raise ValueError("it is nobody's authority")


def _is_no_authority(
    policy: verification.Policy, signer: x509.Certificate, bounds: x509.BasicConstraints | None
) -> None:
    if bounds is not None and bounds.ca:
        raise ValueError("an authority signs no calls")


def _signs_certificates(
    policy: verification.Policy, authority: x509.Certificate, usage: x509.KeyUsage | None
) -> None:
    if usage is not None and not usage.key_cert_sign:
        raise ValueError("its key signs no certificates")


_ANY: Final = verification.Criticality.AGNOSTIC
_AUTHORITIES: Final = (
    verification.ExtensionPolicy.permit_all()
    .require_present(x509.BasicConstraints, _ANY, _is_authority)
    .may_be_present(x509.KeyUsage, _ANY, _signs_certificates)
)
_SIGNERS: Final = (
    verification.ExtensionPolicy.permit_all()
    .require_present(x509.KeyUsage, _ANY, _signs_calls)
    .may_be_present(x509.BasicConstraints, _ANY, _is_no_authority)
)
