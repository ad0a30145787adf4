"""A certificate that the gateway signs itself, for as long as nobody gives it a better one.

No browser trusts it by itself; whoever opens the page compares its fingerprint with the start panel's. It is
for two years, and a start within its last month makes another.
"""

from __future__ import annotations

import datetime
import ipaddress
import socket
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import ifaddr
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from gateway.config.private_file import write_private
from gateway.config.settings import Settings
from gateway.errors import StartError

LASTS: Final = datetime.timedelta(days=730)
"""Apple's systems refuse what is for longer than 825."""
ANEW_BEFORE_END: Final = datetime.timedelta(days=30)
MOST_NAMES: Final = 100


def own_certificate(settings: Settings, chain: Path, key: Path) -> None:
    """Makes the two files when they are not there, or about to end. Raises `StartError`."""
    if chain.exists() and key.exists() and not ends_soon(chain):
        return
    secret = ec.generate_private_key(ec.SECP256R1())
    now = datetime.datetime.now(datetime.UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, socket.gethostname()[:64] or "voicegate")])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(secret.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + LASTS)
        .add_extension(x509.SubjectAlternativeName(list(_names(settings))), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]),
            critical=False,
        )
        .sign(secret, hashes.SHA256())
    )
    pkcs8, plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    _put(key, secret.private_bytes(serialization.Encoding.PEM, pkcs8, plain))
    _put(chain, made.public_bytes(serialization.Encoding.PEM))


def ends_soon(chain: Path) -> bool:
    """Whether the first certificate of a file is over within a month, or cannot be read."""
    try:
        found = x509.load_pem_x509_certificates(chain.read_bytes())[0]
    except (OSError, ValueError):
        return True
    return found.not_valid_after_utc - datetime.datetime.now(datetime.UTC) < ANEW_BEFORE_END


def _names(settings: Settings) -> Iterable[x509.GeneralName]:
    """Each by which somebody may ask for this machine."""
    machine = socket.gethostname().lower()
    asked = [
        "localhost",
        machine,
        f"{machine.partition('.')[0]}.local",
        *(str(ip.ip if isinstance(ip.ip, str) else ip.ip[0]) for a in ifaddr.get_adapters() for ip in a.ips),
        settings.public_address or "",
        (settings.public_url or "").partition("://")[2].partition("/")[0].partition(":")[0],
        *settings.http_names,
    ]
    for one in list(dict.fromkeys(asked))[:MOST_NAMES]:
        try:
            yield x509.IPAddress(ipaddress.ip_address(one.partition("%")[0]))
        except ValueError:
            if one and one.isascii():
                yield x509.DNSName(one)


def _put(path: Path, content: bytes) -> None:
    try:
        write_private(path, content.decode())
    except OSError as error:
        raise StartError(f"{path} cannot be written: {error.strerror}") from None
