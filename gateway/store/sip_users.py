"""Who may call: SIP digest users, and the access that a gateway opened to the LAN makes for itself.

Passwords are not kept: only HA1 (RFC 8760: MD5 and SHA-256 of "name:voicegate:password"), which is as good as
the password within this realm, so the file is owner-only like everything in the data directory. A telephone
that logs in as "name@voicegate" hashes that, so there is an HA1 for it too; users of before it was kept log
in by their plain name until they are added again. Names and passwords are hashed as UTF-8 in normal form C
(RFC 7616 §4).
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import secrets
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from gateway.config.private_file import write_private
from gateway.errors import VoicegateError

REALM: Final = "voicegate"
FIRST_USER: Final = "phone"
CALLER: Final = "caller"
"""The role of a user unless it is told otherwise."""
MIN_PASSWORD: Final = 8
MAX_NAME: Final = 64
_IN_NAMES: Final = frozenset("_.+-")
_TYPED: Final = "abcdefghjkmnpqrstuvwxyz23456789"
"""What somebody who types on a telephone cannot confuse."""

Algorithm = Literal["MD5", "SHA-256"]
ALGORITHMS: Final[tuple[Algorithm, ...]] = ("MD5", "SHA-256")
Encryption = Literal["required", "optional", "off"]
ENCRYPTIONS: Final[tuple[Encryption, ...]] = ("required", "optional", "off")
"""Whether a user's sound is encrypted."""


class UsersError(VoicegateError):
    """A SIP user cannot be added, removed or read."""


@dataclass(frozen=True, slots=True)
class SipUser:
    """What is kept of one user: hashes, lower-case hex."""

    ha1: dict[str, str]
    """by algorithm"""
    at_realm: dict[str, str]
    """those of "name@voicegate"; empty for users of before these were kept"""
    legacy: bool = False
    """its telephone may log in by RFC 2069, whose answers have no count"""
    srtp: Encryption | None = None
    """None: as the house has it"""
    role: str = CALLER
    """what it may do (`gateway.front.admission.rights`)"""

    @classmethod
    def of(
        cls,
        name: str,
        password: str,
        *,
        legacy: bool = False,
        srtp: Encryption | None = None,
        role: str = CALLER,
    ) -> SipUser:
        """The user with that password."""
        return cls(hashes(name, password), hashes(f"{name}@{REALM}", password), legacy, srtp, role)

    @classmethod
    def read(cls, row: Any) -> SipUser:
        """From the file. Raises `ValueError`, `KeyError`, `TypeError` or `AttributeError` if it is broken."""
        at_realm = row.get("at_realm", {})
        if not isinstance(row.get("legacy", False), bool):
            raise TypeError("legacy is true or false")
        if row.get("srtp") not in (None, *ENCRYPTIONS):
            raise ValueError("srtp is required, optional or off")
        return cls(
            {algorithm: str(row[algorithm]) for algorithm in ALGORITHMS},
            {algorithm: str(at_realm[algorithm]) for algorithm in ALGORITHMS if at_realm},
            row.get("legacy", False),
            row.get("srtp"),
            str(row.get("role", CALLER)),
        )

    def row(self) -> dict[str, Any]:
        """For the file."""
        more: dict[str, Any] = {"at_realm": self.at_realm} if self.at_realm else {}
        more |= {"legacy": True} if self.legacy else {}
        more |= {"role": self.role} if self.role != CALLER else {}
        return {**self.ha1, **more, **({"srtp": self.srtp} if self.srtp else {})}


class SipUsers:
    """The users of one data directory. Reads the file again when another process changed it."""

    def __init__(self, data_dir: Path) -> None:
        self._path = data_dir / "sip_users.json"
        self._first = data_dir / "first_user.json"
        self._seen: tuple[int, int] | None = None
        self._users: dict[str, SipUser] = {}

    def names(self) -> list[str]:
        """The users' names, sorted."""
        self._reread()
        return sorted(self._users)

    def ha1(self, name: str, algorithm: Algorithm = "MD5") -> str | None:
        """The hash that checks a user's digest, lower-case hex; None for an unknown user.

        `name` as the telephone wrote it, so with "@voicegate" behind it if that is what it hashed.
        """
        self._reread()
        plain, at, realm = composed(name).partition("@")
        user = self._users.get(plain)
        if user is None or (at and realm != REALM):
            return None
        return (user.at_realm or user.ha1)[algorithm] if at else user.ha1[algorithm]

    def is_legacy(self, name: str) -> bool:
        """Whether the user's telephone may log in by RFC 2069."""
        user = self._named(name)
        return user is not None and user.legacy

    def srtp(self, name: str) -> Encryption | None:
        """Whether the user's sound is encrypted; None: as the house has it."""
        user = self._named(name)
        return None if user is None else user.srtp

    def _named(self, name: str) -> SipUser | None:
        self._reread()
        return self._users.get(composed(name).removesuffix(f"@{REALM}"))

    def role(self, name: str) -> str:
        """What the user may do, by its role's name; of a user that is not there yet, what it would get."""
        user = self._named(name)
        return CALLER if user is None else user.role

    def add(
        self,
        name: str,
        password: str,
        *,
        legacy: bool = False,
        srtp: Encryption | None = None,
        role: str | None = None,
    ) -> None:
        """Adds a user, or gives an existing one another password. Raises `UsersError`.

        `legacy`: its telephone may answer without a count (RFC 2069), so that who sees one answer can use it
        before the telephone does, though only once and from the same address. `srtp`: whether its sound is
        encrypted, `role`: what it may do; unless that is said, it stays as it was, or is as the house has it.
        """
        name, password = composed(name), composed(password)
        if not 0 < len(name) <= MAX_NAME or not all(map(_is_in_names, name)):
            raise UsersError(f"{name!r} is not a user name; use up to 64 letters, digits, and _ . + -")
        if len(password) < MIN_PASSWORD:
            raise UsersError(f"the password is shorter than {MIN_PASSWORD} characters; take a longer one")
        if any(ord(character) < 32 for character in password):
            raise UsersError("the password holds a line break or another control character")
        with self._locked():
            known = self._users.get(name)
            srtp = srtp or (None if known is None else known.srtp)
            role = role or (CALLER if known is None else known.role)
            self._users[name] = SipUser.of(name, password, legacy=legacy, srtp=srtp, role=role)
            self._write()
            if self._first_name() == name:
                self._first.unlink(missing_ok=True)

    def remove(self, name: str) -> None:
        """Removes a user. Raises `UsersError` when there is no such user."""
        name = composed(name)
        with self._locked():
            if self._users.pop(name, None) is None:
                raise UsersError(f"there is no SIP user {name!r}; `voicegate sip user list` shows them")
            self._write()
            if self._first_name() == name:
                self._first.unlink(missing_ok=True)

    def first(self) -> tuple[str, str] | None:
        """(name, password) of the user that a gateway on the LAN makes when there is none yet.

        The same at every start, until that user is removed or given another password; None when the
        operator has users of their own only.
        """
        with self._locked():
            if not self._users:
                password = typed_secret()
                self._users[FIRST_USER] = SipUser.of(FIRST_USER, password)
                self._write()
                write_private(self._first, json.dumps({"name": FIRST_USER, "password": password}))
                return FIRST_USER, password
            try:
                kept = json.loads(self._first.read_text())
                return str(kept["name"]), str(kept["password"])
            except FileNotFoundError:
                return None
            except (ValueError, KeyError):
                raise UsersError(f"{self._first} is broken; remove it and the user {FIRST_USER!r}") from None

    def _first_name(self) -> str | None:
        try:
            return str(json.loads(self._first.read_text())["name"])
        except (FileNotFoundError, ValueError, KeyError):
            return None

    def _reread(self) -> None:
        try:
            status = self._path.stat()
        except FileNotFoundError:
            self._seen, self._users = None, {}
            return
        now = (status.st_mtime_ns, status.st_ino)
        if now == self._seen:
            return
        if status.st_mode & 0o077:
            raise UsersError(f"{self._path} can be read by others; run: chmod 600 {self._path}")
        try:
            table = json.loads(self._path.read_text())
            users = {name: SipUser.read(row) for name, row in table["users"].items()}
        except (ValueError, KeyError, TypeError, AttributeError):
            raise UsersError(f"{self._path} is broken; remove it and add the users again") from None
        self._seen, self._users = now, users

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with (self._path.parent / "sip_users.lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                self._reread()
                yield
        except OSError as error:
            raise UsersError(_unwritten(self._path, error)) from None

    def _write(self) -> None:
        users = {name: user.row() for name, user in self._users.items()}
        write_private(self._path, json.dumps({"realm": REALM, "users": users}, indent=1))
        self._seen = None


def composed(text: str) -> str:
    """Unicode's normal form C: what a keyboard sends as a letter and an accent is one letter."""
    return unicodedata.normalize("NFC", text)


def _is_in_names(character: str) -> bool:
    return unicodedata.category(character)[0] in "LMN" or character in _IN_NAMES


def hashes(name: str, password: str) -> dict[str, str]:
    """HA1 by algorithm, in hex."""
    secret = f"{name}:{REALM}:{password}".encode()
    md5 = hashlib.md5(secret, usedforsecurity=False).hexdigest()  # what RFC 2617 telephones speak
    return {"MD5": md5, "SHA-256": hashlib.sha256(secret).hexdigest()}


def console_token(data_dir: Path) -> str:
    """The token of the page and the API, made at the first call.

    Raises `UsersError` when others may read its file.
    """
    path = data_dir / "console_token"
    try:
        if path.stat().st_mode & 0o077:
            raise UsersError(f"{path} can be read by others; remove it, and a new one is made")
        return path.read_text().strip()
    except FileNotFoundError:
        try:
            data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            with contextlib.suppress(FileExistsError):
                write_private(path, secrets.token_urlsafe(24), new=True)
            return path.read_text().strip()
        except OSError as error:
            raise UsersError(_unwritten(path, error)) from None


def _unwritten(path: Path, error: OSError) -> str:
    return (
        f"{path} was not written: {error.strerror}; make room there, give it to this user, "
        "or name another data directory (VOICEGATE_DATA_DIR)"
    )


def typed_secret() -> str:
    """79 random bits that can be typed: "k7vd-9xq2-m4tr-h6bn"."""
    return "-".join("".join(secrets.choice(_TYPED) for _ in range(4)) for _ in range(4))
