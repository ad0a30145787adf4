"""`voicegate run` and `voicegate settings`."""

from __future__ import annotations

import contextlib
import sys
import textwrap
from pathlib import Path
from typing import Final

import click
from rich.console import Console
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from consent import core_files
from consent.bare_url import bare
from gateway.config.own_address import in_url, reached_at
from gateway.config.paths import dialplan_dir
from gateway.config.runtime import runtime_for
from gateway.config.settings import PREFIX, Settings, load
from gateway.dialplan.house_plan import read_house_plan
from gateway.ipc.front_messages import HouseState
from gateway.run import preflight
from gateway.store.sip_users import SipUsers, console_token

OFFICE_WIDTH: Final = 80


@click.command()
def run() -> None:
    """Start the gateway; Ctrl-C drains and stops it.

    A second Ctrl-C ends the running calls at once.
    """
    from gateway.run.supervisor import run as supervise

    core_files.leave_none()
    settings = load()
    # a mistake there is better said now than by a child's log
    plan = read_house_plan(settings, recordings=False)  # `gateway.run.prepare` reads them, and is gone then
    with contextlib.closing(StartScreen(settings)) as screen:
        status = supervise(settings, screen, hears_languages=plan.hears_languages)
    sys.exit(status)


class StartScreen:
    """On a terminal one line says what is being done; the panel takes its place when the gateway is up."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        console = Console(stderr=True)
        self._status = console.status("") if console.is_terminal else None

    def progress(self, doing: str) -> None:
        """Shows what is being done now. Elsewhere than on a terminal the log tells it."""
        if self._status is not None:
            self._status.update(f"voicegate: {doing}…")
            self._status.start()

    def ready(self, state: HouseState, log: Path | None) -> None:
        """The gateway is up: shows the panel."""
        self.close()
        Console().print(panel(self._settings, state, log))

    def close(self) -> None:
        """Takes the line away."""
        if self._status is not None:
            self._status.stop()


@click.command("settings")
def show_settings() -> None:
    """Show every setting, its value and where to set it."""
    settings = load()
    table = Table(box=None, pad_edge=False)
    for title in ("setting", "value", "what it is"):
        table.add_column(title, overflow="fold")
    for name, field in Settings.model_fields.items():
        value = getattr(settings, name)
        text = ",".join(value) if isinstance(value, tuple) else "" if value is None else str(value)
        shown = bare(text) if name in ("redis_url", "sql_url", "consent_sql_url", "llm_url") else text
        default = "" if value == field.get_default(call_default_factory=True) else "*"
        table.add_row(PREFIX + name.upper(), shown + default, field.description or "")
    Console(width=None if sys.stdout.isatty() else 160).print(table)
    for check in (
        preflight.check_addresses,
        preflight.check_lines,
        preflight.check_redis_url,
        preflight.check_sql_url,
        preflight.check_chat_server,
        preflight.check_weights,
    ):
        check(settings)
    click.echo(
        f"\n* set by you. A file may set them too, by lower-case name: {settings.data_dir}/voicegate.toml"
    )


def panel(settings: Settings, state: HouseState, log: Path | None) -> Panel:
    """The text that tells an operator how to make the first call.

    `state` is what the front says of the gateway.
    """
    address = reached_at(settings)
    port = "" if settings.sip_port == 5060 else f":{settings.sip_port}"
    rows = Table.grid(padding=(0, 2))
    over = f"UDP, TCP; TLS: port {settings.sip_tls}" if settings.sip_tls else "UDP, TCP"
    rows.add_row("call", f"[bold]sip:demo@{in_url(address)}{port}[/bold]  ({over})")
    if settings.digest and (first := SipUsers(settings.data_dir).first()):
        rows.add_row("", f"user [bold]{first[0]}[/bold], password [bold]{first[1]}[/bold]")
    host = "localhost" if settings.local_only else in_url(address)
    web = f"https://{host}:{settings.https}" if settings.https else f"http://{host}:{settings.http_port}"
    rows.add_row("browser", f"[bold]{web}[/bold]")
    if state.certificate:
        rows.add_row("certificate", Text(textwrap.fill(state.certificate, OFFICE_WIDTH)))  # no emoji
    if not settings.local_only:
        rows.add_row("", f"token [bold]{console_token(settings.data_dir)}[/bold]")
    rows.add_row("engine", settings.engine)
    if state.voices:
        rows.add_row("voices", ", ".join(state.voices))
    for trunk in state.trunks:
        how = "up" if trunk.why is None else f"[bold]down[/bold]: {escape(trunk.why)}"
        rows.add_row("trunk", f"{trunk.name}: {how}")
    if state.registered:
        lost = f", {state.unreachable} not reachable" if state.unreachable else ""
        rows.add_row("registered", f"{state.registered} telephones{lost}")
    if state.lines:
        rows.add_row("lines", ", ".join(f"{kind} {calls} calls" for kind, calls in state.lines.items()))
    embedded = f"embedded ({runtime_for(settings.data_dir).redis})"
    rows.add_row("Redis", bare(settings.redis_url or embedded))
    rows.add_row("SQL", bare(settings.sql))
    rows.add_row("watermark", state.watermark)
    if state.ledger:
        rows.add_row("ledger", state.ledger)
    if state.office:
        rows.add_row("consent office", textwrap.fill(state.office, OFFICE_WIDTH))
    if settings.detector:
        rows.add_row("detector", f"http://{host}:{settings.detector}")
    rows.add_row("dialplan", str(dialplan_dir(settings)))
    if log is not None:
        rows.add_row("log", str(log))
    return Panel(rows, title="voicegate", subtitle="Ctrl-C stops it", expand=False)
