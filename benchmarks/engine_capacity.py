"""How many calls a GPU will bear: `python -m benchmarks.engine_capacity [--plot PNG]`.

A prediction: the engine's own schedule and admission replay calls in virtual time against costs by count
(`engine_costs`, three times over), with the kernels and buckets of this tree's code and of 545a5a0's
(`engine_code`). Callers arrive over a minute and talk on after that; steps read contexts of 1,000 and 800
positions for each reply, slots have VOICEGATE_CHROMA_CONTEXT=2048, and what they are promised by default
where there are pages. What misses a goal is printed in bold.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import click
import numpy as np

from benchmarks.engine_code import BEFORE, Code, now
from benchmarks.engine_costs import DEVICES, LEVELS, Device, Level, Parts
from benchmarks.engine_simulator import FRAME_S, Found, World, predicted_capacity

ARRIVE_S: Final = 60.0
SLOT_CONTEXT: Final = 2048
CONTEXT: Final = 1000
REPLY: Final = 800
CALLS: Final = "1,16,64,128,200,300,400,500,600,700,800,900"
SHOWN_MS: Final = 130
FRAME_MS: Final = 45.0
"""Goal of the 99th percentile, at the calls of `GOALS`, by the dearest costs."""
FIRST_MS: Final = 80.0
"""Goal of first sound's 95th percentile."""
GOALS: Final = {"H100": 400, "H200": 700}
ONE_CALL_MS: Final = {"H100": 3.5}
FLOORS_MS: Final = {
    "H100": {1: 2.26, 16: 2.51, 64: 3.29, 128: 4.32},
    "H200": {1: 1.58, 16: 1.75, 64: 2.29, 128: 3.02},
}
"""Bytes by a copy's bandwidth; a frame of so many replies that are made at once, text flowing."""


def mean_step_ms(device: Device, parts: Parts, code: Code, replies: int) -> float:
    """Of a step with a word and the next without, all replies in both and no slot beside them."""
    both = [
        code.step(
            parts, range(replies), replies, thinking=replies * word, words=word, pairs=word, begins=0,
            context=CONTEXT, reply=REPLY,
        )
        for word in (True, False)
    ]  # fmt: skip
    return 500 * sum(device.seconds(load, replies) for load in both)


def simulate(device: Device, parts: Parts, code: Code, calls: int, seconds: float) -> Found:
    """`calls` arrive one after the other; those that admission refuses are gone."""
    limit = predicted_capacity(device, parts, code, SLOT_CONTEXT)
    world = World(
        device, parts, code, slots=limit.conversations, context=CONTEXT, reply=REPLY, limit=limit,
        warm_up_s=ARRIVE_S,
    )  # fmt: skip
    for number in range(calls):
        world.call(number, ARRIVE_S * number / calls)
    return world.run(ARRIVE_S + seconds)


def percentile_ms(values: list[float], share: float) -> float:
    return 1000 * float(np.percentile(np.array(values), 100 * share))


def bold(value: float, most: float) -> str:
    return f"{value:.1f}" if value <= most else f"**{value:.1f}**"


def floors(parts: Parts, codes: list[Code]) -> None:
    """Steps of replies that are all made at once, beside the floor of the same."""
    click.echo("\na step, all its replies with text, ms: low / middle / high (floor by a copy's bandwidth)")
    for name, known in FLOORS_MS.items():
        for code in codes:
            said = []
            for replies, floor in known.items():
                most = ONE_CALL_MS.get(name, 1e9) if replies == 1 else 1e9
                steps = [mean_step_ms(DEVICES[name][level], parts, code, replies) for level in LEVELS]
                said.append(f"{replies}: {' / '.join(bold(step, most) for step in steps)} ({floor:.2f})")
            click.echo(f"  {name}  {code.name:<18}{', '.join(said)}")


def table(
    name: str, level: Level, parts: Parts, code: Code, calls: list[int], seconds: float, slower: float = 1.0
) -> list[tuple[int, Found]]:
    """Prints a line for each number of calls, up to the first at which one is refused."""
    device = DEVICES[name][level].slower(slower)
    limit = predicted_capacity(device, parts, code, SLOT_CONTEXT)
    leaking = ""
    if code.leaks:
        leak = predicted_capacity(device, parts, code, SLOT_CONTEXT, leaks=True)
        leaking = (
            f" (`auto` finds {leak.conversations}, since what it tries stays; the table sets the number)"
        )
    click.echo(
        f"\n{name}, {code.name}, {level}: admission finds {limit.conversations} conversations, ended by "
        f"{limit.bound}{leaking}"
    )
    click.echo(
        f"{'calls':>6}{'taken':>7}{'replies':>9}{'frame p50':>11}{'p99 ms':>11}{'first sound p50':>17}"
        f"{'p95 ms':>11}{'late':>7}{'of frames':>11}{'frames':>8}{'other work':>12}"
    )
    found = []
    goal = GOALS[name]
    for count in calls:
        run = simulate(device, parts, code, count, seconds)
        found.append((run.taken, run))
        first = percentile_ms(run.first_s, 0.95)
        frame = percentile_ms(run.frame_s, 0.99)
        held = level == "high" and count == goal
        click.echo(
            f"{count:>6}{run.taken:>7}{run.played * FRAME_S / seconds:>9.1f}"
            f"{percentile_ms(run.frame_s, 0.5):>11.1f}{bold(frame, FRAME_MS if held else 1e9):>11}"
            f"{percentile_ms(run.first_s, 0.5):>17.1f}{bold(first, FIRST_MS if held else 1e9):>11}"
            f"{run.misses:>7}{len(run.frame_s):>11}"
            f"{run.frames_busy_s / seconds:>8.0%}{run.work_busy_s / seconds:>12.0%}"
        )
        if run.refused:
            refused = ", ".join(f"{number} for {reason}" for reason, number in run.refused.items())
            click.echo(f"{'':6} refused: {refused}")
            break
    taken = found[-1][0]
    if level == "high" and taken < goal:
        click.echo(f"{'':6} **the goal of {goal} calls is missed: {taken}**")
    return found


def plot(found: dict[tuple[str, str, Level], list[tuple[int, Found]]], path: Path) -> None:
    """The dearest costs: this tree's code as lines, what was before dashed."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(8, 3), sharey=True, layout="constrained")
    for ax, name in zip(axes, DEVICES, strict=True):
        for code, style in (("now", ".-"), (BEFORE.name, "--")):
            runs = found.get((name, code, "high"), [])
            calls = [taken for taken, _ in runs]
            for color, (label, of, share) in enumerate(
                (
                    ("frame p50", "frame_s", 0.5),
                    ("frame p99", "frame_s", 0.99),
                    ("first sound p95", "first_s", 0.95),
                )
            ):
                values = [percentile_ms(getattr(run, of), share) for _, run in runs]
                ax.plot(calls, values, style, color=f"C{color}", label=label if code == "now" else None)
        ax.axhline(1000 * FRAME_S, color="grey", linewidth=0.8)
        ax.set(title=f"{name}, predicted (high)", xlabel="calls", ylim=(0, SHOWN_MS))
    axes[0].set_ylabel("ms; dashed: before")
    axes[0].legend(frameon=False)
    figure.savefig(path, dpi=80)


@click.command()
@click.option("--calls", default=CALLS, help="that arrive, one run each; it ends where one is refused")
@click.option("--seconds", default=30.0, help="of talk in each run")
@click.option("--device", "name", type=click.Choice([*DEVICES, "all"]), default="all")
@click.option("--level", "levels", type=click.Choice(LEVELS), multiple=True, default=LEVELS)
@click.option("--code", "which", type=click.Choice(["before", "now", "both"]), default="both")
@click.option("--slower", default=1.0, help="take everything for so many times as slow")
@click.option("--plot", "path", type=click.Path(path_type=Path), help="a PNG")
def main(
    calls: str, seconds: float, name: str, levels: tuple[Level, ...], which: str, slower: float,
    path: Path | None,
) -> None:  # fmt: skip
    """Predict the table of calls against frame time, first sound and memory."""
    click.echo("A prediction by costs that were counted, not a measurement: nothing of this ran on a GPU.")
    parts = Parts.full()
    click.echo(f"Weights take {parts.weights / 1e9:.1f} GB.")
    both = {"before": BEFORE, "now": now(parts.config)}
    codes = list(both.values()) if which == "both" else [both[which]]
    for code in codes:
        slot = parts.slot(SLOT_CONTEXT, code.promised)
        click.echo(f"{code.name}: a slot takes {slot / 1e6:.0f} MB; {code.counts}")
    if slower == 1.0:
        floors(parts, codes)
    counts = [int(one) for one in calls.split(",")]
    names = list(DEVICES) if name == "all" else [name]
    found = {
        (one, code.name, level): table(one, level, parts, code, counts, seconds, slower)
        for one in names
        for code in codes
        for level in levels
    }
    if path is not None:
        plot(found, path)


if __name__ == "__main__":
    main()
