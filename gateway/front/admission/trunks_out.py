"""Trunks that their operator took out of service: no new call comes or goes by them until they are put back.

It lasts: a file in the data directory has it through restarts. Calls that are up go on, and so do
registrations and pings, so that a trunk that is put back is there at once. All methods belong to the front's
event loop.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final

import structlog

from gateway.config.private_file import write_private
from gateway.edge.router import Refuse
from gateway.errors import VoicegateError
from gateway.ipc.front_messages import TrunkOut, TrunkState

log = structlog.get_logger("front")

RETRY_S: Final = 300
"""When a trunk may try again whose call is not taken."""
LONGEST: Final = 1 << 16
"""Bytes of the file that are read."""


class NoSuchTrunk(VoicegateError):
    """No trunk has that name."""


class TrunksOut:
    """Those of `file`. `edge_states`: how the edge finds all trunks that there are."""

    def __init__(self, file: Path, edge_states: Callable[[], Sequence[TrunkState]]) -> None:
        self._file = file
        self._edge_states = edge_states
        self._out: dict[str, TrunkOut] = {}
        self._one = asyncio.Lock()
        try:
            with file.open("rb") as opened:
                self._out = _read(opened.read(LONGEST))
        except FileNotFoundError:
            pass
        except (OSError, ValueError, TypeError, RecursionError) as error:
            effect = "no trunk is out of service; take them out again"
            log.error("trunks_out.not_read", file=str(file), error=type(error).__name__, effect=effect)

    def states(self) -> tuple[TrunkState, ...]:
        """How all trunks are."""
        return tuple(replace(state, out=self._out.get(state.name)) for state in self._edge_states())

    def refusal(self, name: str | None) -> Refuse | None:
        """What a call hears that would come or go by a trunk; None: the trunk is in service."""
        return Refuse(503, f"the trunk {name} is out of service", RETRY_S) if name in self._out else None

    async def take_out(self, name: str, why: str, by: str) -> None:
        """From now on. Raises `NoSuchTrunk`, `OSError`: then nothing has changed."""
        if name not in {state.name for state in self._edge_states()}:
            raise NoSuchTrunk(f"there is no trunk {name} in trunks.toml")
        await self._keep(name, TrunkOut(time.time(), by, why))
        log.warning("trunk.taken_out", trunk=name, by=by, why=why)

    async def put_back(self, name: str, by: str) -> None:
        """In service again, if it was out. Raises `NoSuchTrunk`, `OSError`: then nothing has changed."""
        if name not in self._out and name not in {state.name for state in self._edge_states()}:
            raise NoSuchTrunk(f"there is no trunk {name} in trunks.toml")
        await self._keep(name, None)
        log.warning("trunk.put_back", trunk=name, by=by)

    async def _keep(self, name: str, out: TrunkOut | None) -> None:
        async with self._one:
            there = {state.name for state in self._edge_states()}
            new = {one: is_out for one, is_out in self._out.items() if one in there and one != name}
            if out is not None:
                new[name] = out
            text = json.dumps({one: asdict(is_out) for one, is_out in new.items()}, indent=1)
            await asyncio.to_thread(write_private, self._file, text)
            self._out = new


def _read(text: bytes) -> dict[str, TrunkOut]:
    """Raises `ValueError`, `TypeError`."""
    table: Any = json.loads(text)
    if not isinstance(table, dict):
        raise ValueError("it should be an object")
    return {
        str(name): TrunkOut(float(one["since"]), str(one["by"]), str(one["why"]))
        for name, one in table.items()
        if isinstance(one, dict) and {"since", "by", "why"} <= one.keys()
    }
