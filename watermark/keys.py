"""The gateway's watermark keys: a ring of epochs in one owner-only file.

A key marks; every key of the ring detects. Rotation adds an epoch and keeps the old ones.
"""

from __future__ import annotations

import base64
import json
import os
import secrets
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from watermark.errors import KeyFileError


@dataclass(frozen=True, slots=True)
class MarkKey:
    """One epoch's key. `gateway` is the 16-bit id in every payload of this epoch."""

    id: str
    gateway: int
    secret: bytes

    def __repr__(self) -> str:
        return f"MarkKey({self.id})"


@dataclass(frozen=True, slots=True)
class KeyRing:
    """Keys, the newest last."""

    keys: tuple[MarkKey, ...]

    @property
    def current(self) -> MarkKey:
        return self.keys[-1]

    @classmethod
    def create(cls, path: Path) -> Self:
        """A new ring with one key, in an owner-only file. Raises `KeyFileError` when the file exists."""
        return cls(())._grown(path, os.O_EXCL)

    def rotate(self, path: Path) -> Self:
        """A ring with one more epoch; it takes the place of the file at `path` at once or not at all."""
        beside = path.with_name(path.name + ".new")
        beside.unlink(missing_ok=True)
        ring = self._grown(beside, os.O_EXCL)
        beside.replace(path)
        return ring

    def _grown(self, path: Path, how: int) -> Self:
        used = {key.gateway for key in self.keys}
        gateway = next(g for g in iter(lambda: secrets.randbelow(1 << 16), None) if g not in used)
        key = MarkKey(f"wm-{gateway:04x}", gateway, secrets.token_bytes(32))
        ring = type(self)((*self.keys, key))
        table = [
            {"id": k.id, "gateway": k.gateway, "secret": base64.b64encode(k.secret).decode()}
            for k in ring.keys
        ]
        try:
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | how, 0o600), "w") as file:
                json.dump({"keys": table}, file, indent=1)
                file.flush()
                os.fsync(file.fileno())
        except FileExistsError:
            raise KeyFileError(f"{path} exists already; to add a key: voicegate watermark rotate") from None
        except OSError as error:
            raise KeyFileError(f"{path}: {error.strerror}") from None
        return ring

    @classmethod
    def load(cls, path: Path) -> Self:
        """Raises `KeyFileError` when it is missing, malformed, or others may read it."""
        try:
            if stat.S_IMODE(path.stat().st_mode) & 0o077:
                raise KeyFileError(f"{path} can be read by others; run: chmod 600 {path}")
            table = json.loads(path.read_text())["keys"]
            keys = tuple(MarkKey(k["id"], int(k["gateway"]), base64.b64decode(k["secret"])) for k in table)
            if any(not 0 <= k.gateway < 1 << 16 or len(k.secret) < 16 for k in keys):
                raise ValueError("a gateway id has 16 bits, a secret at least 128")
        except FileNotFoundError:
            raise KeyFileError(f"{path} does not exist; make it with: voicegate watermark keygen") from None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise KeyFileError(f"{path} is not a key file: {error}") from None
        if not keys:
            raise KeyFileError(f"{path} holds no key")
        return cls(keys)
