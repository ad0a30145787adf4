"""A certificate authority of a test's own, and what it signs."""

from __future__ import annotations

import datetime
import ipaddress
import ssl
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

NOW = datetime.datetime.now(datetime.UTC)


class Authority:
    """`ca` is its own certificate's file."""

    def __init__(self, folder: Path, name: str = "test authority") -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        folder.mkdir(parents=True, exist_ok=True)
        self.ca = folder / f"{name.replace(' ', '-')}.pem"
        own = (
            self._builder(self._name, self._key)
            .issuer_name(self._name)
            .add_extension(x509.BasicConstraints(True, 0), True)
        )
        self.ca.write_bytes(own.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))

    def _builder(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, days: float = 1.0
    ) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(NOW - datetime.timedelta(days=3))
            .not_valid_after(NOW + datetime.timedelta(days=days))
        )

    def sign(
        self, *names: str, to: str = "cert", days: float = 1.0, itself: bool = False
    ) -> tuple[Path, Path]:
        """(chain, key) for host names, addresses and URIs, in files of that name.

        `days` until it ends; `itself`: signed by its own key, and by nobody else.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        alternatives: list[x509.GeneralName] = []
        for name in names:
            if ":" in name and not name.startswith("::"):
                alternatives.append(x509.UniformResourceIdentifier(name))
                continue
            try:
                alternatives.append(x509.IPAddress(ipaddress.ip_address(name)))
            except ValueError:
                alternatives.append(x509.DNSName(name))
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])])
        built = self._builder(subject, key, days)
        built = built.issuer_name(subject if itself else self._name)
        made = built.add_extension(x509.SubjectAlternativeName(alternatives), False)
        chain, secret = self._folder / f"{to}.pem", self._folder / f"{to}-key.pem"
        chain.write_bytes(
            made.sign(key if itself else self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
        )
        secret.touch(0o600)
        secret.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return chain, secret

    def trusted(self) -> ssl.SSLContext:
        """What a client checks by that knows this authority alone."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(self.ca)
        return context
