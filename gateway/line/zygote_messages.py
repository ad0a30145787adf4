"""What the supervisor and the zygote say to each other, over a socket that the zygote inherits.

The supervisor says `Hello` first, as everywhere; a zygote of another version tells it so and ends.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from gateway.ipc.envelope import Ask, Tell
from gateway.line.line_plan import LinePlan


@dataclass(frozen=True, slots=True)
class ForkLine(Ask[int]):
    """The new line's process id."""

    wire: ClassVar[str] = "line.fork"
    plan: LinePlan


@dataclass(frozen=True, slots=True)
class LineDied(Tell):
    """Of each line that ended; `status` is what it exited with, or a signal's number below zero."""

    wire: ClassVar[str] = "line.died"
    name: str
    pid: int
    status: int
