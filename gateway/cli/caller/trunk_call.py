"""`voicegate call --trunk`: the test phone calls a number through a trunk, and says where that dies."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import ssl
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final

import click
import structlog

from gateway.cli.caller.call_reports import CallReport
from gateway.cli.caller.call_request import BoothSide, CallRequest
from gateway.cli.caller.call_script import in_turn
from gateway.cli.caller.testphone import place_calls
from gateway.cli.house.house_state import trunk_states
from gateway.config.certificate import Certificate, asking
from gateway.config.paths import certificate_paths, trunks_path
from gateway.config.settings import Settings
from gateway.dialplan.target_address import NUMBER
from gateway.edge.trunks.trunk import Trunk
from gateway.edge.trunks.trunk_booth import TrunkBooth
from gateway.edge.trunks.trunk_file import read_trunks
from gateway.edge.trunks.trunk_trial import TrialStep, TrunkTrial
from gateway.errors import CallerError, NoFlow, SettingsError

_NUMBER: Final = re.compile(NUMBER)


class TrunkCall:
    """One command's calls by one trunk."""

    def __init__(self, settings: Settings, name: str, quiet: bool) -> None:
        """`quiet`: steps are told on stderr, for stdout is a program's. Raises `SettingsError`."""
        self._trunk = named_trunk(settings, name)
        self._beside = sum(state.calls for state in trunk_states(settings) if state.name == name)
        self._trust = partial(trunk_trust, settings)
        self._quiet = quiet

    def place(self, requests: Sequence[CallRequest], called_agrees: bool) -> list[CallReport]:
        """Tries the trunk step by step, then places the calls.

        Raises `CallerError`, before anybody is called where that can be known.
        """
        for request in requests:
            self._check(request, called_agrees)
        with _errors_alone():
            return asyncio.run(self._placed(requests))

    def _check(self, request: CallRequest, called_agrees: bool) -> None:
        number = request.uri
        if _NUMBER.fullmatch(number) is None:
            raise CallerError(f"{number!r} is not a number; --trunk calls one like +493012345")
        if (why := self._trunk.why_not(number)) is not None:
            raise CallerError(f"{number} may not be called by {self._trunk.name}: {why}")
        if request.record is not None and not called_agrees:
            raise CallerError(
                "whoever is called by a trunk is a person who must have agreed before you record them; "
                "add --called-agrees once they have"
            )
        if request.user or request.password:
            raise CallerError("--user and --password are trunks.toml's to say where a trunk is called")
        for act in in_turn(request.script):
            if act.act == "say":
                raise CallerError("words are said by a synthetic voice, which leaves by no trunk; use play")
            if act.act == "hold":
                raise CallerError("a call through a trunk cannot be put on hold by the test phone")

    async def _placed(self, requests: Sequence[CallRequest]) -> list[CallReport]:
        async for step in TrunkTrial(self._trunk, self._trust).steps(None):
            self._say(said_of(step))
            if not step.well:
                raise CallerError(f"the call dies at {step.what}; `voicegate trunk test` shows the messages")
        booth = TrunkBooth(self._trunk, self._trust, beside=self._beside)
        try:
            await booth.open()
            side = BoothSide(booth.sound_address, self._trunk.sound_rule)
            dialled = [replace(one, uri=booth.uri_of(one.uri), booth=side) for one in requests]
            reports = await asyncio.to_thread(place_calls, dialled)
        except NoFlow as error:
            raise CallerError(str(error)) from None
        finally:
            await booth.close()
        told = [replace(report, uri=one.uri) for report, one in zip(reports, requests, strict=True)]
        for report in told:
            status = f"answered {report.status} {report.reason or 'OK'}"
            self._say(said_of(TrialStep("INVITE", report.answered, status)))
        if not all(report.answered for report in told):
            self._say("\n".join(["", *booth.ladder.lines]))
        return told

    def _say(self, text: str) -> None:
        click.echo(text, err=self._quiet)


@contextlib.contextmanager
def _errors_alone() -> Iterator[None]:
    """While this lasts, the edge's parts log nothing but errors, on stderr: the steps say the rest."""
    before = structlog.get_config()
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    try:
        yield
    finally:
        structlog.configure(**before)


def said_of(step: TrialStep) -> str:
    """A step as its line says it."""
    return f"{'ok  ' if step.well else 'FAIL'}  {step.what}: {step.text}"


def named_trunk(settings: Settings, name: str) -> Trunk:
    """The trunk of that name. Raises `SettingsError`."""
    found = {one.name: one for one in read_trunks(trunks_path(settings))}
    if name not in found:
        known = ", ".join(found) or "none"
        raise SettingsError(f"no trunk {name} in {trunks_path(settings)}; there are: {known}")
    return found[name]


def trunk_trust(
    settings: Settings, authorities: Path | None, certificate: Certificate | None
) -> ssl.SSLContext:
    """As the gateway has it (`Trust`): the house's own certificate where the trunk has none."""
    chain, key = certificate_paths(settings)
    if certificate is None and settings.tls and chain.exists():
        certificate = Certificate(chain, key)
    return asking(authorities or settings.tls_trust, certificate)
