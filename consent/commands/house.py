"""Where consent's commands find the house: the same variables and defaults as the gateway's settings."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any, Final, Self

import click

from consent.checks.checklist import Checks
from consent.data_dir import default_data_dir
from consent.errors import OperatorError
from consent.ledger.operators import OperatorKey
from consent.ledger.witness import SYSLOG, Outside
from consent.models.model_files import models_dir
from consent.office.office import ConsentOffice
from consent.proof.call_seals import SealedCalls
from watermark.errors import KeyFileError
from watermark.keys import KeyRing, MarkKey

MARK_KEYS: Final = "watermark-keys.json"
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
    outside: Outside

    @property
    def consent_dir(self) -> Path:
        """Where the office's keys and checkpoint lie."""
        return self.data_dir / "consent"

    def checks(self) -> Checks:
        """The instruments of the checks, as far as they are here. Raises `RegistrationError`."""
        return Checks.load(self.consent_dir, self.data_dir / MARK_KEYS, self.models_dir)

    @contextmanager
    def calls(self) -> Iterator[SealedCalls | None]:
        """The registry of calls, if there is one and the gateway's command line says how to open it."""
        opener = click.get_current_context().obj
        with nullcontext() if opener is None else opener(self.sql_url) as found:
            yield found

    def mark_keys(self) -> tuple[MarkKey, ...] | None:
        """The watermark's keys; None when they are not here."""
        try:
            return KeyRing.load(self.data_dir / MARK_KEYS).keys
        except KeyFileError:
            return None

    @contextmanager
    def office(self, *, listening: bool = False) -> Iterator[ConsentOffice]:
        """The office; `listening` loads the instruments of the checks too."""
        checks = self.checks() if listening else Checks()
        office = ConsentOffice.open(self.sql_url, self.consent_dir, checks=checks, outside=self.outside)
        try:
            yield office
        finally:
            office.close()


def in_house(command: Callable[..., Any]) -> Callable[..., Any]:
    """Options `--data-dir`, `--sql` and `--models`; the command gets a `House` first."""

    @wraps(command)
    def run(data_dir: Path | None, sql: str | None, models: Path | None, **given: Any) -> Any:
        where = (data_dir or default_data_dir()).expanduser().absolute()
        sql_url = sql or f"sqlite:///{where / 'voicegate.db'}"
        redis_url, witness = (os.environ.get(name) or None for name in (REDIS_URL, WITNESS_URL))
        outside = Outside(redis_url, witness, SYSLOG)
        return command(House(where, sql_url, models_dir(where, models), outside), **given)

    add_dir = click.option(
        "--data-dir", type=click.Path(path_type=Path), envvar="VOICEGATE_DATA_DIR",
        help="The gateway's data directory (VOICEGATE_DATA_DIR).",
    )  # fmt: skip
    add_sql = click.option("--sql", envvar="VOICEGATE_SQL_URL", help="Database URL (VOICEGATE_SQL_URL).")
    add_models = click.option(
        "--models", type=click.Path(path_type=Path), envvar="VOICEGATE_MODELS",
        help="Directory of model files (VOICEGATE_MODELS).",
    )  # fmt: skip
    return add_dir(add_sql(add_models(run)))


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
