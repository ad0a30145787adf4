"""The consent office as a process of the house, started by the supervisor or by `voicegate office`."""

from __future__ import annotations

import os
import pwd

from consent.ledger.witness import SYSLOG, Outside
from consent.service.office_process import serve
from consent.service.office_rooms import OfficePlace
from gateway.config.paths import consent_dir, mark_keys_path, model_files_dir, office_socket
from gateway.config.settings import Settings, load
from gateway.errors import SettingsError
from model import json_log


def office_place(settings: Settings) -> OfficePlace:
    """Where the office's things lie."""
    return OfficePlace(
        settings.consent_sql,
        consent_dir(settings),
        mark_keys_path(settings),
        model_files_dir(settings),
        settings.grant_s,
        Outside(settings.redis_url, settings.ledger_witness, SYSLOG),
    )


def gateway_user(settings: Settings) -> int:
    """The user id that the gateway runs as. Raises `SettingsError`."""
    named = settings.office_for
    if named is None:
        return os.getuid()
    try:
        return int(named) if named.isdecimal() else pwd.getpwnam(named).pw_uid
    except KeyError:
        raise SettingsError(f"VOICEGATE_OFFICE_FOR: there is no user {named!r} on this machine") from None


def main() -> None:
    """Serves until SIGTERM."""
    settings = load()
    json_log.configure("office", settings.log_level)
    serve(office_place(settings), office_socket(settings), gateway_user(settings))
