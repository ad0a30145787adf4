"""How soon running calls fall silent when a voice is revoked, whatever is done to Redis meanwhile.

    python -m benchmarks.revocation [--calls 40] [--only "invalid UTF-8" …]

A whole gateway with Chroma on a toy checkpoint, and for each case that many telephones that listen to a voice
of their own. While they listen, somebody does the case's mischief to Redis 1,000 times (a tenth of a gigabyte
at once: ten times; what lasts: once); then the voice is revoked as `voicegate voice revoke` does it, from
another process than the gateway's. The hall's log says when each call was silenced, and by which way the hall
learnt of it. A case takes half a minute.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Literal
from unittest import mock

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy: its threads would take the gateway's cores
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import click
import numpy as np
from redis.asyncio import Redis

from consent.checks.sound import Recording
from consent.office.withdrawal import Withdrawals
from gateway.cli.caller.call_request import CallRequest
from gateway.cli.caller.testphone import place_calls
from model.chroma.tools import toy
from tests.consent.conftest import prompt
from tests.consent.grants.hostile_redis import HOSTILE
from tests.e2e.gateway_process import House
from tests.e2e.house_office import JANE_SPEAKS, Office, house_with_office, running
from tests.gateway.conftest import Valkey, short_folder

TIMES: Final = 1000
WITHIN_S: Final = 30.0
"""A call that speaks on for longer is counted as not silenced."""
Mode = Literal["plain", "slow", "silent", "away"]
REDIS: Final[dict[str, Mode]] = {
    "Redis 2 s late": "slow",
    "Redis that never answers": "silent",
    "Redis away": "away",
}
CASES: Final = ("nothing", *HOSTILE, *REDIS)
LASTING: Final = {"100 MB strings": 150.0, "a field of 100 MB": 150.0}
"""Seconds that a case's calls last where its mischief alone takes half a minute; else `CALL_S`."""
CALL_S: Final = 45.0


class Way:
    """The way from the gateway to its Redis, in a thread; `mode` says what becomes of what goes there."""

    def __init__(self, path: Path, upstream: Path) -> None:
        self.mode: Mode = "plain"
        self._path = path
        self._upstream = upstream
        self._loop = asyncio.new_event_loop()
        self._writers: set[asyncio.StreamWriter] = set()
        begun = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(begun,), daemon=True)
        self._thread.start()
        begun.wait()

    def _run(self, begun: threading.Event) -> None:
        async def begin() -> None:
            self._server = await asyncio.start_unix_server(self._took, str(self._path))
            begun.set()

        self._loop.run_until_complete(begin())
        self._loop.run_forever()

    async def _took(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.mode == "away":
            writer.transport.abort()
            return
        with contextlib.suppress(OSError):
            up_reader, up_writer = await asyncio.open_unix_connection(str(self._upstream))
            self._writers |= {writer, up_writer}
            await asyncio.gather(self._carry(reader, up_writer), self._carry(up_reader, writer))

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(1 << 16):
                if self.mode == "slow":
                    self._loop.call_later(1.0, writer.write, data)  # a second there, a second back
                elif self.mode == "plain":
                    writer.write(data)
                    await writer.drain()
        writer.close()

    def becomes(self, mode: Mode) -> None:
        """From now on; away, it breaks what is open."""
        self.mode = mode
        if mode == "away":
            for writer in list(self._writers):
                self._loop.call_soon_threadsafe(writer.transport.abort)
            self._writers.clear()


@dataclass(frozen=True)
class Silenced:
    """What one case came to: seconds from the revocation's return to each call's silence."""

    case: str
    talking: int
    """Calls that listened to the voice when it was revoked."""
    took_s: list[float]
    ways: str
    """By which way the hall learnt of it."""
    ready: str
    """How `/readyz` said that the revocations were, before the revocation."""


def _at(event: dict[str, Any]) -> float:
    return datetime.fromisoformat(event["timestamp"]).timestamp()


class RevocationBench:
    """The gateway, its office and its Redis."""

    def __init__(self, house: House, office: Office, valkey: Valkey, way: Way, calls: int) -> None:
        self.house = house
        self.office = office
        self.valkey = valkey
        self.way = way
        self.calls = calls

    def _of(self, name: str, voice: str) -> list[dict[str, Any]]:
        """The hall's lines of that event about the calls of a voice."""
        ours = {event["call_id"] for event in self.house.events("call.offered") if voice in event["called"]}
        return [event for event in self.house.events(name) if event.get("call_id") in ours]

    def _talking(self, voice: str) -> set[str]:
        """Ids of the calls that hear the voice, by the log: what is done to Redis may take the sessions."""
        begun, over = (
            {str(event["call_id"]) for event in self._of(name, voice)}
            for name in ("call.confirmed", "call.ended")
        )
        return begun - over

    def _silent(self, voice: str) -> dict[str, float]:
        """When each call was silenced, or ended by itself."""
        ends = [*self._of("call.ended", voice), *self._of("voice.muted", voice)]
        return {str(event["call_id"]): _at(event) for event in ends}

    def run(self, case: str, voice: str) -> Silenced:
        """Calls, mischief, revocation, silence."""
        house = self.house
        house.wait_for("the gateway", house.ready, 60)
        uri = house.uri.replace("demo", voice)
        call_s = LASTING.get(case, CALL_S)
        requests = [
            CallRequest(uri, duration_s=call_s, after_s=4 * n / self.calls) for n in range(self.calls)
        ]
        phones = threading.Thread(target=place_calls, args=(requests,))
        phones.start()
        with contextlib.suppress(AssertionError):  # a machine that cannot carry all of them
            house.wait_for("all calls", lambda: len(self._talking(voice)) >= self.calls, 15)
        time.sleep(1.0)
        if case in REDIS:
            self.way.becomes(REDIS[case])
            time.sleep(3.0)
        elif case != "nothing":
            asyncio.run(self._mischief(case))
        talking = self._talking(voice)
        standing = self.office.office.standing_of(voice)
        assert standing is not None  # it was registered above
        withdrawals = Withdrawals(self.office.office.books, self.office.office.vault)
        act = self.office.act("alice", "revoke", voice_id=standing.voice_id, reason="a bench")
        withdrawals.revoke(voice, "a bench", act)
        began = time.time()
        with contextlib.suppress(AssertionError):
            house.wait_for("silence", lambda: talking <= self._silent(voice).keys(), WITHIN_S)
        took_s = [at - began for call_id, at in self._silent(voice).items() if call_id in talking]
        told = [event for event in house.events("voice.withdrawn") if event["voice"] == voice]
        heard = {event["way"] for event in told if "way" in event}
        ready = self._revocations()
        phones.join()
        self.way.becomes("away")
        self.valkey.kill()
        self.valkey.start()
        self.way.becomes("plain")
        return Silenced(case, len(talking), took_s, ", ".join(sorted(heard)) or "at renewal", ready)

    def _revocations(self) -> str:
        try:
            with urllib.request.urlopen(f"{self.house.url}/readyz", timeout=10) as answer:
                return str(json.loads(answer.read())["parts"]["revocations"])
        except urllib.error.HTTPError as refused:
            return str(json.loads(refused.read())["parts"]["revocations"])

    async def _mischief(self, case: str) -> None:
        redis = Redis.from_url(self.valkey.url, socket_timeout=20.0)
        with contextlib.suppress(Exception):  # a server that throws us out too
            await HOSTILE[case](redis, self.office.office.keys.signer, TIMES)
        with contextlib.suppress(Exception):
            await redis.aclose()


def _register(office: Office, number: int, voice: str) -> None:
    """A voice of the one recording that all of them have, which the office takes for another each time."""

    def other(name: str) -> Recording:
        recording = replace(prompt(name))
        vars(recording)["sha256"] = hashlib.sha256(f"{name} {number}".encode()).hexdigest()
        return recording

    with (
        mock.patch("consent.checks.checklist.find_copy", return_value=None),
        mock.patch("tests.e2e.house_office.prompt", other),
    ):
        office.register_jane(voice, f"More about number {number}.")


def measure(calls: int, cases: tuple[str, ...], folder: Path) -> Iterator[Silenced]:
    """One row after the other."""
    voices = [f"jane{number}" for number in range(len(cases))]
    toy.write(folder / "toy")
    valkey = Valkey(folder)
    valkey.start()
    way = Way(folder / "way.sock", valkey.socket)
    house, office = house_with_office(
        folder,
        "".join(JANE_SPEAKS.replace('"jane"', f'"{voice}"') for voice in voices),
        engine="chroma",
        chroma=folder / "toy",
        chroma_reply_s=4.0,
        engine_calls=calls + 4,
        narrow_calls=calls,
        wide_calls=0,
        web_lines=0,
        invites_per_s=1000,
        redis_url=f"unix://{folder / 'way.sock'}",
    )
    for number, voice in enumerate(voices):
        _register(office, number, voice)
    try:
        with running(house, office):
            bench = RevocationBench(house, office, valkey, way, calls)
            for case, voice in zip(cases, voices, strict=True):
                yield bench.run(case, voice)
    finally:
        valkey.stop()


@click.command()
@click.option("--calls", default=40, show_default=True)
@click.option("--only", multiple=True, help=f"one of: {', '.join(CASES)}")
def main(calls: int, only: tuple[str, ...]) -> None:
    """How soon a revoked voice falls silent."""
    click.echo(
        "| done to Redis | silenced | p50, longest | learnt by | /readyz said |\n"
        "| --- | --- | --- | --- | --- |"
    )
    with short_folder() as folder:
        for row in measure(calls, only or CASES, folder):
            took = f"{np.median(row.took_s):.2f}, {max(row.took_s):.2f} s" if row.took_s else "–"
            click.echo(
                f"| {row.case} | {len(row.took_s)} of {row.talking} | {took} | {row.ways} | {row.ready} |"
            )


if __name__ == "__main__":
    main()
