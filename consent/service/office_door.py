"""How a command gets to the office: at the socket that somebody serves, or by starting one for its time.

A command opens no key: the office that it starts is a process of its own, which ends with the command.
"""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from consent.errors import OfficeAway
from consent.service.office_client import OfficeClient
from consent.service.office_rooms import OfficePlace
from consent.service.operator_questions import AskFacts, database_mark

ENDS_WITHIN_S: Final = 30.0


@contextlib.contextmanager
def office_of(path: Path, place: OfficePlace | None) -> Iterator[OfficeClient]:
    """The office served at `path`; else one that opens `place`, if this user may.

    `place` is None where another service is to serve. Raises `OfficeAway`, which says who must start it.
    """
    with contextlib.ExitStack() as held:
        client = held.enter_context(contextlib.closing(OfficeClient(path, back_s=0.0)))
        try:
            facts = client.ask(AskFacts())
        except OfficeAway as error:
            if place is None:
                raise
            refuse_others_keys(place, str(error))
            client = held.enter_context(_own(place))
        else:
            if place is not None and facts.database != database_mark(place.sql_url):
                raise OfficeAway(
                    f"the consent office at {path} keeps another database than this command names; "
                    "leave --sql and VOICEGATE_SQL_URL as the gateway has them, or end the gateway first"
                )
        yield client


def refuse_others_keys(place: OfficePlace, nobody: str) -> None:
    """Raises `OfficeAway` when the keys are another user's, beginning with why nobody else is asked."""
    for folder in (place.consent_dir, *place.consent_dir.parents):
        try:
            owner = folder.stat().st_uid
        except PermissionError:
            continue  # whoever owns the folder above lets nobody in
        except OSError:
            return  # there are no keys yet
        if owner != os.getuid() != 0:
            name = user_name(owner)
            raise OfficeAway(
                f"{nobody}, and its keys are {name}'s: start the gateway as {name}, or be {name}"
            )
        return


def keys_readable_by(office: int, gateway: int) -> str:
    """What follows from the user ids that the office and the gateway run as, for an operator's eyes."""
    name, other = user_name(office), user_name(gateway)
    if office != gateway:
        return f"runs as {name}, the gateway as {other}, who cannot read the office's keys (root can)"
    return (
        f"runs as {name}, as the gateway does: whoever may act as {name} can read the office's keys and sign "
        "grants with them; no key of the office signs an operator's act, and without acts there is no voice, "
        "no review and no operator"
    )


def user_name(user: int) -> str:
    """A user's name, or the number of one that has none."""
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return f"user {user}"


@contextlib.contextmanager
def _own(place: OfficePlace) -> Iterator[OfficeClient]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with theirs:
        number = theirs.fileno()
        process = subprocess.Popen(  # noqa: S603  # our own module, under this interpreter
            [sys.executable, "-m", "consent.service.office_process", str(number)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            pass_fds=(number,),
            text=True,
        )
    client = OfficeClient(None, ours)
    try:
        with process.stdin or contextlib.nullcontext() as told:
            if told is not None:
                json.dump(place.to_json(), told)
        yield client
    finally:
        client.close()
        try:
            process.wait(ENDS_WITHIN_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
