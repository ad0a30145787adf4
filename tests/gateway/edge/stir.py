"""Telephone companies of a test: an authority, signers, and what they sign of calls (RFC 8225, RFC 8588)."""

from __future__ import annotations

import base64
import datetime
import json
import time
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.x509.oid import NameOID

from gateway.edge.doors.attestation import TN_AUTH_LIST

URL = "https://certificates.example/acme.pem"
CALLER = "12155551212"
CALLED = "12155551213"
PROVIDER = bytes.fromhex("3008a006160437303946")
"""A TNAuthList of one code, "709F"."""
ONE_NUMBER = bytes.fromhex("300fa20d160b") + b"12155551212"
DAY = datetime.timedelta(days=1)


def name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def pem(*certificates: x509.Certificate) -> bytes:
    return b"".join(one.public_bytes(serialization.Encoding.PEM) for one in certificates)


class StirAuthority:
    """`certificate` is its own; `above` signs it, or nobody."""

    def __init__(
        self,
        called: str = "authority",
        above: StirAuthority | None = None,
        *,
        ca: bool = True,
        certifies: bool = True,
    ) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = name(called)
        signer = above or self
        made = (
            self.begun(self.name, self.key.public_key())
            .issuer_name(signer.name)
            .add_extension(x509.BasicConstraints(ca, None), True)
            .add_extension(usage(signs=not ca, certificates=certifies), True)
        )
        if not ca:
            made = made.add_extension(x509.UnrecognizedExtension(TN_AUTH_LIST, PROVIDER), False)
        self.certificate = made.sign(signer.key, hashes.SHA256())

    @staticmethod
    def begun(subject: x509.Name, key: Any, days: float = 1.0) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - 3 * DAY)
            .not_valid_after(now + days * DAY)
        )

    def signer(
        self,
        days: float = 1.0,
        codes: bytes | None = PROVIDER,
        curve: ec.EllipticCurve | None = None,
        *,
        signs: bool = True,
        strange: bool = False,
    ) -> CallSigner:
        """`strange`: with a critical extension that nobody knows."""
        key = ec.generate_private_key(curve or ec.SECP256R1())
        made = self.begun(name("ACME 709F"), key.public_key(), days).issuer_name(self.name)
        made = made.add_extension(usage(signs=signs), True)
        if codes is not None:
            made = made.add_extension(x509.UnrecognizedExtension(TN_AUTH_LIST, codes), False)
        if strange:
            made = made.add_extension(
                x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.99999.1"), b"\x05\x00"), True
            )
        return CallSigner(key, made.sign(self.key, hashes.SHA256()))


class CallSigner:
    """Signs calls."""

    def __init__(self, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> None:
        self.key = key
        self.certificate = certificate

    def identity(
        self,
        attest: str = "A",
        *,
        at: int | None = None,
        header: dict[str, Any] | None = None,
        claims: dict[str, Any] | None = None,
        info: str | None = None,
        more: str = ";alg=ES256;ppt=shaken",
    ) -> str:
        """The value of an `Identity` header. `header` and `claims` replace what would stand there."""
        head = {"alg": "ES256", "ppt": "shaken", "typ": "passport", "x5u": URL, **(header or {})}
        said = {
            "attest": attest,
            "dest": {"tn": [CALLED]},
            "iat": int(time.time()) if at is None else at,
            "orig": {"tn": CALLER},
            "origid": "123e4567-e89b-12d3-a456-426655440000",
            **(claims or {}),
        }
        text = f"{part(head)}.{part(said)}"
        return f"{text}.{self.signature(text)};info=<{head['x5u'] if info is None else info}>{more}"

    def signature(self, text: str) -> str:
        r, s = decode_dss_signature(self.key.sign(text.encode(), ec.ECDSA(hashes.SHA256())))
        return octets(r.to_bytes(48)[-32:] + s.to_bytes(48)[-32:])  # of another curve what fits


def usage(*, signs: bool = False, certificates: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(signs, False, False, False, False, certificates, certificates, False, False)


def octets(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def part(table: object) -> str:
    return octets(json.dumps(table, separators=(",", ":"), sort_keys=True).encode())
