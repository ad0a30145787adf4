"""The office's own keys: Ed25519 keys that sign, and master keys that wrap the voices' keys.

Both are rings, the newest last: the newest is used, the older ones still verify and unwrap. They lie in one
owner-only file, replaced whole. Several hosts on one database share this file. Of a signing key that was
revoked the file keeps the public half alone: what the ledger held from before still verifies with it.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import secrets
import stat
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from consent.errors import VaultError

KEY_FILE: Final = "office-keys.json"
PUBLIC_FILE: Final = "grant-keys.json"
FIRST_FORM: Final = "grant-key"
"""Where the signing key lay before there was a ring; taken over."""
HANDLE_DOMAIN: Final = b"voicegate voice handle"


def public_raw(key: Ed25519PublicKey) -> bytes:
    """The 32 bytes of a public key (RFC 8032)."""
    return key.public_bytes(Encoding.Raw, PublicFormat.Raw)


def read_public(text: str) -> Ed25519PublicKey:
    """A public key from base64url. Raises `ValueError`."""
    return Ed25519PublicKey.from_public_bytes(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))


def kid_of(key: Ed25519PublicKey) -> str:
    """A key's short name: 12 hex digits of its SHA-256."""
    return hashlib.sha256(public_raw(key)).hexdigest()[:12]


def write_private(path: Path, content: bytes, *, replace_it: bool) -> None:
    """Writes an owner-only file whole. Raises `FileExistsError` when it is there and may not be replaced."""
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    try:
        if replace_it:
            fresh.replace(path)
        else:
            os.link(fresh, path)
    finally:
        fresh.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class SigningKey:
    """One Ed25519 key of the office."""

    kid: str
    private: Ed25519PrivateKey

    @classmethod
    def make(cls, raw: bytes | None = None) -> Self:
        """The key of these 32 bytes, or a fresh one."""
        private = Ed25519PrivateKey.generate() if raw is None else Ed25519PrivateKey.from_private_bytes(raw)
        return cls(kid_of(private.public_key()), private)

    def __repr__(self) -> str:
        return f"SigningKey({self.kid})"


@dataclass(frozen=True, slots=True)
class MasterKey:
    """One AES-256 key that wraps voices' keys."""

    kid: str
    secret: bytes

    @classmethod
    def make(cls) -> Self:
        """A fresh key under a fresh name."""
        return cls(secrets.token_hex(6), secrets.token_bytes(32))

    def __repr__(self) -> str:
        return f"MasterKey({self.kid})"


def _rings(
    table: Mapping[str, Any],
) -> tuple[tuple[SigningKey, ...], tuple[MasterKey, ...], dict[str, str]]:
    """The keys of a key file, and the revoked ones. Raises `VaultError`."""
    try:
        revoked = {str(kid): str(public) for kid, public in table.get("revoked", {}).items()}
        signers = tuple(SigningKey.make(base64.b64decode(entry["secret"])) for entry in table["signing"])
        masters = tuple(
            MasterKey(entry["kid"], base64.b64decode(entry["secret"])) for entry in table["master"]
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        raise VaultError("the office's key file is damaged; restore it from your backup") from None
    signers = tuple(signer for signer in signers if signer.kid not in revoked)
    if not (signers or revoked) or not masters:
        raise VaultError("the office's key file holds no key; restore it from your backup")
    return signers, masters, revoked


class OfficeKeys:
    """The rings in force, as the file has them; every change is written before it is used."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.signers: tuple[SigningKey, ...] = ()
        self.masters: tuple[MasterKey, ...] = ()
        self.revoked: dict[str, str] = {}
        """public halves (base64url) of revoked signing keys, by kid"""
        self._in_force: frozenset[str] = frozenset()
        """kids that the ledger introduced; empty before it was read"""

    @classmethod
    def open(cls, directory: Path) -> Self:
        """Opens, or makes, the keys of a consent directory. Raises `VaultError`."""
        keys = cls(directory)
        path = directory / KEY_FILE
        try:
            directory.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            directory.mkdir(mode=0o700, exist_ok=True)
            directory.chmod(0o700)
            if not path.exists():
                old = directory / FIRST_FORM
                keys.signers = (SigningKey.make(old.read_bytes() if old.exists() else None),)
                keys.masters = (MasterKey.make(),)
                try:
                    keys._write(replace_it=False)
                    old.unlink(missing_ok=True)
                except FileExistsError:
                    pass  # another process was first: its keys are ours
        except OSError as error:
            raise VaultError(f"the consent keys in {directory} cannot be made: {error.strerror}") from None
        keys.reload()
        return keys

    def reload(self) -> None:
        """Reads the file again: another process may have rotated. Raises `VaultError`."""
        path = self.directory / KEY_FILE
        try:
            if stat.S_IMODE(path.stat().st_mode) & 0o077:
                raise VaultError(f"{path} can be read by others; run: chmod 600 {path}")
            self.signers, self.masters, self.revoked = _rings(json.loads(path.read_text()))
        except OSError as error:
            raise VaultError(f"{path} cannot be read: {error.strerror}") from None
        except ValueError:
            raise VaultError(f"{path} is not a key file; restore it from your backup") from None
        self._publish()

    @property
    def signer(self) -> SigningKey:
        """The key that signs now: the newest that the ledger has introduced, else the newest.

        Raises `VaultError` on a host whose keys were all revoked.
        """
        if not self.signers:
            raise VaultError(
                f"this host has no signing key in force; copy {KEY_FILE} from the host that rotated"
            )
        return next((key for key in reversed(self.signers) if key.kid in self._in_force), self.signers[-1])

    @property
    def master(self) -> MasterKey:
        """The key that wraps now."""
        return self.masters[-1]

    @property
    def public_path(self) -> Path:
        """Public keys for everybody who verifies: `{"keys": {kid: base64url}, "revoked": {…}}`."""
        return self.directory / PUBLIC_FILE

    @property
    def public(self) -> Mapping[str, Ed25519PublicKey]:
        """Public halves of all signing keys that were not revoked, by kid."""
        return {signer.kid: signer.private.public_key() for signer in self.signers}

    @property
    def ever(self) -> Mapping[str, Ed25519PublicKey]:
        """Those, and the revoked ones: for rows, and for records that the ledger names by their hash."""
        return {**{kid: read_public(raw) for kid, raw in self.revoked.items()}, **self.public}

    def heed(self, in_force: Collection[str], revoked: Mapping[str, str]) -> None:
        """Takes in what the ledger says of signing keys: which it introduced, which were revoked.

        `revoked`: public halves (base64url) by kid. The private half of a revoked key is forgotten.
        """
        self._in_force = frozenset(in_force) - revoked.keys()
        if revoked.keys() <= self.revoked.keys():
            return
        self.reload()
        self.revoked = {**self.revoked, **revoked}
        self.signers = tuple(signer for signer in self.signers if signer.kid not in self.revoked)
        self._write(replace_it=True)
        self._publish()

    def mac_of(self, handle: str, kid: str | None = None) -> str:
        """A voice's name as a keyed hash that only the office can make: `kid:hex` (HMAC-SHA256, RFC 2104).

        The key is made of the signing key `kid` (the newest by default); empty when that key is not here.
        """
        signer = self.signer if kid is None else next((key for key in self.signers if key.kid == kid), None)
        if signer is None:
            return ""
        raw = signer.private.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())
        secret = hmac.digest(raw, HANDLE_DOMAIN, "sha256")
        return f"{signer.kid}:{hmac.digest(secret, handle.encode(), 'sha256').hex()}"

    def master_by(self, kid: str) -> MasterKey:
        """Raises `VaultError`."""
        for again in (False, True):
            if again:
                self.reload()
            for master in self.masters:
                if master.kid == kid:
                    return master
        raise VaultError(f"the master key {kid} is not on this machine; restore {KEY_FILE} from your backup")

    # Before a change the file is read again, since another process may have rotated; `Rotation` sees to it
    # that only one does at a time.

    def add_signer(self, fresh: SigningKey) -> None:
        """Signs with this key from now on; the old ones still verify."""
        self.reload()
        self.signers = (*self.signers, fresh)
        self._write(replace_it=True)
        self._publish()

    def add_master(self, fresh: MasterKey) -> None:
        """Wraps with this key from now on; the old ones still unwrap."""
        self.reload()
        self.masters = (*self.masters, fresh)
        self._write(replace_it=True)

    def keep_masters(self, used: Collection[str]) -> None:
        """Forgets the masters neither used nor the newest: what only they wrap is closed for good."""
        self.reload()
        self.masters = tuple(m for m in self.masters if m.kid in used or m is self.master)
        self._write(replace_it=True)

    def merge(self, older: Mapping[str, Any]) -> None:
        """Takes in the keys of a backup's file, as older than those here. Raises `VaultError`."""
        signers, masters, revoked = _rings(older)
        self.revoked = {**revoked, **self.revoked}
        signers = tuple(signer for signer in signers if signer.kid not in self.revoked)
        known = {signer.kid for signer in self.signers} | {master.kid for master in self.masters}
        self.signers = (*(key for key in signers if key.kid not in known), *self.signers)
        self.masters = (*(key for key in masters if key.kid not in known), *self.masters)
        self._write(replace_it=True)
        self._publish()

    def _write(self, *, replace_it: bool) -> None:
        def raw(signer: SigningKey) -> bytes:
            return signer.private.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())

        table = {
            "signing": [{"secret": base64.b64encode(raw(s)).decode()} for s in self.signers],
            "master": [{"kid": m.kid, "secret": base64.b64encode(m.secret).decode()} for m in self.masters],
            "revoked": self.revoked,
        }
        write_private(self.directory / KEY_FILE, json.dumps(table).encode(), replace_it=replace_it)

    def _publish(self) -> None:
        keys = {
            kid: base64.urlsafe_b64encode(public_raw(key)).rstrip(b"=").decode()
            for kid, key in self.public.items()
        }
        content = json.dumps({"keys": keys, "revoked": self.revoked}).encode()
        if not self.public_path.exists() or self.public_path.read_bytes() != content:
            write_private(self.public_path, content, replace_it=True)
