"""Steps in groups, tried beside the schedule that there is: `python -m benchmarks.engine_groups`.

Frames could be made by a clock: four groups of replies, 20 ms apart, a step of its group's replies for each
tick, a reply in the group of the tick after its first frame; first frames in any step. A prediction, by the
dearest costs (`engine_costs`).
"""

from __future__ import annotations

import math
from typing import Any, Final

import click

from benchmarks.engine_capacity import CONTEXT, REPLY, percentile_ms
from benchmarks.engine_code import Code, now
from benchmarks.engine_costs import DEVICES, Device, Parts
from benchmarks.engine_simulator import FRAME_S, World
from model.chroma.serving.schedule import Kind, Rest, Schedule, Step, Work

GROUPS: Final = 4
TICK_S: Final = FRAME_S / GROUPS


class Grouped(Schedule[Any, Any]):
    """By the clock; other work goes where it did. A reply below half of the lead is in every step."""

    def __init__(self, lead_s: float, frame_s: float) -> None:
        super().__init__(lead_s, frame_s)
        self._group: dict[Any, int] = {}
        self._stepped = -1

    def join(self, reply: Any, now: float) -> None:
        super().join(reply, now)
        self._group[reply] = int(now / TICK_S + 1) % GROUPS

    def leave(self, reply: Any) -> None:
        super().leave(reply)
        self._group.pop(reply, None)

    def _able(self, now: float) -> tuple[list[Any], float | None, float]:
        able, silent, deadline = super()._able(now)
        tick = int(now / TICK_S)
        due = {reply: self._places[reply].due for reply in able}
        mine = [
            reply
            for reply in able
            if due[reply] is None
            or due[reply] - now <= self._low_s  # type: ignore[operator]  # the line above
            or (tick != self._stepped and self._group[reply] == tick % GROUPS)
        ]
        return mine, silent, deadline

    def next(self, now: float) -> Step[Any] | Work[Any] | Rest:
        tick = int(now / TICK_S)
        replies, silent, deadline = self._able(now)
        found = super().next(now)
        late = deadline - 2 * self.costs.of(Kind.FRAME, len(replies)) <= now
        if isinstance(found, Step) and silent is None and tick == self._stepped and not late:
            found = Rest(math.inf)  # one step a tick
        elif isinstance(found, Rest) and replies and tick != self._stepped:
            found = self._step(replies)
        if isinstance(found, Step):
            self._stepped = tick
        return Rest(min(found.until, (tick + 1) * TICK_S + 1e-6)) if isinstance(found, Rest) else found


def trial(
    device: Device, parts: Parts, code: Code, kind: type[Schedule[Any, Any]], calls: int, seconds: float
) -> str:
    """One line: all of `calls` are taken."""
    world = World(
        device, parts, code, slots=calls, context=CONTEXT, reply=REPLY, warm_up_s=20.0, schedule=kind
    )
    for number in range(calls):
        world.call(number, 15.0 * number / calls)
    found = world.run(20.0 + seconds)
    steps = len(found.longest_s)
    return (
        f"{steps / seconds:>8.1f}{len(found.frame_s) / max(1, steps):>9.1f}"
        f"{percentile_ms(found.frame_s, 0.5):>11.1f}{percentile_ms(found.frame_s, 0.99):>8.1f}"
        f"{percentile_ms(found.first_s, 0.5):>17.1f}{percentile_ms(found.first_s, 0.95):>8.1f}"
        f"{found.misses:>7}{found.frames_busy_s / seconds:>8.0%}{found.work_busy_s / seconds:>12.0%}"
    )


@click.command()
@click.option("--seconds", default=20.0, help="of talk in each run")
def main(seconds: float) -> None:
    """Print both schedules' figures for some devices and numbers of calls."""
    click.echo("A prediction by costs that were counted, not a measurement: nothing of this ran on a GPU.")
    click.echo(
        f"{'':22}{'steps/s':>8}{'replies':>9}{'frame p50':>11}{'p99 ms':>8}{'first sound p50':>17}"
        f"{'p95 ms':>8}{'late':>7}{'frames':>8}{'other work':>12}"
    )
    parts = Parts.full()
    code = now(parts.config)
    for name, calls in (("H100", 64), ("H100", 200), ("H100", 400), ("H200", 600)):
        for label, kind in (("as it is", Schedule), ("in groups", Grouped)):
            said = trial(DEVICES[name]["high"], parts, code, kind, calls, seconds)
            click.echo(f"{name} {calls:>4} {label:<12}{said}")


if __name__ == "__main__":
    main()
