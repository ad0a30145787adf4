"""Backups: all consent tables and the office's keys in one file, sealed with a passphrase.

Form: 9 bytes of magic, 16 of salt, 12 of nonce, then AES-256-GCM of gzipped JSON, with the magic as
associated data; the key is scrypt(passphrase, salt, n=2**16, r=8, p=1). It goes from SQLite to
PostgreSQL as well as back. Whoever has file and passphrase has every voice in it: see docs/consent.md on
erasure and old backups.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import os
from pathlib import Path
from typing import Any, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from sqlalchemy import Connection, LargeBinary, func, insert, select

from consent.archive.keys import KEY_FILE, OfficeKeys, write_private
from consent.archive.tables import LEDGER, METADATA, VOICES, Archive
from consent.errors import VaultError
from consent.office.office import ConsentOffice

MAGIC: Final = b"VGCONSENT"
SALT: Final = 16
NONCE: Final = 12
LEAST_PASSPHRASE: Final = 12


def _key(passphrase: bytes, salt: bytes) -> bytes:
    return hashlib.scrypt(passphrase, salt=salt, n=1 << 16, r=8, p=1, maxmem=1 << 27, dklen=32)


def seal(office: ConsentOffice, passphrase: bytes) -> tuple[bytes, int]:
    """A backup, and how many rows it has. Raises `VaultError`, `LedgerError`."""
    if len(passphrase) < LEAST_PASSPHRASE:
        raise VaultError(f"a backup's passphrase has at least {LEAST_PASSPHRASE} characters")
    tables: dict[str, list[dict[str, Any]]] = {}
    with office.archive.reading() as connection:
        for table in METADATA.sorted_tables:
            tables[table.name] = [
                {key: _plain(value) for key, value in row._mapping.items()}
                for row in connection.execute(select(table))
            ]
    keys = json.loads((office.keys.directory / KEY_FILE).read_text())
    content = gzip.compress(json.dumps({"tables": tables, "keys": keys}).encode())
    salt, nonce = os.urandom(SALT), os.urandom(NONCE)
    sealed = AESGCM(_key(passphrase, salt)).encrypt(nonce, content, MAGIC)
    return MAGIC + salt + nonce + sealed, sum(len(rows) for rows in tables.values())


def keep(path: Path, sealed: bytes) -> None:
    """Writes a backup to a new file, for its owner only. Raises `VaultError`."""
    try:
        write_private(path, sealed, replace_it=False)
    except FileExistsError:
        raise VaultError(f"{path} exists; a backup overwrites nothing") from None
    except OSError as error:
        raise VaultError(f"{path}: {error.strerror}") from None


def write(office: ConsentOffice, path: Path, passphrase: bytes) -> int:
    """Writes a backup; returns how many rows it has. Raises `VaultError`, `LedgerError`."""
    sealed, rows = seal(office, passphrase)
    keep(path, sealed)
    return rows


def kept(path: Path) -> bytes:
    """A backup's file. Raises `VaultError`."""
    try:
        whole = path.read_bytes()
    except OSError as error:
        raise VaultError(f"{path}: {error.strerror}") from None
    if not whole.startswith(MAGIC):
        raise VaultError(f"{path} is not a backup of consent")
    return whole


def restore(path: Path, passphrase: bytes, sql_url: str, directory: Path) -> int:
    """As `restore_from`, from a file."""
    return restore_from(kept(path), passphrase, sql_url, directory)


def restore_from(whole: bytes, passphrase: bytes, sql_url: str, directory: Path) -> int:
    """Fills an empty database, and takes the backup's keys in; returns how many rows.

    Raises `VaultError` for what is not a backup, a wrong passphrase, or a database with consent in it.
    """
    if not whole.startswith(MAGIC):
        raise VaultError("this is not a backup of consent")
    body = whole[len(MAGIC) :]
    salt, nonce, sealed = body[:SALT], body[SALT : SALT + NONCE], body[SALT + NONCE :]
    try:
        content = json.loads(gzip.decompress(AESGCM(_key(passphrase, salt)).decrypt(nonce, sealed, MAGIC)))
    except (InvalidTag, ValueError):
        raise VaultError("the passphrase is wrong, or the backup was damaged") from None
    archive = Archive.open(sql_url)
    try:
        with archive.writing() as connection:  # the keys come in just before the rows stand
            rows = _restore_tables(connection, content["tables"])
            _restore_keys(directory, content["keys"])
        return rows
    finally:
        archive.close()


def _restore_keys(directory: Path, keys: dict[str, Any]) -> None:
    path = directory / KEY_FILE
    directory.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    directory.mkdir(mode=0o700, exist_ok=True)
    if path.exists():
        OfficeKeys.open(directory).merge(keys)  # what is here may be newer: it stays the newest
    else:
        write_private(path, json.dumps(keys).encode(), replace_it=False)
        OfficeKeys.open(directory)


def _restore_tables(connection: Connection, tables: dict[str, list[dict[str, Any]]]) -> int:
    for table in (LEDGER, VOICES):
        if connection.execute(select(func.count()).select_from(table)).scalar():
            raise VaultError("there is consent in this database already; restore into an empty one")
    for table in METADATA.sorted_tables:
        rows = [
            {column.name: _typed(row[column.name], column.type) for column in table.columns}
            for row in tables[table.name]
        ]
        if rows:
            connection.execute(insert(table), rows)
    return sum(len(rows) for rows in tables.values())


def _plain(value: Any) -> Any:
    return base64.b64encode(value).decode() if isinstance(value, bytes) else value


def _typed(value: Any, kind: object) -> Any:
    return base64.b64decode(value) if isinstance(kind, LargeBinary) and value is not None else value
