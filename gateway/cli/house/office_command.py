"""`voicegate office`: the consent office by itself, for a service that runs it as a user of its own."""

from __future__ import annotations

from contextlib import AbstractContextManager

import click

from consent import core_files
from consent.office.voice_names import known_voices
from consent.service.front_questions import AskNames
from consent.service.office_client import OfficeClient
from consent.service.office_door import office_of
from consent.service.office_process import serve
from gateway.config.paths import office_socket
from gateway.config.settings import Settings, load
from gateway.run.office_child import gateway_user, office_place
from model import json_log


@click.command()
def office() -> None:
    """Run the consent office alone, as a user of its own, until SIGTERM.

    It serves at VOICEGATE_OFFICE_SOCKET; what only a gateway may ask it answers to the user
    VOICEGATE_OFFICE_FOR.
    """
    core_files.leave_none()
    settings = load()
    json_log.configure("office", settings.log_level)
    serve(office_place(settings), office_socket(settings), gateway_user(settings))


def asked_office(settings: Settings) -> AbstractContextManager[OfficeClient]:
    """The office that the settings name, for a command. Raises `OfficeAway`."""
    own = office_place(settings) if settings.office_socket is None else None
    return office_of(office_socket(settings), own)


def known_names(settings: Settings) -> frozenset[str]:
    """The names of all voices. Raises `LedgerError`, `OfficeAway`.

    They are read from the database where this user has it: a dialplan is checked without an office.
    """
    if settings.office_socket is None:
        return known_voices(settings.consent_sql)
    with asked_office(settings) as client:
        return frozenset(client.ask(AskNames()))
