"""The lines of this host and their slots: which one takes a call, and which ports are theirs."""

from __future__ import annotations

import contextlib
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

NARROW: Final = "narrow"
WIDE: Final = "wide"
CODECS: Final = {
    NARROW: frozenset({"PCMU", "PCMA", "G729"}),
    WIDE: frozenset({"PCMU", "PCMA", "G722", "OPUS"}),
}
REMEMBERED_DEATHS: Final = 256

Choose = Callable[[Mapping[str, int]], str | None]
"""Chooses a hall; it is given how many slots are held of each that has a free one."""


@dataclass(frozen=True, slots=True)
class LineInfo:
    """A line that is up; `calls` are those it has already (the edge is newer than the line)."""

    name: str
    kind: str
    sip_port: int
    """UDP on 127.0.0.1"""
    capacity: int
    calls: tuple[str, ...] = ()
    hall: str = "hall0"
    """Which hall has its calls; for the router, the edge knows no more of halls."""
    process: str = ""
    """Lines with the same name here die together; none: it is alone."""


@dataclass(eq=False, slots=True)
class PooledLine:
    """A line and the calls that hold its slots."""

    info: LineInfo
    calls: set[str] = field(default_factory=set)
    asked_for: int = 0
    """Slots of calls that the router has not decided about yet."""

    @property
    def held(self) -> int:
        return len(self.calls) + self.asked_for

    @property
    def free(self) -> int:
        return max(0, self.info.capacity - self.held)

    @contextlib.contextmanager
    def place(self) -> Iterator[None]:
        """Holds a slot while the router decides; a call that is taken is in `calls` by the end."""
        self.asked_for += 1
        try:
            yield
        finally:
            self.asked_for -= 1


class Lines:
    """All that are up, by name and by port."""

    def __init__(self) -> None:
        self._by_name: dict[str, PooledLine] = {}
        self._by_port: dict[int, PooledLine] = {}
        self._dead: deque[tuple[str, int]] = deque(maxlen=REMEMBERED_DEATHS)

    @property
    def slots(self) -> int:
        return sum(line.info.capacity for line in self._by_name.values())

    @property
    def free(self) -> int:
        return sum(line.free for line in self._by_name.values())

    def up(self, info: LineInfo) -> None:
        self.down(info.name)
        self._by_name[info.name] = self._by_port[info.sip_port] = PooledLine(info, set(info.calls))

    def down(self, name: str) -> PooledLine | None:
        """Forgets the line; None when it was not there."""
        line = self._by_name.pop(name, None)
        if line is not None:
            self._by_port.pop(line.info.sip_port, None)
            self._dead.append((name, line.info.sip_port))
        return line

    def named(self, name: str) -> PooledLine | None:
        return self._by_name.get(name)

    def at_port(self, port: int) -> PooledLine | None:
        return self._by_port.get(port)

    def reachable(self, name: str, port: int) -> bool:
        """Whether a dialog's line may still be there: not when it died or came back elsewhere.

        One that has not said hello yet may: we may be the ones who restarted.
        """
        line = self._by_name.get(name)
        if line is not None:
            return line.info.sip_port == port
        return (name, port) not in self._dead and port not in self._by_port

    def may_have(self, name: str, call_id: str) -> bool:
        """Whether that line has that call, as far as is known: one that has not said hello yet may."""
        line = self._by_name.get(name)
        return line is None or call_id in line.calls

    def release(self, name: str, call_id: str) -> None:
        if line := self._by_name.get(name):
            line.calls.discard(call_id)

    def held_by_halls(self) -> Counter[str]:
        """How many slots each hall's lines hold."""
        held: Counter[str] = Counter()
        for line in self._by_name.values():
            held[line.info.hall] += line.held
        return held

    def halls_with_room(self) -> dict[str, int]:
        """How many slots are held, of each hall that has a free one."""
        held = self.held_by_halls()
        return {line.info.hall: held[line.info.hall] for line in self._by_name.values() if line.free}

    def pick(self, codecs: Sequence[str], choose: Choose) -> PooledLine | None:
        """A line with a free slot, of the kind that the first codec wants, else of the other.

        `choose` chooses among the halls that have one. Of that hall's lines it is the one whose process has
        the fewest calls, so that a process that dies takes as few as can be.
        """
        wanted = kind_for(codecs)
        for kind in (wanted, NARROW if wanted == WIDE else WIDE):
            if CODECS[kind].isdisjoint(codecs):
                continue
            free = [line for line in self._by_name.values() if line.info.kind == kind and line.free]
            held = self.held_by_halls()
            hall = choose({line.info.hall: held[line.info.hall] for line in free})
            its = [line for line in free if line.info.hall == hall]
            if its:
                return min(its, key=lambda line: (self._held_beside(line), line.held))
        return None

    def _held_beside(self, line: PooledLine) -> int:
        """How many slots a line's process holds."""
        process = line.info.process
        if not process:
            return line.held
        return sum(one.held for one in self._by_name.values() if one.info.process == process)


def kind_for(codecs: Sequence[str]) -> str:
    """Wide when G.722 or Opus comes first."""
    return WIDE if codecs and codecs[0] in ("G722", "OPUS") else NARROW
