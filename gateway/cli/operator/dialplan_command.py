"""`voicegate dialplan`: whether the plans load, and which route a call would take."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Final

import click

from consent.grants.scope import STOCK
from gateway.cli.house.consented_languages import unconsented
from gateway.cli.house.office_command import known_names
from gateway.config.house_languages import why_no_languages, why_unwritten
from gateway.config.paths import dialplan_dir
from gateway.config.settings import Settings, load
from gateway.dialplan import Converse, Dialplan, Disclose, Route, VoiceOwner
from gateway.dialplan.house_plan import read_house_plan
from gateway.dialplan.route_trial import try_route
from gateway.dialplan.routes import persons_voice
from gateway.errors import DialplanError
from gateway.run.trial_mark import check_marks

ENOUGH_EXAMPLES: Final = 10
"""of an answer that names no intent of the library"""
FOLDER = click.argument("folder", required=False, type=click.Path(path_type=Path))


@click.group()
def dialplan() -> None:
    """Check the dialplans, or ask which route a call takes."""


@dialplan.command()
@FOLDER
def check(folder: Path | None) -> None:
    """Load the dialplans of FOLDER (default: those in force) and list their routes."""
    settings = load()
    voices = known_names(settings)
    plan = read_house_plan(settings, voices, folder=folder)
    check_marks(plan)
    for route in plan.routes:
        click.echo(f"{_where(route)}: {route.name}: {_takes(route)}")
        click.echo(f"    {' → '.join(verb.verb for verb in route.do)}")
        for verb in route.do:
            if isinstance(verb, Disclose):
                click.echo(f"    {verb.language}: {verb.words(cloned=bool(persons_voice(route.voice)))}")
            elif isinstance(verb, Converse) and verb.languages:
                led = ", ".join(f"{code} → {name}" for code, name in verb.languages.items())
                click.echo(f"    callers' languages: {led}")
    for name, uri in plan.targets.items():
        click.echo(f"target {name}: {uri}")
    for route in plan.routes:
        for warning in _unheard(route, voices, settings):
            click.echo(f"{_where(route)}: {route.name}: {warning}", err=True)
        if route.keep.transcript and (why := why_unwritten(settings, route.language)) is not None:
            click.echo(
                f"{_where(route)}: {route.name}: what callers say is not written down: {why}", err=True
            )
        for warning in _poor(route):
            click.echo(f"{_where(route)}: {route.name}: {warning}", err=True)
    for route, warning in unconsented(plan, voices, settings):
        click.echo(f"{_where(route)}: {route.name}: {warning}", err=True)
    if plan.hears_languages and (why := why_no_languages(settings)) is not None:
        click.echo(f"callers' languages are not heard, and nobody is led by theirs: {why}", err=True)
    count = len(plan.routes)
    click.echo(f"{plan.folder}: {count} {'route' if count == 1 else 'routes'}, all well")


@dialplan.command("route")
@click.argument("called")
@click.option("--caller", default="", help="SIP URI or number of the caller.")
@click.option("--source", default="", help="Address that the call comes from.")
@click.option(
    "--header", "headers", multiple=True, metavar="NAME=VALUE", help="What a trusted peer says of the call."
)
@click.option("--at", help='Time, as "2026-03-02 18:30"; a zone may follow (+01:00). Default: now.')
@click.option("--folder", type=click.Path(path_type=Path), help="Default: the dialplans in force.")
def route_of(
    called: str, caller: str, source: str, headers: tuple[str, ...], at: str | None, folder: Path | None
) -> None:
    """Say which route a call to CALLED (sip:…, a user or a number) takes, and why."""
    settings = load()
    plan = Dialplan.load(
        folder or dialplan_dir(settings),
        words_leave=settings.words_leave,
        emergency=settings.emergency_numbers,
    )
    try:
        tried = try_route(plan, called=called, caller=caller, source=source, at=at or "", headers=headers)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--at") from None
    for line in tried.passed:
        click.echo(f"  not {line}")
    route = tried.route
    if route is None:
        raise DialplanError(tried.why)
    click.echo(f"{route.name}  ({_where(route)}; {_takes(route)})")
    click.echo(f"  voice {route.voice}, language {route.language}, purpose {route.purpose}")
    for number, verb in enumerate(route.do, start=1):
        click.echo(f"  {number}. {verb.verb}{_gist(verb)}")


def _unheard(route: Route, voices: Collection[str], settings: Settings) -> Iterator[str]:
    """Which voices of a route that loads cannot be heard, or managed, as things are."""
    if route.voice not in voices:
        yield f"the voice {route.voice!r} is not registered yet: callers hear 480 until it is"
    elif settings.stock_only and route.voice != STOCK:
        instead = "callers hear that" if route.without_voice == "stock" else "callers hear 480"
        yield f"the {settings.engine} engine has no voice but {STOCK}: {instead}"
    for verb in route.do:
        if isinstance(verb, VoiceOwner) and verb.voice not in voices:
            yield f"voice_owner: the voice {verb.voice!r} is not registered yet"


def _poor(route: Route) -> Iterator[str]:
    """Which answers of a route have too few examples for callers' own words to be understood."""
    for verb in route.do:
        for reply in verb.answers if isinstance(verb, Converse) else ():
            if reply.library is None and len(reply.ask) < ENOUGH_EXAMPLES:
                examples = f"{len(reply.ask)} example{'' if len(reply.ask) == 1 else 's'}"
                yield (
                    f"the answer for {reply.intent!r} has {examples}: give about "
                    f"{ENOUGH_EXAMPLES} in ask, or name an intent of the library"
                )
            elif not reply.ask:
                yield (
                    f"the answer for {reply.intent!r} has no phrase of its own in ask: without model files, "
                    "nobody is heard asking for it"
                )


def _where(route: Route) -> str:
    return f"{route.file}:{route.line}"


def _takes(route: Route) -> str:
    if not route.called:
        return "from another route only"
    parts = [f"called {', '.join(route.called)}"]
    said = tuple(f"{name} {' or '.join(patterns)}" for name, patterns in route.headers.items())
    for name, values in (
        ("caller", route.caller), ("source", route.source), ("header", said), ("hours", route.hours)
    ):  # fmt: skip
        if values:
            parts.append(f"{name} {', '.join(map(str, values))}")
    return "; ".join(parts)


def _gist(verb: object) -> str:
    if isinstance(verb, Disclose):
        return f" in {verb.language}, for {verb.principal}"
    for key in ("file", "text", "prompt", "announce", "target", "greeting", "say"):
        if value := getattr(verb, key, ""):
            return f": {value if len(value) < 70 else value[:67] + '…'}"
    return ""
