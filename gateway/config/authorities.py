"""The certificates of a file, by their fingerprints: which authorities an operator believes."""

from __future__ import annotations

import hashlib
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from gateway.config.certificate import MAX_FILE
from gateway.errors import SettingsError


def authorities_in(file: Path, named: str) -> dict[str, x509.Certificate]:
    """In the file's order, by SHA-256 in small hexadecimal digits; at least one.

    `named`: what the file is called where its operator names it. Raises `SettingsError`.
    """
    try:
        with file.open("rb") as opened:
            found = x509.load_pem_x509_certificates(opened.read(MAX_FILE))
    except OSError as error:
        raise SettingsError(f"{named}: {file} cannot be read ({error.strerror})") from None
    except ValueError:
        raise SettingsError(f"{named}: {file} cannot be read (it holds no certificate in PEM)") from None
    der = serialization.Encoding.DER
    return {hashlib.sha256(one.public_bytes(der)).hexdigest(): one for one in found}


class AuthorityFile:
    """A file of authorities, which is looked at again. `all`: by fingerprint, as it was read last.

    Raises `SettingsError`.
    """

    def __init__(self, file: Path, named: str) -> None:
        """`named`: what the file is called where its operator names it."""
        self._file = file
        self._named = named
        self._seen = self._look()
        self.all = authorities_in(file, named)

    def changed(self) -> bool:
        """Takes what the file holds now; False: it is the same file as before.

        Raises `SettingsError` once for what does not hold: then `all` is as before.
        """
        seen = self._look()
        if seen == self._seen:
            return False
        self._seen = seen
        self.all = authorities_in(self._file, self._named)
        return True

    def _look(self) -> tuple[int, ...]:
        """When it was changed last, as far as that can be seen."""
        try:
            found = self._file.stat()
        except OSError:
            return ()  # who reads it says why
        return (found.st_mtime_ns, found.st_ino, found.st_size)
