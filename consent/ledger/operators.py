"""Operators: people with a key of their own. Every act of theirs is signed by it and stands in the ledger.

A key is an Ed25519 key in a PEM file (PKCS 8), sealed by a passphrase; the office knows its public half.
Roles: a registrar issues challenges, registers, revokes, erases; a reviewer listens and decides, and may
revoke; an auditor reads, exports, resumes after a restore. `consent.ledger.acts` judges what they sign.
"""

from __future__ import annotations

import re
import secrets
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from consent.archive.keys import kid_of, public_raw, write_private
from consent.errors import OperatorError
from consent.grants.grant import b64, sign
from consent.ledger.standing import GATEWAY

ROLES: Final = ("registrar", "reviewer", "auditor")
ACT_TYP: Final = "operator-act+jws"
NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}\Z")


@dataclass(frozen=True, slots=True)
class OperatorKey:
    """An operator's own key, open in memory."""

    name: str
    private: Ed25519PrivateKey

    @classmethod
    def make(cls, name: str) -> Self:
        """Raises `OperatorError` for a name that is none."""
        if not NAME.match(name) or name == GATEWAY:
            raise OperatorError(
                f"{name!r} is not an operator's name: small letters, digits, '.', '_', '-', at most 64"
            )
        return cls(name, Ed25519PrivateKey.generate())

    @property
    def public(self) -> str:
        """The public half, base64url."""
        return b64(public_raw(self.private.public_key()))

    @property
    def kid(self) -> str:
        """The key's short name."""
        return kid_of(self.private.public_key())

    def save(self, path: Path, passphrase: bytes | None) -> None:
        """Writes the PEM, owner-only. Raises `OperatorError` when it is there."""
        sealing: KeySerializationEncryption = (
            BestAvailableEncryption(passphrase) if passphrase else NoEncryption()
        )
        pem = self.private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, sealing)
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_private(path, pem, replace_it=False)
        except FileExistsError:
            raise OperatorError(f"{path} exists; name another file") from None
        except OSError as error:
            raise OperatorError(f"{path}: {error.strerror}") from None

    @classmethod
    def load(cls, name: str, path: Path, passphrase: bytes | None) -> Self:
        """Raises `OperatorError`."""
        try:
            if stat.S_IMODE(path.stat().st_mode) & 0o077:
                raise OperatorError(f"{path} can be read by others; run: chmod 600 {path}")
            key = load_pem_private_key(path.read_bytes(), passphrase)
        except OSError as error:
            raise OperatorError(f"the key of {name}: {path}: {error.strerror}") from None
        except (ValueError, TypeError, UnsupportedAlgorithm):
            raise OperatorError(
                f"{path} does not open: the passphrase is wrong, or it is not a key"
            ) from None
        if not isinstance(key, Ed25519PrivateKey):
            raise OperatorError(f"{path} is not an Ed25519 key")
        return cls(name, key)

    @staticmethod
    def is_sealed(path: Path) -> bool:
        """Whether the file wants a passphrase."""
        try:
            return b"ENCRYPTED" in path.read_bytes()[:64]
        except OSError:
            return False

    def act(self, what: str, now: float, office: str, **about: Any) -> str:
        """The signed act, good once and for one office (`ConsentOffice.identity`).

        `about` says what exactly was decided; `consent.ledger.acts` says what each act must bind.
        """
        claims = {"op": self.name, "act": what, "jti": secrets.token_hex(16), "iat": now, "office": office}
        return sign({**about, **claims}, self.private, self.kid, ACT_TYP)
