"""`voicegate token`: who may do what over HTTP. A secret is printed once, and stands in no argument."""

from __future__ import annotations

import contextlib
import getpass
import re
import time
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, Final

import click

from gateway.cli.calls.call_table import tame
from gateway.cli.house.house_client import HouseClient, is_elsewhere
from gateway.config.settings import load
from gateway.front.admission.rights import ROLES
from gateway.store.api_tokens import ApiToken, ApiTokens, TokenError
from gateway.store.registry import Registry

UNITS: Final = {"m": 60.0, "h": 3600.0, "d": 86_400.0, "w": 7 * 86_400.0}
LIVES: Final = "90d"


class Lifetime(click.ParamType[float]):
    """How long something lives: 30m, 12h, 90d, 4w."""

    name = "lifetime"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Seconds."""
        found = re.fullmatch(r"([0-9]{1,6})([mhdw])", str(value))
        if found is None:
            self.fail(f"{value!r} is not a time; write 30m, 12h, 90d or 4w", param, ctx)
        return int(found[1]) * UNITS[found[2]]


@click.group()
def token() -> None:
    """Tokens for the page and the API; a change is in force at once."""


@token.command()
@click.argument("name")
@click.option("--role", type=click.Choice(list(ROLES)), required=True, help="What it may do: see `roles`.")
@click.option("--expires", type=Lifetime(), default=LIVES, show_default=True, help="30m, 12h, 90d, 4w")
@click.pass_context
def add(ctx: click.Context, name: str, role: str, expires: float) -> None:
    """Make a token called NAME, and print it this once.

    It goes to stdout alone, so that it can be put into a file: voicegate token add ci --role watcher > file
    """
    if is_elsewhere(ctx):
        with HouseClient.of(ctx, load()) as house:
            told = house.make_token(name, role, expires)
        text, made = str(told.pop("token")), _token(told)
    else:
        with _tokens(write=True) as tokens:
            made, text = tokens.make(name, role, expires, f"{_user()}, by the command line")
    click.echo(text)
    click.echo(f"{made.name}: {role}, until {_at(made.expires_at)}; its id is {made.token_id}", err=True)


@token.command("list")
@click.option("--all", "every", is_flag=True, help="Also those that are over.")
@click.pass_context
def show(ctx: click.Context, *, every: bool) -> None:
    """List the tokens: role, who made them, when and from where they were last used."""
    if is_elsewhere(ctx):
        with HouseClient.of(ctx, load()) as house:
            known = list(map(_token, house.tokens()))
    else:
        with _tokens() as tokens:
            known = tokens.listed()
    listed = [one for one in known if every or one.holds()]
    for one in listed:
        click.echo(tame(_line(one)))
    if not listed:
        click.echo("no tokens; `voicegate token add NAME --role ROLE` makes one")


@token.command()
@click.argument("token_id")
@click.pass_context
def remove(ctx: click.Context, token_id: str) -> None:
    """Revoke the token with the id TOKEN_ID, as `list` shows it: from now on it opens nothing."""
    if is_elsewhere(ctx):
        with HouseClient.of(ctx, load()) as house:
            house.revoke_token(token_id)
        return
    with _tokens(write=True) as tokens:
        if not tokens.revoke(token_id, f"{_user()}, by the command line"):
            raise TokenError(f"no token {token_id} holds; `voicegate token list` shows those that do")


@token.command()
def roles() -> None:
    """List the roles and their rights."""
    for role, rights in ROLES.items():
        click.echo(f"{role:<9} {', '.join(sorted(rights)) or 'nothing'}")


def _token(told: Mapping[str, Any]) -> ApiToken:
    return ApiToken(**{name: told[name] for name in ApiToken.__dataclass_fields__})


def _line(one: ApiToken) -> str:
    used = f"used {_at(one.used_at)} from {one.used_from}" if one.used_at else "never used"
    over = f"until {_at(one.expires_at)}"
    if one.revoked_at:
        over = f"revoked {_at(one.revoked_at)} by {one.revoked_by}"
    state = "" if one.state == "holds" else f"  {one.state}"
    made = f"made {_at(one.made_at)} by {one.made_by}"
    return f"{one.token_id}  {one.name}  {one.role}{state}  {over}; {made}; {used}"


def _at(at: float | None) -> str:
    return f"{datetime.fromtimestamp(at or time.time()):%Y-%m-%d %H:%M}"


def _user() -> str:
    with contextlib.suppress(OSError, KeyError):
        return getpass.getuser()
    return "somebody"


@contextlib.contextmanager
def _tokens(*, write: bool = False) -> Iterator[ApiTokens]:
    settings = load()
    registry = Registry.open(settings.sql) if write else Registry.read(settings.sql)
    if registry is None:
        raise TokenError("there are no tokens yet; `voicegate token add` makes one")
    try:
        tokens = ApiTokens(registry)
        if write:
            tokens.open()
        yield tokens
    finally:
        registry.close()
