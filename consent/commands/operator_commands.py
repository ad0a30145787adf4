"""`voicegate operator`: who may decide about voices."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path

import click

from consent.commands.house import House, Signer, in_house, operators_dir, read_secret, signed
from consent.ledger.operators import ROLES, OperatorKey
from consent.service.operator_questions import AddOperator, AskIdentity, ListOperators, RevokeOperator


@click.group()
def operator() -> None:
    """Operators who may decide about voices."""


@operator.command()
@click.argument("name")
@click.option("--role", required=True, type=click.Choice(ROLES))
@click.option("--key-out", type=click.Path(path_type=Path), help="Where the new key goes.")
@click.option("--new-passphrase-from", type=click.Path(path_type=Path), help="File with its passphrase.")
@click.option("--no-passphrase", is_flag=True, help="The key's file opens without one (not recommended).")
@click.option("--as", "acting", metavar="OPERATOR", help="Who adds them; not needed for the first of a role.")
@click.option("--key", "key_path", type=click.Path(path_type=Path), help="The adding operator's key file.")
@click.option("--passphrase-from", type=click.Path(path_type=Path), help="File with its passphrase.")
@in_house
def add(
    house: House,
    name: str,
    role: str,
    key_out: Path | None,
    new_passphrase_from: Path | None,
    no_passphrase: bool,
    acting: str | None,
    key_path: Path | None,
    passphrase_from: Path | None,
) -> None:
    """Make NAME an operator, with a fresh key of their own."""
    fresh = OperatorKey.make(name)
    adder = Signer.of(acting, key_path, passphrase_from) if acting else None
    passphrase = None
    if not no_passphrase:
        passphrase = read_secret(new_passphrase_from, f"New passphrase for {name}", confirm=True)
    path = key_out or operators_dir() / f"{name}.pem"
    with house.office() as office:
        fresh.save(path, passphrase)
        try:
            act = None
            if adder is not None:
                act = adder.key().act(
                    "operator",
                    time.time(),
                    office.ask(AskIdentity()),
                    name=name,
                    role=role,
                    public=fresh.public,
                )
            office.ask(AddOperator(name, role, fresh.public, act))
        except BaseException:
            path.unlink()  # it is nobody's key
            raise
    click.echo(f"{name} is {role}; the key is {path}: hand it over, and keep it off this machine")


@operator.command()
@click.argument("name")
@click.option("--reason", default="", help="Why; it stands in the ledger.")
@signed
@in_house
def revoke(house: House, name: str, reason: str, signer: Signer) -> None:
    """Take NAME's rights. What they signed before stands."""
    with house.office() as office:
        act = signer.key().act("operator", time.time(), office.ask(AskIdentity()), name=name, role="revoked")
        office.ask(RevokeOperator(name, reason, act))
    click.echo(f"{name} may not act any more")


@operator.command("list")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
@in_house
def list_(house: House, as_json: bool) -> None:
    """List the operators."""
    with house.office() as office:
        known = office.ask(ListOperators())
    if as_json:
        click.echo(json.dumps({"operators": [asdict(each) for each in known]}))
        return
    if not known:
        click.echo("no operators yet; make the first: voicegate operator add NAME --role registrar")
    for each in known:
        by = f"added by {each.added_by}" if each.added_by else "founder"
        click.echo(f"{each.name:<20} {each.role:<10} {'REVOKED  ' if each.revoked else ''}{by}")
