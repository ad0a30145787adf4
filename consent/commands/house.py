"""Where consent's commands find the house: the same variables and defaults as the gateway's settings."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from typing import Any, Final, Self

import click

from consent.archive.database import database_url
from consent.data_dir import OFFICE_SOCKET, default_data_dir
from consent.errors import LedgerError, OperatorError
from consent.ledger.operators import OperatorKey
from consent.ledger.witness import SYSLOG, Outside
from consent.models.model_files import models_dir
from consent.proof.call_seals import SealedCalls
from consent.service.office_client import OfficeClient
from consent.service.office_door import office_of
from consent.service.office_rooms import OfficePlace
from watermark.errors import KeyFileError
from watermark.keys import KeyRing, MarkKey

MARK_KEYS: Final = "watermark-keys.json"
SQL_URL: Final = "VOICEGATE_SQL_URL"
CONSENT_SQL_URL: Final = "VOICEGATE_CONSENT_SQL_URL"
REDIS_URL: Final = "VOICEGATE_REDIS_URL"
WITNESS_URL: Final = "VOICEGATE_LEDGER_WITNESS"


def operators_dir() -> Path:
    """Where an operator's own keys lie unless they say otherwise: with the person, not with the gateway."""
    base = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(base) / "voicegate" / "operators"


@dataclass
class House:
    """One gateway's data directory and database."""

    data_dir: Path
    sql_url: str
    models_dir: Path
    calls_url: str
    """the database with the registry of calls"""
    outside: Outside = field(default_factory=Outside)
    office_socket: Path | None = None
    """where another service's office is asked"""

    @property
    def consent_dir(self) -> Path:
        """Where the office's keys and checkpoint lie."""
        return self.data_dir / "consent"

    @contextmanager
    def calls(self) -> Iterator[SealedCalls | None]:
        """The registry of calls, if there is one and the gateway's command line says how to open it."""
        opener = click.get_current_context().obj
        with nullcontext() if opener is None else opener(self.calls_url) as found:
            yield found

    def mark_keys(self) -> tuple[MarkKey, ...] | None:
        """The watermark's keys; None when they are not here."""
        try:
            return KeyRing.load(self.data_dir / MARK_KEYS).keys
        except KeyFileError:
            return None

    @contextmanager
    def office(self) -> Iterator[OfficeClient]:
        """The office, asked over its socket: no command opens its keys. Raises `OfficeAway`."""
        try:
            database_url(self.sql_url)
        except ValueError as error:
            raise LedgerError(str(error)) from None
        place = OfficePlace(
            self.sql_url, self.consent_dir, self.data_dir / MARK_KEYS, self.models_dir, outside=self.outside
        )
        if self.office_socket is not None:
            path, own = self.office_socket.expanduser().absolute(), None
        else:
            path, own = self.consent_dir / OFFICE_SOCKET, place
        with office_of(path, own) as office:
            yield office


def in_house(command: Callable[..., Any]) -> Callable[..., Any]:
    """Options `--data-dir`, `--sql`, `--models` and `--office`; the command gets a `House` first."""

    @wraps(command)
    def run(
        data_dir: Path | None, sql: str | None, models: Path | None, office: Path | None, **given: Any
    ) -> Any:
        where = (data_dir or default_data_dir()).expanduser().absolute()
        usual = f"sqlite:///{where / 'voicegate.db'}"
        sql_url = sql or usual
        calls_url = os.environ.get(SQL_URL) or usual if os.environ.get(CONSENT_SQL_URL) else sql_url
        redis_url, witness = (os.environ.get(name) or None for name in (REDIS_URL, WITNESS_URL))
        outside = Outside(redis_url, witness, SYSLOG)
        house = House(where, sql_url, models_dir(where, models), calls_url, outside, office)
        return command(house, **given)

    add_dir = click.option(
        "--data-dir", type=click.Path(path_type=Path), envvar="VOICEGATE_DATA_DIR",
        help="The gateway's data directory (VOICEGATE_DATA_DIR).",
    )  # fmt: skip
    add_sql = click.option(
        "--sql", envvar=[CONSENT_SQL_URL, SQL_URL],
        help="The consent office's database URL (VOICEGATE_CONSENT_SQL_URL, else VOICEGATE_SQL_URL).",
    )  # fmt: skip
    add_office = click.option(
        "--office", type=click.Path(path_type=Path), envvar="VOICEGATE_OFFICE_SOCKET",
        help="Socket of an office that another service runs (VOICEGATE_OFFICE_SOCKET).",
    )  # fmt: skip
    add_models = click.option(
        "--models", type=click.Path(path_type=Path), envvar="VOICEGATE_MODELS",
        help="Directory of model files (VOICEGATE_MODELS).",
    )  # fmt: skip
    return add_dir(add_sql(add_models(add_office(run))))


@dataclass
class Signer:
    """Who acts, and how their key is opened."""

    name: str
    path: Path
    passphrase_from: Path | None

    @classmethod
    def of(cls, name: str, path: Path | None, passphrase_from: Path | None) -> Self:
        """With the key where `operator add` leaves it, unless a path is given."""
        return cls(name, path or operators_dir() / f"{name}.pem", passphrase_from)

    def key(self) -> OperatorKey:
        """Opens the key; asks for its passphrase on a terminal. Raises `OperatorError`."""
        passphrase = None
        if OperatorKey.is_sealed(self.path):
            passphrase = read_secret(self.passphrase_from, f"Passphrase of {self.name}")
        return OperatorKey.load(self.name, self.path, passphrase)


def read_secret(source: Path | None, prompt: str, *, confirm: bool = False) -> bytes:
    """The first line of a file, or what is typed unseen on a terminal; never an argument.

    Raises `OperatorError`.
    """
    if source is not None:
        try:
            lines = source.read_bytes().splitlines()
        except OSError as error:
            raise OperatorError(f"{source}: {error.strerror}") from None
        secret = lines[0].strip() if lines else b""
    elif sys.stdin.isatty():
        secret = click.prompt(prompt, hide_input=True, confirmation_prompt=confirm).encode()
    else:
        raise OperatorError(f"{prompt}: there is no terminal to ask on; give a file (--passphrase-from)")
    if not secret:
        raise OperatorError(f"{prompt}: it is empty")
    return bytes(secret)


def signed(command: Callable[..., Any]) -> Callable[..., Any]:
    """Options `--as`, `--key`, `--passphrase-from`; the command gets a `Signer` as `signer`."""

    @wraps(command)
    def run(
        *given_first: Any, acting: str, key_path: Path | None, passphrase_from: Path | None, **given: Any
    ) -> Any:
        return command(*given_first, signer=Signer.of(acting, key_path, passphrase_from), **given)

    options = (
        click.option("--passphrase-from", type=click.Path(path_type=Path), help="File with its passphrase."),
        click.option("--key", "key_path", type=click.Path(path_type=Path), help="The operator's key file."),
        click.option("--as", "acting", required=True, metavar="OPERATOR", help="Which operator signs this."),
    )
    wrapped: Callable[..., Any] = run
    for option in options:
        wrapped = option(wrapped)
    return wrapped
