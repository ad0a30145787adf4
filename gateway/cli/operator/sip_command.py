"""`voicegate sip`: who may call."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import IO

import click

from gateway.cli.house.house_state import telephone_states
from gateway.config.settings import load
from gateway.front.admission.rights import ROLES
from gateway.ipc.binding import Binding
from gateway.ipc.front_messages import TelephoneState
from gateway.store.registry import Registry
from gateway.store.sip_bindings import SipBindings
from gateway.store.sip_users import ENCRYPTIONS, Encryption, SipUsers, UsersError, typed_secret


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
@click.option(
    "--legacy",
    is_flag=True,
    help="For a telephone too old to count its logins (RFC 2069). Weaker: for one that cannot do better.",
)
@click.option(
    "--srtp",
    type=click.Choice(ENCRYPTIONS),
    help="Whether this telephone's sound is encrypted; without it as VOICEGATE_SIP_SRTP says.",
)
@click.option("--role", type=click.Choice(list(ROLES)), help="What it may do; caller unless said otherwise.")
def add(
    name: str, password_from: IO[str] | None, *, legacy: bool, srtp: Encryption | None, role: str | None
) -> None:
    """Add the user NAME, or give it another password.

    NAME may have letters of any language.
    """
    made = typed_secret() if password_from is None else None
    password = made or (_first_line(password_from) if password_from else "")
    SipUsers(load().data_dir).add(name, password, legacy=legacy, srtp=srtp, role=role)
    click.echo(f"user {name}, password {made}" if made else f"user {name}")


def _first_line(file: IO[str]) -> str:
    """Raises `UsersError`."""
    try:
        return file.readline().rstrip("\r\n")
    except UnicodeDecodeError:
        raise UsersError(f"the password in {file.name} is not in UTF-8; write it so, or use ASCII") from None


@user.command()
@click.argument("name")
def remove(name: str) -> None:
    """Remove the user NAME."""
    SipUsers(load().data_dir).remove(name)
    click.echo(f"removed {name}")


@user.command("list")
def list_users() -> None:
    """List the users."""
    users = SipUsers(load().data_dir)
    names = [name + _peculiar(users, name) for name in users.names()]
    click.echo("\n".join(names) if names else "no SIP users")


def _peculiar(users: SipUsers, name: str) -> str:
    """What a user has that others do not."""
    srtp = users.srtp(name)
    return (" (legacy)" if users.is_legacy(name) else "") + (f" (SRTP {srtp})" if srtp else "")


@sip.command()
def users() -> None:
    """List the users with their telephones: where each is registered from, and until when."""
    conf = load()
    names = SipUsers(conf.data_dir).names()
    registry = Registry.read(conf.sql)
    bindings = [] if registry is None else SipBindings(registry).listed()
    states = telephone_states(conf)
    click.echo("\n".join(listed_users(names, bindings, states)) if names else "no SIP users")


def listed_users(
    names: Sequence[str], bindings: Sequence[Binding], states: Sequence[TelephoneState] = ()
) -> Iterator[str]:
    """A line for each user, and one below it for each of its telephones.

    `states`: what a front that runs says of them.
    """
    known = {(one.user, one.key): one for one in states}
    for name in names:
        mine = [one for one in bindings if one.user == name]
        yield name if mine else f"{name}  not registered"
        for one in mine:
            state = f"until {time.strftime('%H:%M:%S', time.localtime(one.expires_at))}"
            if one.lost_at is not None:
                why = "not heard any more" if one.transport == "udp" else "its connection ended"
                state += f", not reachable: {why}"
            elif (now := known.get((one.user, one.key))) is not None and now.there is not None:
                state += f", answers in {now.round_trip_ms:.0f} ms" if now.there else ", does not answer"
            by = f"  {one.user_agent}" if one.user_agent else ""
            yield f"  {one.source} by {one.transport}, {state}  <{one.contact}>{by}"
