"""`voicegate ledger`: proving and reading it."""

from __future__ import annotations

import json
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import click

from consent.commands.house import House, Signer, in_house, signed
from consent.errors import LedgerError, OperatorError
from consent.ledger.timekeeper import TOLERANCE_S
from consent.proof.call_seals import SEALED, check_calls
from consent.service.asked_ledger import rows_of
from consent.service.ledger_questions import (
    AskClock,
    AskLostRows,
    AskResumeTerms,
    AskTip,
    ProveLedger,
    ResumeLedger,
    SetClock,
    SignHead,
)
from consent.service.operator_questions import AskIdentity

NAMED: Final = 10
"""Faults of the registry that are told one by one."""


@click.group()
def ledger() -> None:
    """Verify and read the consent ledger."""


@ledger.command()
@click.option("--head", "head_file", type=click.Path(path_type=Path), help="A head exported before.")
@click.option("--keys", type=click.Path(path_type=Path), help="Public keys to trust, instead of the house's.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
@in_house
def verify(house: House, head_file: Path | None, keys: Path | None, as_json: bool) -> None:
    """Prove that no row was edited, removed, reordered or cut off, and that each has the act that it needs.

    Or name the first bad one, with status 1. The registry of calls is compared too, with what the ledger
    sealed of it each minute.
    """
    kept = None if head_file is None else _read(head_file).strip()
    trusted = None if keys is None else _public_keys(keys, "keys")
    revoked = None if keys is None else _public_keys(keys, "revoked")
    faults: list[str] = []
    with house.office() as office, house.calls() as calls:
        proof = office.ask(ProveLedger(kept, trusted, revoked))
        if proof.ok and calls is not None:
            faults = check_calls(rows_of(office, (SEALED,)), calls)
    if as_json:
        found = {"ok": proof.ok and not faults, "rows": proof.rows, "bad": proof.bad, "fault": proof.fault}
        click.echo(json.dumps({**found, "calls": faults}))
    elif proof.ok and not faults:
        click.echo(f"{proof.rows} rows, all well" + (f"; head {proof.head.hash[:16]}" if proof.head else ""))
    elif not proof.ok:
        click.echo(f"row {proof.bad} is bad: {proof.fault}", err=True)
    if not as_json:
        for fault in faults[:NAMED]:
            click.echo(f"calls: {fault}", err=True)
        if faults[NAMED:]:
            click.echo(f"calls: and {len(faults) - NAMED} more; --json has all", err=True)
    if not proof.ok or faults:
        sys.exit(1)


@ledger.command()
@click.option("--out", type=click.Path(path_type=Path), help="File to write; else stdout.")
@in_house
def head(house: House, out: Path | None) -> None:
    """Export the signed head: who keeps it elsewhere can prove later that nothing before it was changed."""
    with house.office() as office:
        token = office.ask(SignHead())
    if out is None:
        click.echo(token)
    else:
        out.write_text(token + "\n")


@ledger.command()
@click.option("--since", type=click.DateTime(["%Y-%m-%d"]), help="From this day on.")
@click.option("--kind", "kinds", multiple=True, help="Only these kinds of rows.")
@click.option("--json", "as_json", is_flag=True, help="JSON lines on stdout.")
@in_house
def show(house: House, since: datetime | None, kinds: tuple[str, ...], as_json: bool) -> None:
    """Show its rows."""
    since_ms = round(since.timestamp() * 1000) if since else 0
    with house.office() as office:
        for row in rows_of(office, kinds, since_ms):
            if as_json:
                click.echo(json.dumps(row.to_json()))
                continue
            when = f"{datetime.fromtimestamp(row.at_ms / 1000):%Y-%m-%d %H:%M:%S}"
            click.echo(f"{row.seq:>6}  {when}  {row.kind:<17} {row.subject or '':<16}  {_brief(row.table)}")


@ledger.command()
@click.option("--reason", required=True, help="Why; it stands in the ledger.")
@signed
@in_house
def resume(house: House, reason: str, signer: Signer) -> None:
    """Go on with the ledger as the database has it, after a backup was restored.

    What this host knows to be revoked or erased since that backup is revoked and erased again. What a witness
    has seen, and is lost here, the auditor gives up by name: nobody can know what was revoked in it.
    """
    with house.office() as office:
        lost = office.ask(AskLostRows())
        for head in lost:
            when = f"{datetime.fromtimestamp(head['at_ms'] / 1000, UTC):%Y-%m-%d %H:%M}"
            click.echo(
                f"given up: all rows up to {head['seq']} of {when} UTC that are not here; revoke again what "
                "was revoked in them"
            )
        terms = office.ask(AskResumeTerms(lost))
        act = signer.key().act("resume", time.time(), office.ask(AskIdentity()), **terms)
        again = office.ask(ResumeLedger(reason, act))
    click.echo(f"the ledger goes on; revoked or erased again: {', '.join(again) or 'nothing'}")


@ledger.command()
@click.option(
    "--time", "said", required=True, type=click.DateTime(["%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M"]),
    help="What the time is now, in UTC, by a clock that you trust: 2026-12-02T14:05.",
)  # fmt: skip
@click.option("--reason", required=True, help="Why; it stands in the ledger.")
@signed
@in_house
def clock(house: House, said: datetime, reason: str, signer: Signer) -> None:
    """Say what the time is, where no other clock does.

    It is asked for when this machine's clock is more than 30 days ahead of the newest row and nothing
    confirms it, or when a row was written by a clock that was wrong. Rows go on from that time. Set this
    machine's clock right first.
    """
    at = said.replace(tzinfo=UTC).timestamp()
    with house.office() as office:
        now = office.ask(AskClock())
        if abs(now - at) > TOLERANCE_S:
            here = f"{datetime.fromtimestamp(now, UTC):%Y-%m-%d %H:%M}"
            raise OperatorError(
                f"this machine's clock says {here} UTC; set it right first, then say the time"
            )
        about = {"time_ms": round(now * 1000), "after": office.ask(AskTip())}
        act = signer.key().act("clock", now, office.ask(AskIdentity()), **about)
        row = office.ask(SetClock(reason, act))
    click.echo(f"the ledger goes on from {said:%Y-%m-%d %H:%M} UTC: row {row}")


def _brief(body: dict[str, Any]) -> str:
    left_out = ("act", "public", "items")
    return " ".join(f"{key}={value}" for key, value in body.items() if key not in left_out and value != "")


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise LedgerError(f"{path}: {error}") from None


def _public_keys(path: Path, of: str) -> dict[str, str]:
    try:
        return dict(json.loads(_read(path)).get(of, {}))
    except (ValueError, AttributeError, TypeError):
        raise LedgerError(f"{path}: no public keys of grants") from None
