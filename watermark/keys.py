"""The gateway's watermark keys: a ring of epochs in one owner-only file.

A key marks; every key of the ring detects. Rotation adds an epoch and keeps the old ones.

Keys have a **version**, which says what is marked and looked for: 1 is the carrier alone; 2 is the envelope
layer, and the carrier a little softer. New keys are of version 2; old ones go on as they were.
"""

from __future__ import annotations

import base64
import json
import os
import secrets
import stat
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any, Final, Self

from watermark.errors import KeyFileError

CARRIER_ALONE: Final = 1
BOTH_LAYERS: Final = 2
"""Versions of keys."""
ENVELOPE_DB: Final = 1.5
"""How far bands of the speech swell and sink with a new key, unless something else is asked for."""
ENVELOPE_LEAST_DB: Final = 1.0
"""Less is refused: the self-check could not tell within 10 s that the layer is there."""
ENVELOPE_MOST_DB: Final = 2.0
"""More is refused: 16 swells a second of 2 dB may be heard as roughness, and no panel has listened yet."""


@dataclass(frozen=True, slots=True)
class MarkKey:
    """One epoch's key. `gateway` is the 16-bit id in every payload of this epoch; `envelope_db` is the depth
    of the envelope layer, 1 to 2 dB, which a key of version 1 does not have.

    Raises `ValueError` for an id, a secret, a version or a depth that no key has.
    """

    id: str
    gateway: int
    secret: bytes
    version: int = CARRIER_ALONE
    envelope_db: float = ENVELOPE_DB

    def __post_init__(self) -> None:
        if not 0 <= self.gateway < 1 << 16 or len(self.secret) < 16:
            raise ValueError("a gateway id has 16 bits, a secret at least 128")
        if self.version not in (CARRIER_ALONE, BOTH_LAYERS):
            raise ValueError(
                f"keys of version {self.version} are not known here: a newer voicegate made them"
            )
        if not (isfinite(self.envelope_db) and ENVELOPE_LEAST_DB <= self.envelope_db <= ENVELOPE_MOST_DB):
            raise ValueError(
                f"the envelope layer's depth is {self.envelope_db:g} dB; it must be "
                f"{ENVELOPE_LEAST_DB:g} to {ENVELOPE_MOST_DB:g} dB"
            )

    @property
    def has_envelope(self) -> bool:
        """Whether it marks with both layers, and both are looked for."""
        return self.version >= BOTH_LAYERS

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
    def create(cls, path: Path, envelope_db: float = ENVELOPE_DB) -> Self:
        """A new ring with one key of version 2, in an owner-only file. Raises `KeyFileError` when the file
        exists, and `ValueError` for a depth out of its range."""
        return cls(())._grown(path, os.O_EXCL, envelope_db)

    def rotate(self, path: Path, envelope_db: float = ENVELOPE_DB) -> Self:
        """A ring with one more epoch, of version 2; it takes the place of the file at `path` at once or not
        at all. Raises `ValueError` for a depth out of its range."""
        beside = path.with_name(path.name + ".new")
        beside.unlink(missing_ok=True)
        ring = self._grown(beside, os.O_EXCL, envelope_db)
        beside.replace(path)
        return ring

    def _grown(self, path: Path, how: int, envelope_db: float) -> Self:
        used = {key.gateway for key in self.keys}
        gateway = next(g for g in iter(lambda: secrets.randbelow(1 << 16), None) if g not in used)
        key = MarkKey(f"wm-{gateway:04x}", gateway, secrets.token_bytes(32), BOTH_LAYERS, envelope_db)
        ring = type(self)((*self.keys, key))
        table = [_row(each) for each in ring.keys]
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
            keys = tuple(_key(row) for row in table)
        except FileNotFoundError:
            raise KeyFileError(f"{path} does not exist; make it with: voicegate watermark keygen") from None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise KeyFileError(f"{path} is not a key file: {error}") from None
        if not keys:
            raise KeyFileError(f"{path} holds no key")
        return cls(keys)


def _row(key: MarkKey) -> dict[str, str | int | float]:
    """As it stands in the file, where a key without a version is of version 1."""
    row: dict[str, str | int | float] = {
        "id": key.id,
        "gateway": key.gateway,
        "secret": base64.b64encode(key.secret).decode(),
    }
    if key.has_envelope:
        row |= {"version": key.version, "envelope_db": key.envelope_db}
    return row


def _key(row: dict[str, Any]) -> MarkKey:
    return MarkKey(
        row["id"],
        int(row["gateway"]),
        base64.b64decode(row["secret"]),
        int(row.get("version", CARRIER_ALONE)),
        float(row.get("envelope_db", ENVELOPE_DB)),
    )
