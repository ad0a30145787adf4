"""`voicegate sip`: who may call."""

from __future__ import annotations

from typing import IO

import click

from gateway.config.settings import load
from gateway.store.sip_users import SipUsers, typed_secret


@click.group()
def sip() -> None:
    """SIP users."""


@sip.group()
def user() -> None:
    """Users that telephones log in as; a change is in force at once."""


@user.command()
@click.argument("name")
@click.option(
    "--password-from",
    type=click.File("r"),
    help="File with the password in its first line, - for stdin. Without it one is made and printed once.",
)
def add(name: str, password_from: IO[str] | None) -> None:
    """Add the user NAME, or give it another password."""
    made = typed_secret() if password_from is None else None
    password = made or (password_from.readline().rstrip("\r\n") if password_from else "")
    SipUsers(load().data_dir).add(name, password)
    click.echo(f"user {name}, password {made}" if made else f"user {name}")


@user.command()
@click.argument("name")
def remove(name: str) -> None:
    """Remove the user NAME."""
    SipUsers(load().data_dir).remove(name)
    click.echo(f"removed {name}")


@user.command("list")
def list_users() -> None:
    """List the users."""
    names = SipUsers(load().data_dir).names()
    click.echo("\n".join(names) if names else "no SIP users")
