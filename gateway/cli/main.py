"""The command `voicegate`. It only gathers: each package brings its commands, loaded when they are used."""

from __future__ import annotations

import errno
import importlib
import os
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Final

import click

from gateway.config import packages
from gateway.config.failure import is_ours
from model import __version__

COMMANDS: Final = {
    "run": ("gateway.cli.operator.run_command:run", "Start the gateway; Ctrl-C drains and stops it."),
    "call": (
        "gateway.cli.caller.call_command:call",
        "Call a SIP address, once or many times, by a script; report what was heard.",
    ),
    "calls": ("gateway.cli.calls.calls_command:calls", "List the calls, or show one."),
    "dialplan": (
        "gateway.cli.operator.dialplan_command:dialplan",
        "Check the dialplans, or ask which route a call takes.",
    ),
    "doctor": ("gateway.cli.doctor.doctor:doctor", "Check this machine and say how to fix what is wrong."),
    "engine": (
        "gateway.cli.operator.engine_command:engine",
        "Watch the engine; run, measure or compare Chroma.",
    ),
    "house": (
        "gateway.cli.operator.house_command:house",
        "Show how a gateway that runs is: processes, places, refused calls.",
    ),
    "ledger": ("consent.commands.cli:ledger", "Verify and read the consent ledger."),
    "models": (
        "gateway.cli.operator.models_command:models",
        "Fetch model files that the package does not carry, or list them.",
    ),
    "office": (
        "gateway.cli.house.office_command:office",
        "Run the consent office alone, as a user of its own.",
    ),
    "operator": ("consent.commands.cli:operator", "Operators who may decide about voices."),
    "reload": (
        "gateway.cli.operator.reload_command:reload",
        "Read dialplans, users, trunks and certificates anew.",
    ),
    "settings": (
        "gateway.cli.operator.run_command:show_settings",
        "Show every setting, its value and where to set it.",
    ),
    "setup": (
        "gateway.cli.operator.setup_command:setup",
        "Ask six questions, and write a dialplan that answers your number.",
    ),
    "sip": ("gateway.cli.operator.sip_command:sip", "SIP users."),
    "token": (
        "gateway.cli.operator.token_command:token",
        "Tokens for the page and the API: make, list, revoke.",
    ),
    "trace": ("gateway.cli.calls.trace_command:trace", "Find the call that a recording's watermark names."),
    "trunk": (
        "gateway.cli.operator.trunk_command:trunk",
        "Trunks: list them, show one, try one step by step.",
    ),
    "voice": ("consent.commands.cli:voice", "Register, list, revoke and erase voices."),
    "watermark": ("watermark.cli:watermark", "Detect marks, and name the call they belong to."),
    "webhook": (
        "gateway.cli.operator.webhook_command:webhook",
        "Webhooks: list who is told of calls by HTTP, try one.",
    ),
}
"""Name: (where it is, what it does). The text stands here so that --help imports nothing."""


ELSEWHERE: Final = ("calls", "house", "reload", "token", "trunk")
"""Commands that can ask a gateway on another machine (--url)."""

MACHINES_WORD: Final = {
    errno.ENOSPC: "make room on its disk",
    errno.EDQUOT: "this user's share of its disk is used up",
    errno.EROFS: "it can be read only; name another place (VOICEGATE_DATA_DIR is the data directory)",
    errno.EACCES: "give it to this user, or name another place (VOICEGATE_DATA_DIR is the data directory)",
    errno.EPERM: "give it to this user, or name another place (VOICEGATE_DATA_DIR is the data directory)",
    errno.ENOENT: "make the folder, or name another place",
    errno.ENOTDIR: "a file stands where a folder must be; name another place",
    errno.EISDIR: "it is a folder; name a file",
    errno.ENAMETOOLONG: "use a shorter name",
    errno.EIO: "its disk fails; see the system's log",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
}
"""What the machine may refuse to a command that is right, and what helps; the rest are faults of ours."""


class Gathered(click.Group):
    """Loads a command when it is used, and says our own errors in one line."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Every command's name, in the order of the help."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name, loaded; None when there is none."""
        if cmd_name not in COMMANDS:
            return None
        module, attribute = COMMANDS[cmd_name][0].split(":")
        try:
            command: click.Command = getattr(importlib.import_module(module), attribute)
        except ModuleNotFoundError as error:
            raise click.ClickException(packages.missing(error.name or "", f"`{cmd_name}`")) from None
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes the help's list of commands from `COMMANDS`."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])

    def invoke(self, ctx: click.Context) -> Any:
        """Runs the command. With --debug an error keeps its traceback."""
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except ModuleNotFoundError as error:
            if ctx.params.get("debug") or (error.name or "").split(".")[0] not in packages.EXTRAS:
                raise
            command = ctx.invoked_subcommand or "this"
            raise click.ClickException(packages.missing(error.name or "", f"`{command}`")) from None
        except OSError as error:
            if ctx.params.get("debug") or error.errno not in MACHINES_WORD:
                raise
            raise click.ClickException(_of_the_machine(error)) from None
        except Exception as error:
            if ctx.params.get("debug") or not is_ours(error):
                raise
            raise click.ClickException(str(error)) from None


def _of_the_machine(error: OSError) -> str:
    """What the system refused: where, why, and what helps."""
    where = "" if error.filename is None else f"{error.filename}: "
    said = f"{where}{error.strerror}"
    return f"{said}; {MACHINES_WORD[error.errno or 0]}"


def sealed_calls(sql_url: str) -> AbstractContextManager[Any]:
    """Opens the registry for consent's commands, which know no gateway."""
    opened: AbstractContextManager[Any] = importlib.import_module("gateway.store.call_leaves").sealed_calls(
        sql_url
    )
    return opened


@click.group(cls=Gathered, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="voicegate")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.option(
    "--url", help="A gateway elsewhere, https://gate.example:8443: for calls, house, reload, token, trunk."
)
@click.option("--token-from", metavar="FILE", help="File with the token for it in its first line.")
@click.option("--trust", metavar="FILE", help="PEM file with its certificate's authority, or that itself.")
@click.pass_context
def cli(ctx: click.Context, debug: bool, url: str | None, token_from: str | None, trust: str | None) -> None:
    """A telephone gateway for one voice: SIP and WebRTC in, consented and watermarked speech out.

    Settings come from VOICEGATE_* variables and a TOML file; `voicegate settings` lists them.
    """
    ctx.obj = sealed_calls
    if url is None:
        if token_from or trust:
            raise click.UsageError("--token-from and --trust go with --url")
        return
    if ctx.invoked_subcommand not in ELSEWHERE:
        raise click.UsageError(f"--url is for {', '.join(ELSEWHERE)}: other commands work on this machine")
    from gateway.cli.house.house_client import META, Elsewhere

    paths = [None if file is None else Path(file) for file in (token_from, trust)]
    ctx.meta[META] = Elsewhere(url, *paths)


def main() -> None:
    """Runs the command line."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # numpy's arrays are small here: its threads only spin
    cli(prog_name="voicegate")
