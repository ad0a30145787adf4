"""What saturates first: callers who come to a fleet of hosts and GPUs, by costs that were measured elsewhere.

    python -m benchmarks.fleet --hosts 2 --cores 8 --gpus 1 --calls 100,400,800 --plot fleet.png

A simulation of events, not a measurement. Callers come by chance (Poisson); `busy hour` lets them grow to the
named number of calls at once and fall again, `flash crowd` has a tenth of it as a base and then as many as
the whole number within ten seconds. A refused caller dials again after a while, a few times. A call goes to
the host with most room and to the GPU with most room; it costs its host a share of a core, memory and a place
on a line, and asks questions, each of which waits for one of the host's ears. What one call costs comes from
docs/figures.md (`make bench-calls`, `python -m benchmarks.ears_load`), what a GPU holds from
docs/figures-engine.md (`python -m benchmarks.engine_capacity`); every figure is an option.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

import click
import numpy as np

Scenario = Literal["busy hour", "flash crowd"]
SCENARIOS: Final[tuple[Scenario, ...]] = ("busy hour", "flash crowd")
CORES: Final = "cores"
MEMORY: Final = "memory"
LINES: Final = "lines"
GPUS: Final = "GPUs"
RESOURCES: Final = (CORES, MEMORY, LINES, GPUS)
HOUR_S: Final = 3600.0
FLASH_AT_S: Final = 600.0
FLASH_S: Final = 10.0
BASE: Final = 0.1
"""Calls before a flash crowd, of those that come with it."""
SAMPLE_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class CallCost:
    """What one call takes and does."""

    core: float = 0.011
    """of a core, all the time: lines, hall and the rest"""
    mb: float = 1.5
    seconds: float = 180.0
    """how long it lasts, in the mean"""
    question_cpu_s: float = 0.14
    questions_a_minute: float = 4.0
    tries: int = 3
    """how often a caller dials who is refused"""
    again_s: float = 30.0
    """after so long, in the mean"""

    @property
    def heard(self) -> float:
        """Cores that a call's questions take."""
        return self.question_cpu_s * self.questions_a_minute / 60


@dataclass(frozen=True, slots=True)
class Fleet:
    """What there is. `conversations`: of one GPU; with no GPUs the hosts' own engine talks."""

    hosts: int = 1
    cores: int = 2
    mb: int = 8000
    empty_mb: int = 290
    lines: int = 255
    """calls that a host's lines take"""
    gpus: int = 0
    conversations: int = 739
    share: float = 0.8
    """of a host's cores that calls may take before the next one is refused"""


@dataclass(slots=True)
class FleetHost:
    """One host's calls, and its ears: each core decodes one question at a time, in their order."""

    calls: int = 0
    free_at: list[float] = field(default_factory=list)

    def ask(self, now: float, cpu_s: float) -> float:
        """A question is asked; returns how long it takes until it is understood, in seconds."""
        begins = max(now, heapq.heappop(self.free_at))
        heapq.heappush(self.free_at, begins + cpu_s)
        return begins + cpu_s - now


@dataclass(slots=True)
class FleetRun:
    """What became of a run."""

    offered: int = 0
    """callers, not tries"""
    taken: int = 0
    lost: int = 0
    """callers who gave up"""
    refused: Counter[str] = field(default_factory=Counter)
    """tries, by what was full"""
    at_s: list[float] = field(default_factory=list)
    used: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in RESOURCES})
    """of what there is, at those times, on the fullest host or GPU"""
    understood_s: list[float] = field(default_factory=list)

    def peak(self, name: str) -> float:
        """The most of a resource that was in use."""
        return max(self.used[name], default=0.0)

    @property
    def first(self) -> str:
        """What is full first: what refused most, or else what was fullest."""
        if self.refused:
            return self.refused.most_common(1)[0][0]
        return max(RESOURCES, key=self.peak)


class Simulation:
    """One run. `rate` is how many callers come a second at a time, and never more than `most`."""

    def __init__(
        self, fleet: Fleet, cost: CallCost, rate: Callable[[float], float], most: float, seed: int
    ) -> None:
        self._fleet, self._cost = fleet, cost
        self._rate, self._most = rate, most
        self._chance = random.Random(seed)
        self._hosts = [FleetHost(free_at=[0.0] * fleet.cores) for _ in range(fleet.hosts)]
        self._gpus = [0] * fleet.gpus
        self._order = itertools.count()
        self._events: list[tuple[float, int, Callable[[float], None]]] = []
        self.outcome = FleetRun()

    def run(self, seconds: float) -> FleetRun:
        """Lets callers come for so long."""
        self._at(0.0, self._look)
        self._at(self._next(0.0), self._arrive)
        while self._events:
            now, _, happens = heapq.heappop(self._events)
            if now > seconds:
                break
            happens(now)
        return self.outcome

    def _at(self, when: float, happens: Callable[[float], None]) -> None:
        heapq.heappush(self._events, (when, next(self._order), happens))

    def _after(self, now: float, mean_s: float, happens: Callable[[float], None]) -> None:
        self._at(now + self._chance.expovariate(1 / mean_s), happens)

    def _next(self, now: float) -> float:
        """When the next caller comes: those of the highest rate, each kept by chance."""
        while True:
            now += self._chance.expovariate(self._most)
            if self._chance.random() * self._most < self._rate(now):
                return now

    def _arrive(self, now: float) -> None:
        self.outcome.offered += 1
        self._dial(now, 1)
        self._at(self._next(now), self._arrive)

    def _dial(self, now: float, tries: int) -> None:
        host = min(self._hosts, key=lambda each: each.calls)
        gpu = min(range(len(self._gpus)), key=self._gpus.__getitem__) if self._gpus else None
        full = self._full(host, gpu)
        if full is None:
            self._take(now, host, gpu)
            return
        self.outcome.refused[full] += 1
        if tries < self._cost.tries:
            self._after(now, self._cost.again_s, lambda then: self._dial(then, tries + 1))
        else:
            self.outcome.lost += 1

    def _use(self, host: FleetHost, gpu: int | None, more: int = 0) -> dict[str, float]:
        """What is in use there, of what there is, with so many calls more."""
        fleet, cost, calls = self._fleet, self._cost, host.calls + more
        return {
            CORES: calls * (cost.core + cost.heard) / (fleet.cores * fleet.share),
            MEMORY: (fleet.empty_mb + calls * cost.mb) / fleet.mb,
            LINES: calls / fleet.lines,
            GPUS: 0.0 if gpu is None else (self._gpus[gpu] + more) / fleet.conversations,
        }

    def _full(self, host: FleetHost, gpu: int | None) -> str | None:
        use = self._use(host, gpu, 1)
        return next((name for name in RESOURCES if use[name] > 1 + 1e-9), None)

    def _take(self, now: float, host: FleetHost, gpu: int | None) -> None:
        self.outcome.taken += 1
        host.calls += 1
        if gpu is not None:
            self._gpus[gpu] += 1
        ends = now + self._chance.expovariate(1 / self._cost.seconds)

        def end(_: float) -> None:
            host.calls -= 1
            if gpu is not None:
                self._gpus[gpu] -= 1

        def ask(then: float) -> None:
            if then < ends:
                self.outcome.understood_s.append(host.ask(then, self._cost.question_cpu_s))
                self._after(then, 60 / self._cost.questions_a_minute, ask)

        self._at(ends, end)
        if self._cost.questions_a_minute:
            self._after(now, 60 / self._cost.questions_a_minute, ask)

    def _look(self, now: float) -> None:
        """Notes how full all is."""
        host = max(self._hosts, key=lambda each: each.calls)
        gpu = max(range(len(self._gpus)), key=self._gpus.__getitem__) if self._gpus else None
        self.outcome.at_s.append(now)
        for name, use in self._use(host, gpu).items():
            self.outcome.used[name].append(use)
        self._at(now + SAMPLE_S, self._look)


def busy_hour(fleet: Fleet, cost: CallCost, calls: float, seed: int) -> FleetRun:
    """An hour that grows to so many calls at once, if none were refused, and falls again."""
    most = calls / cost.seconds
    return Simulation(
        fleet, cost, lambda now: most * float(np.sin(np.pi * now / HOUR_S)) ** 2, most, seed
    ).run(HOUR_S)


def flash_crowd(fleet: Fleet, cost: CallCost, calls: float, seed: int) -> FleetRun:
    """A quiet half hour in which so many callers come within ten seconds."""
    base, crowd = BASE * calls / cost.seconds, calls / FLASH_S

    def rate(now: float) -> float:
        return crowd if FLASH_AT_S <= now < FLASH_AT_S + FLASH_S else base

    return Simulation(fleet, cost, rate, max(base, crowd), seed).run(HOUR_S / 2)


RUNS: Final = {"busy hour": busy_hour, "flash crowd": flash_crowd}


def erlang_b(offered: float, places: int) -> float:
    """The share of calls that find `places` full when they offer so many erlangs (Erlang, 1917)."""
    blocked = 1.0
    for number in range(1, places + 1):
        blocked = offered * blocked / (number + offered * blocked)
    return blocked


def row(calls: float, found: FleetRun) -> str:
    """A line of the table."""
    late = np.array(found.understood_s or [0.0])
    uses = "".join(f"{found.peak(name):>9.0%}" for name in RESOURCES)
    return (
        f"{calls:>7.0f}{found.offered:>9}{found.taken:>8}{found.lost:>7}{uses}"
        f"{np.percentile(late, 95):>13.2f}{(late > 0.45).mean():>9.1%}  {found.first}"
    )


def plot(found: dict[Scenario, FleetRun], path: Path) -> None:
    """How full each resource is over the time of each scenario."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(
        1, len(found), figsize=(8, 3), sharey=True, squeeze=False, layout="constrained"
    )
    for ax, (name, outcome) in zip(axes[0], found.items(), strict=True):
        for resource in RESOURCES:
            ax.plot(np.array(outcome.at_s) / 60, 100 * np.array(outcome.used[resource]), label=resource)
        ax.axhline(100, color="grey", linewidth=0.8)
        ax.set(
            title=f"{name}: {outcome.first} first, {outcome.lost} of {outcome.offered} lost", xlabel="minutes"
        )
    axes[0][0].set_ylabel("% of what there is")
    axes[0][0].legend(frameon=False)
    figure.savefig(path, dpi=80)


@click.command()
@click.option("--hosts", default=1, show_default=True, type=click.IntRange(1))
@click.option("--cores", default=2, show_default=True, type=click.IntRange(1), help="of each host")
@click.option("--mb", default=8000, show_default=True, type=click.IntRange(1), help="memory of each host")
@click.option(
    "--lines", default=255, show_default=True, type=click.IntRange(1), help="calls of each host's lines"
)
@click.option("--gpus", default=0, show_default=True, type=click.IntRange(0))
@click.option("--conversations", default=739, show_default=True, type=click.IntRange(1), help="of each GPU")
@click.option("--core", default=0.011, show_default=True, help="of a core that a call takes")
@click.option("--call-mb", default=1.5, show_default=True, help="of memory that a call takes")
@click.option("--seconds", default=180.0, show_default=True, help="that a call lasts, in the mean")
@click.option("--question-s", default=0.14, show_default=True, help="CPU time of a question")
@click.option("--questions", default=4.0, show_default=True, help="a minute, of each caller")
@click.option("--calls", default="20,40,60,80", show_default=True, help="at once, if none were refused")
@click.option("--seed", default=0, show_default=True)
@click.option("--plot", "path", type=click.Path(path_type=Path), help="a PNG of the last number of calls")
def main(
    hosts: int, cores: int, mb: int, lines: int, gpus: int, conversations: int, core: float, call_mb: float,
    seconds: float, question_s: float, questions: float, calls: str, seed: int, path: Path | None,
) -> None:  # fmt: skip
    """What saturates first when callers come to a fleet."""
    fleet = Fleet(hosts, cores, mb, lines=lines, gpus=gpus, conversations=conversations)
    cost = CallCost(core, call_mb, seconds, question_s, questions)
    try:
        numbers = [float(each) for each in calls.split(",")]
    except ValueError:
        raise click.BadParameter(
            f"{calls!r} is not a list of numbers such as 20,40", param_hint="--calls"
        ) from None
    click.echo("A simulation by costs that were measured elsewhere.")
    last: dict[Scenario, FleetRun] = {}
    for name in SCENARIOS:
        click.echo(f"\n{name}: {hosts} host(s) of {cores} cores, {gpus} GPU(s)")
        heads = "".join(f"{each:>9}" for each in RESOURCES)
        click.echo(
            f"{'calls':>7}{'callers':>9}{'taken':>8}{'lost':>7}{heads}{'heard p95, s':>13}{'> .45 s':>9}"
            "  first"
        )
        for number in numbers:
            last[name] = RUNS[name](fleet, cost, number, seed)
            click.echo(row(number, last[name]))
    if path is not None:
        plot(last, path)


if __name__ == "__main__":
    main()
