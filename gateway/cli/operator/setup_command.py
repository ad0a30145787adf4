"""`voicegate setup`: six questions, and a first dialplan that loads."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import click

from gateway.cli.operator.first_plan import ALWAYS, FirstPlan, read_hours
from gateway.config.emergency import is_emergency
from gateway.config.settings import Settings, load
from gateway.dialplan import Dialplan
from gateway.errors import DialplanError

FILE: Final = "10-house.toml"


@click.command()
@click.option(
    "--folder", type=click.Path(path_type=Path), help="Where the plan goes. Default: where the gateway looks."
)
def setup(folder: Path | None) -> None:
    """Ask six questions, and write a dialplan that answers your number.

    Nothing is written before the last answer, and no plan of yours is ever replaced.
    """
    settings = load()
    usual = (settings.dialplans or settings.data_dir / "dialplans").expanduser()
    folder = folder or usual
    if folder.exists() and not folder.is_dir():
        raise DialplanError(f"{folder}: this is a file; name a folder")
    if there := sorted(folder.glob("*.toml")):
        raise DialplanError(
            f"{there[0]}: there is a dialplan already; change that, or name another folder with --folder"
        )
    plan = _asked(settings)
    folder.mkdir(parents=True, exist_ok=True)
    fresh = folder / f".{FILE}.new"  # no reader of plans takes it for one
    try:
        fresh.write_text(plan.text(), encoding="utf-8")
        os.link(fresh, folder / FILE)
    finally:
        fresh.unlink(missing_ok=True)
    click.echo(f"\n{folder / FILE} is written: change what you like, and try it with")
    elsewhere = "" if folder == usual else f" {folder}"
    click.echo(f"    voicegate dialplan check{elsewhere}")
    click.echo("A gateway that runs takes it by `voicegate reload`; else start it: voicegate run")


def _asked(settings: Settings) -> FirstPlan:
    """The answers, each of which the loader of dialplans has taken."""
    processor = "Example Ltd" if settings.words_leave else ""
    plan = FirstPlan(principal="Example Ltd", processor=processor)

    def ask(question: str, default: str | None, put: Callable[[FirstPlan, str], FirstPlan]) -> None:
        nonlocal plan

        def tried(answer: Any) -> FirstPlan:
            try:
                given = put(plan, str(answer).strip())
                _load(given, settings)
            except (ValueError, DialplanError) as error:
                raise click.UsageError(_bare(error)) from None
            return given

        plan = click.prompt(question, default=default, show_default=bool(default), value_proc=tried)

    ask(
        "1. Whom does the machine speak for (a company, or a person)",
        None,
        lambda plan, said: replace(plan, principal=said),
    )
    ask(
        "2. What do callers dial (numbers or names, with commas)",
        "demo",
        lambda plan, said: replace(plan, called=tuple(one.strip() for one in said.split(",") if one.strip())),
    )
    ask(
        '3. When are you open ("mon-fri 9:00-18:00, sat 10-14"; outside, callers leave a message)',
        ALWAYS,
        lambda plan, said: replace(plan, hours=read_hours(said)),
    )
    ask(
        '4. Where are you, as it goes on after "You find us" (Enter: callers are not told)',
        "",
        lambda plan, said: replace(plan, address=_plain(said)),
    )
    ask(
        '5. Who takes callers that want a person, as "sip:100@10.0.0.5" or "user:reception" (Enter: nobody)',
        "",
        lambda plan, said: replace(plan, target=said),
    )
    ask(
        "6. May what is said be written down, for a day (callers are told so)",
        "no",
        lambda plan, said: replace(plan, transcript=_yes(said)),
    )
    if settings.words_leave:
        ask(
            "7. Who runs the language model that callers' words are sent to",
            None,
            lambda plan, said: replace(plan, processor=said),
        )
    return plan


def _load(plan: FirstPlan, settings: Settings) -> None:
    """Raises `DialplanError` when it would not load."""
    if not plan.called:
        raise DialplanError("name at least one number")
    for number in plan.called:
        if is_emergency(number, settings.emergency_numbers):
            raise DialplanError(f"{number}: no call for help is taken; see docs/dialplans.md")
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, FILE).write_text(plan.text(), encoding="utf-8")
        Dialplan.load(Path(folder), words_leave=settings.words_leave, emergency=settings.emergency_numbers)


def _bare(error: Exception) -> str:
    """What is wrong, without the file that nobody has seen yet."""
    said = str(error)
    _, found, rest = said.partition(f"{FILE}:")
    return rest.partition(": ")[2] if found else said


def _plain(said: str) -> str:
    if "{" in said or "}" in said:
        raise ValueError("leave out { and }: a plan's facts stand in them")
    return said


def _yes(said: str) -> bool:
    if said.lower() not in ("y", "yes", "n", "no"):
        raise ValueError("say yes or no")
    return said.lower().startswith("y")
