"""How many calls a GPU will bear: `python -m benchmarks.engine_capacity [--plot PNG]`.

A prediction: the engine's own schedule and admission replay calls in virtual time against costs by count
(`engine_costs`). Callers arrive over a minute and talk for 5 minutes after that; steps read contexts of
1,000 and 800 positions for each reply, slots have VOICEGATE_CHROMA_CONTEXT=2048.
"""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np

from benchmarks.engine_costs import DEVICES, Device, Parts
from benchmarks.engine_simulator import FRAME_S, Found, World, predicted_capacity

ARRIVE_S = 60.0
SLOT_CONTEXT = 2048
CONTEXT, REPLY = 1000, 800
CALLS = "1,16,64,128,200,300,400,500,600,700,800,900"
SHOWN_MS = 130

FLOORS_MS = {
    "H100": {1: 2.26, 16: 2.51, 64: 3.29, 128: 4.32},
    "H200": {1: 1.58, 16: 1.75, 64: 2.29, 128: 3.02},
}
"""Bytes by a copy's bandwidth; a frame of so many replies that are made at once, text flowing."""


def mean_step_ms(device: Device, parts: Parts, replies: int) -> float:
    """Of a step with a word and the next without, all replies in both."""
    word = device.seconds(parts.frame(replies, replies, True, CONTEXT, REPLY), replies)
    none = device.seconds(parts.frame(replies, 0, False, CONTEXT, REPLY), replies)
    return 500 * (word + none)


def simulate(device: Device, parts: Parts, calls: int, seconds: float) -> Found:
    """`calls` arrive one after the other; those that admission refuses are gone."""
    limit = predicted_capacity(device, parts, SLOT_CONTEXT)
    world = World(device, parts, context=CONTEXT, reply=REPLY, limit=limit, warm_up_s=ARRIVE_S)
    for number in range(calls):
        world.call(number, ARRIVE_S * number / calls)
    return world.run(ARRIVE_S + seconds)


def percentile_ms(values: list[float], share: float) -> float:
    return 1000 * float(np.percentile(np.array(values), 100 * share))


def floors(parts: Parts) -> None:
    """Steps of replies that are all made at once, beside the floor of the same."""
    click.echo("\na step, all its replies with text, ms: predicted (floor by a copy's bandwidth)")
    for name, known in FLOORS_MS.items():
        steps = ", ".join(
            f"{replies}: {mean_step_ms(DEVICES[name], parts, replies):.2f} ({floor:.2f})"
            for replies, floor in known.items()
        )
        click.echo(f"  {name}  {steps}")


def table(device: Device, parts: Parts, calls: list[int], seconds: float) -> list[tuple[int, Found]]:
    """Prints a line for each number of calls, up to the first at which one is refused."""
    limit = predicted_capacity(device, parts, SLOT_CONTEXT)
    click.echo(
        f"\n{device.name}: admission finds {limit.conversations} conversations, ended by {limit.bound}; "
        f"a slot takes {parts.slot(SLOT_CONTEXT) / 1e6:.0f} MB, weights {parts.weights / 1e9:.1f} GB"
    )
    click.echo(
        f"{'calls':>6}{'taken':>7}{'replies':>9}{'frame p50':>11}{'p99 ms':>8}{'first sound p50':>17}"
        f"{'p95 ms':>8}{'late':>6}{'of frames':>11}{'memory GB':>11}{'frames':>8}{'other work':>12}"
    )
    found = []
    for count in calls:
        run = simulate(device, parts, count, seconds)
        found.append((run.taken, run))
        memory = (parts.weights + run.taken * parts.slot(SLOT_CONTEXT)) / 1e9
        click.echo(
            f"{count:>6}{run.taken:>7}{run.played * FRAME_S / seconds:>9.1f}"
            f"{percentile_ms(run.frame_s, 0.5):>11.1f}{percentile_ms(run.frame_s, 0.99):>8.1f}"
            f"{percentile_ms(run.first_s, 0.5):>17.1f}{percentile_ms(run.first_s, 0.95):>8.1f}"
            f"{run.misses:>6}{len(run.frame_s):>11}{memory:>11.1f}"
            f"{run.frames_busy_s / seconds:>8.0%}{run.work_busy_s / seconds:>12.0%}"
        )
        if run.refused:
            said = ", ".join(f"{number} for {reason}" for reason, number in run.refused.items())
            click.echo(f"{'':6} refused: {said}")
            break
    return found


def plot(found: dict[str, list[tuple[int, Found]]], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(8, 3), sharey=True, layout="constrained")
    for ax, (name, runs) in zip(axes, found.items(), strict=True):
        calls = [taken for taken, _ in runs]
        for label, of, share in (
            ("frame p50", "frame_s", 0.5),
            ("frame p99", "frame_s", 0.99),
            ("first sound p95", "first_s", 0.95),
        ):
            ax.plot(calls, [percentile_ms(getattr(run, of), share) for _, run in runs], ".-", label=label)
        ax.axhline(1000 * FRAME_S, color="grey", linewidth=0.8)
        ax.set(title=f"{name}, predicted", xlabel="calls", ylim=(0, SHOWN_MS))
    axes[0].set_ylabel("ms")
    axes[0].legend(frameon=False)
    figure.savefig(path, dpi=80)


@click.command()
@click.option("--calls", default=CALLS, help="that arrive, one run each; it ends where one is refused")
@click.option("--seconds", default=300.0, help="of talk in each run")
@click.option("--device", "name", type=click.Choice([*DEVICES, "all"]), default="all")
@click.option("--slower", default=1.0, help="take everything for so many times as slow")
@click.option("--plot", "path", type=click.Path(path_type=Path), help="a PNG")
def main(calls: str, seconds: float, name: str, slower: float, path: Path | None) -> None:
    """Predict the table of calls against frame time, first sound and memory."""
    click.echo("A prediction by costs that were counted, not a measurement: nothing of this ran on a GPU.")
    parts = Parts.full()
    if slower == 1.0:
        floors(parts)
    counts = [int(one) for one in calls.split(",")]
    names = list(DEVICES) if name == "all" else [name]
    found = {one: table(DEVICES[one].slower(slower), parts, counts, seconds) for one in names}
    if path is not None:
        plot(found, path)


if __name__ == "__main__":
    main()
