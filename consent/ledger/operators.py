"""Operators: people with a key of their own. Every act of theirs is signed by it and stands in the ledger.

A key is an Ed25519 key in a PEM file (PKCS 8), sealed by a passphrase; the office knows its public half.
Roles: a registrar issues challenges, registers, revokes, erases; a reviewer listens and decides, and may
revoke; an auditor reads, exports, resumes after a restore.
"""

from __future__ import annotations

import json
import re
import secrets
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from consent.archive.keys import kid_of, public_raw, write_private
from consent.errors import GrantRefused, OperatorError
from consent.grants.grant import GrantVerifier, b64, sign, unb64
from consent.ledger.books import Books
from consent.ledger.standing import GATEWAY, OperatorStanding, Standing

ROLES: Final = ("registrar", "reviewer", "auditor")
ACT_TYP: Final = "operator-act+jws"
NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}\Z")
ACT_LIFE_S: Final = 300.0
"""How old an act's signature may be when the office takes it."""

MAY: Final[Mapping[str, frozenset[str]]] = {
    "challenge": frozenset({"registrar"}),
    "register": frozenset({"registrar"}),
    "review": frozenset({"reviewer", "registrar"}),  # a registrar's only where the gateway took the voice
    "listen": frozenset(ROLES),
    "revoke": frozenset({"registrar", "reviewer"}),
    "erase": frozenset({"registrar"}),
    "block": frozenset({"registrar", "reviewer"}),
    "rotate": frozenset({"registrar"}),
    "resume": frozenset({"auditor"}),
    "operator": frozenset({"registrar", "reviewer"}),
}
"""Which roles may do what."""


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
                f"{name!r} is no operator's name: small letters, digits, '.', '_', '-', at most 64"
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
            raise OperatorError(f"{path} does not open: the passphrase is wrong, or it is no key") from None
        if not isinstance(key, Ed25519PrivateKey):
            raise OperatorError(f"{path} is no Ed25519 key")
        return cls(name, key)

    @staticmethod
    def is_sealed(path: Path) -> bool:
        """Whether the file wants a passphrase."""
        try:
            return b"ENCRYPTED" in path.read_bytes()[:64]
        except OSError:
            return False

    def act(self, what: str, now: float, **about: Any) -> str:
        """The signed act, for the office. `about` says what exactly was decided."""
        claims = {"op": self.name, "act": what, "jti": secrets.token_hex(8), "iat": now, **about}
        return sign(claims, self.private, self.kid, ACT_TYP)


def check_act(
    standing: Standing, token: str, what: str, now: float
) -> tuple[OperatorStanding, dict[str, Any]]:
    """Who signed an act, and its claims. Raises `OperatorError`."""
    try:
        name = str(json.loads(unb64(token.split(".")[1]))["op"])
    except (ValueError, KeyError, IndexError, TypeError):
        raise OperatorError("this is no operator's act") from None
    operator = standing.operators.get(name)
    if operator is None:
        raise OperatorError(f"no operator is called {name!r}; `voicegate operator list` shows them")
    if operator.revoked:
        raise OperatorError(f"the operator {name} was revoked")
    public = Ed25519PublicKey.from_public_bytes(unb64(operator.public))
    try:
        claims = GrantVerifier({kid_of(public): public}).claims(token, ACT_TYP)
    except GrantRefused:
        raise OperatorError(f"this key is not the one the office knows of {name}") from None
    if claims["act"] != what:
        raise OperatorError(f"{name} signed {claims['act']!r}, not {what!r}")
    if operator.role not in MAY[what]:
        roles = " or ".join(sorted(MAY[what]))
        raise OperatorError(f"{name} is {operator.role}; {what} takes a {roles}")
    if abs(now - float(claims["iat"])) > ACT_LIFE_S:
        raise OperatorError(f"the act of {name} was signed at another time; check the clocks")
    return operator, claims


class OperatorDesk:
    """Adds and revokes operators."""

    def __init__(self, books: Books) -> None:
        self._books = books

    def add(self, name: str, role: str, public: str, act: str | None) -> OperatorStanding:
        """Makes somebody an operator, by an act that names them and their key (base64url).

        Without an act only as a founder: while no voice was ever submitted and nobody has that role. Raises
        `OperatorError`, `LedgerError`.
        """
        if role not in ROLES:
            raise OperatorError(f"{role!r} is no role; there are {', '.join(ROLES)}")
        with self._books.writing() as writing:
            standing = writing.standing
            added_by = ""
            if act is not None:
                operator, claims = check_act(standing, act, "operator", self._books.clock())
                signed = (claims.get("name"), claims.get("role"), claims.get("public"))
                if signed != (name, role, public):
                    raise OperatorError(f"{operator.name} signed for another operator")
                added_by = operator.name
            elif standing.voices or any(
                known.role == role and not known.revoked for known in standing.operators.values()
            ):
                raise OperatorError(
                    f"there is a {role} already, or there are voices: an operator adds others (--as NAME)"
                )
            if name in standing.operators:
                raise OperatorError(f"there is, or was, an operator {name}; take another name")
            if any(known.public == public for known in standing.operators.values()):
                raise OperatorError("this key is another operator's")
            body = {"name": name, "role": role, "public": public, "added_by": added_by, "act": act or ""}
            writing.append("operator.added", None, body)
        return self._books.look().operators[name]

    def revoke(self, name: str, reason: str, act: str) -> None:
        """Takes an operator's rights; what they signed before stands.

        Raises `OperatorError`, `LedgerError`.
        """
        with self._books.writing() as writing:
            operator, claims = check_act(writing.standing, act, "operator", self._books.clock())
            known = writing.standing.operators.get(name)
            if known is None or claims.get("name") != name or claims.get("role") != "revoked":
                raise OperatorError(
                    f"no operator is called {name!r}, or {operator.name} signed something else"
                )
            if known.revoked:
                raise OperatorError(f"{name} was revoked already")
            body = {"name": name, "by": operator.name, "reason": reason[:500], "act": act}
            writing.append("operator.revoked", None, body)
