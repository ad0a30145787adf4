"""The gateway's certificate: what SIP over TLS, the page and WHIP show, read anew when its files change.

New files take effect at the next handshake; open connections keep what they have. Files that do not hold
(half written, another's key) change nothing.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import os
import ssl
import weakref
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final, Literal, NoReturn

from cryptography import x509

from gateway.errors import SettingsError

Clients = Literal["off", "asked", "required"]
"""Whether peers must show a certificate: never, if they have one, always."""
VERIFY: Final = {"off": ssl.CERT_NONE, "asked": ssl.CERT_OPTIONAL, "required": ssl.CERT_REQUIRED}
OTHERS: Final = 0o007
HOUSE: Final = ("VOICEGATE_TLS_CERTIFICATE", "VOICEGATE_TLS_KEY")
MAX_FILE: Final = 1 << 20


class Certificate:
    """A chain (PEM, the gateway's own first) and its key. Raises `SettingsError` when they do not hold."""

    def __init__(self, chain: Path, key: Path, named: tuple[str, str] = HOUSE) -> None:
        """`named`: what the two files are called where an operator names them."""
        self._chain_path = chain
        self._key_path = key
        self._named = named
        self._contexts: weakref.WeakSet[ssl.SSLContext] = weakref.WeakSet()
        self._seen = self._look()
        self._chain, self._key = self._read()
        self._load_into([ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)])

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the gateway's own certificate, as browsers show it."""
        der = ssl.PEM_cert_to_DER_cert(_first(self._chain))
        return hashlib.sha256(der).digest().hex(":").upper()

    def ends(self) -> datetime.datetime:
        """When the gateway's own certificate is over. Raises `ValueError` where it does not say."""
        return x509.load_pem_x509_certificate(_first(self._chain).encode()).not_valid_after_utc

    def serving(
        self, *, clients: Clients = "off", authorities: Path | None = None, trunks: str = ""
    ) -> ssl.SSLContext:
        """A context for a server, which follows the files.

        `authorities`: whose signature a client's certificate needs; `trunks`: further ones (PEM), for whose
        sake clients are asked for a certificate if they have one. Raises `SettingsError`.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if clients != "off":
            if authorities is None:
                raise SettingsError("VOICEGATE_TLS_CLIENT_CA: name the authorities of clients' certificates")
            _trust(context, authorities, "VOICEGATE_TLS_CLIENT_CA")
            context.verify_mode = VERIFY[clients]
        if trunks:
            context.load_verify_locations(cadata=trunks)
            context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # an authority may be an intermediate one
            context.verify_mode = VERIFY["required" if clients == "required" else "asked"]
            context.options |= ssl.OP_NO_RENEGOTIATION
        return self._kept(context)

    def asking(self, authorities: Path | None = None) -> ssl.SSLContext:
        """A context for connections to servers; this certificate is shown to who asks for one.

        Name and chain of theirs are checked. `authorities`: whom to trust instead of the system's. Raises
        `SettingsError`.
        """
        return self._kept(trusting(authorities))

    def _kept(self, context: ssl.SSLContext) -> ssl.SSLContext:
        self._load_into([context])
        self._contexts.add(context)
        return context

    def changed(self) -> bool:
        """Whether the files are new and hold: then all contexts have them.

        Raises `SettingsError` once for new ones that do not hold; what was there stays.
        """
        seen = self._look()
        if seen == self._seen:
            return False
        self._seen = seen
        before = (self._chain, self._key)
        self._chain, self._key = self._read()
        try:
            # one that fails in the middle would be left with a chain and another's key
            self._load_into([ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)])
            self._load_into(list(self._contexts))
        except SettingsError:
            self._chain, self._key = before
            raise
        return True

    def _look(self) -> tuple[object, ...]:
        try:
            return tuple(
                (found.st_mtime_ns, found.st_ino, found.st_size)
                for found in (self._chain_path.stat(), self._key_path.stat())
            )
        except OSError as error:
            raise self._unreadable(Path(error.filename or self._chain_path), error) from None

    def _read(self) -> tuple[bytes, bytes]:
        try:
            mode = self._key_path.stat().st_mode
            if mode & OTHERS:
                raise SettingsError(
                    f"{self._named[1]}: every user of this machine may read {self._key_path} "
                    f"(mode {mode & 0o777:o}), and be this gateway; chmod 600 {self._key_path}"
                )
            return _bytes(self._chain_path), _bytes(self._key_path)
        except OSError as error:
            raise self._unreadable(Path(error.filename or self._key_path), error) from None

    def _unreadable(self, path: Path, error: OSError) -> SettingsError:
        named = self._named[path == self._key_path]
        return SettingsError(f"{named}: {path} cannot be read ({os.strerror(error.errno or 0)})")

    def _load_into(self, contexts: Iterable[ssl.SSLContext]) -> None:
        """From copies, since the files may be another pair by the next line. Raises `SettingsError`."""
        with _held(self._chain) as chain, _held(self._key) as key:
            for context in contexts:
                try:
                    context.load_cert_chain(chain, key, password=_no_password)
                except (ssl.SSLError, OSError, ValueError) as error:
                    why = getattr(error, "reason", None) or "they are not PEM"
                    if "passphrase" in str(error):
                        why = "the key has a passphrase, and there is nobody to ask for it"
                    raise SettingsError(
                        f"{self._named[0]}: {self._chain_path} and {self._key_path} cannot be used "
                        f"together ({why})"
                    ) from None


Trust = Callable[[Path | None, Certificate | None], ssl.SSLContext]
"""A context for connections to servers: of these authorities, with this certificate, where they are given;
else the house's. Raises `SettingsError`."""


@contextlib.contextmanager
def _held(content: bytes) -> Iterator[str]:
    """A path to it, in memory alone; it is gone afterwards."""
    number = os.memfd_create("tls")
    try:
        os.write(number, content)
        yield f"/proc/self/fd/{number}"
    finally:
        os.close(number)


def asking(authorities: Path | None = None, certificate: Certificate | None = None) -> ssl.SSLContext:
    """A context for connections to servers, to which `certificate` is shown. Raises `SettingsError`."""
    return trusting(authorities) if certificate is None else certificate.asking(authorities)


def trusting(authorities: Path | None = None) -> ssl.SSLContext:
    """A context for connections to servers, without a certificate of ours. Raises `SettingsError`."""
    context = ssl.create_default_context() if authorities is None else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if authorities is not None:
        _trust(context, authorities, "VOICEGATE_TLS_TRUST")
    return context


def _trust(context: ssl.SSLContext, authorities: Path, setting: str) -> None:
    try:
        context.load_verify_locations(authorities)
    except (ssl.SSLError, OSError) as error:
        why = getattr(error, "reason", None) or getattr(error, "strerror", None) or "not PEM"
        raise SettingsError(f"{setting}: {authorities} cannot be read ({why})") from None


def _first(chain: bytes) -> str:
    end = "-----END CERTIFICATE-----"
    text = chain.decode("ascii", errors="replace")
    return text[text.index("-----BEGIN CERTIFICATE-----") : text.index(end) + len(end)]


def _bytes(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(MAX_FILE)


def _no_password() -> NoReturn:
    raise ValueError("it has a passphrase")
