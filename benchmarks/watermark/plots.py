"""Draws what `python -m benchmarks.watermark.figures` saved: `python -m benchmarks.watermark.plots`.

docs/img/watermark-lengths.png: blind detection over the excerpt's length, per attack.
docs/img/watermark-roc.png: the counted null against the bound, and what verifying detects at each rate of
false alarms.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import click
import numpy as np
from matplotlib.figure import Figure

from benchmarks.watermark.figures import saved
from benchmarks.watermark.null import EDGES, verify_threshold
from watermark import align
from watermark.detect import CUT, STEADY

IMAGES = Path(__file__).parents[2] / "docs" / "img"
ROC = (("G.711 mu", 5), ("GSM-FR", 5), ("AMR 12.2", 5), ("AMR 7.4", 10), ("AMR 4.75", 30))
LEAST = 1e-12


def draw_lengths(path: Path) -> None:
    shares: dict[str, dict[int, list[bool]]] = defaultdict(lambda: defaultdict(list))
    for row in saved("lengths")["records"]:
        shares[row["attack"]][row["seconds"]].append(row["blind"])
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for attack, by_length in shares.items():
        seconds = sorted(by_length)
        axes.plot(seconds, [100 * np.mean(by_length[each]) for each in seconds], marker="o", label=attack)
    clips = len(next(iter(next(iter(shares.values())).values())))
    axes.set(
        xlabel="s of the call", ylabel="detected blind, %", xscale="log", title=f"{clips} excerpts a point"
    )
    axes.set_xticks([2, 3, 5, 10, 20], ["2", "3", "5", "10", "20"])
    axes.minorticks_off()
    figure.legend(loc="outside right upper", fontsize="small")
    figure.savefig(path, dpi=80)


def draw_roc(path: Path) -> None:
    (null,) = saved("null")["records"]
    above = np.cumsum(np.array(null["histogram"])[::-1])[::-1] / null["trials"]
    score = EDGES[:-1]
    bound = np.minimum(1.0, (STEADY + CUT) * align.RETIMINGS * np.exp(-(score**2) / 2))
    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.semilogy(score, np.where(above > 0, above, np.nan), label=f"counted, {null['trials']:,} trials")
    left.semilogy(score, bound, "--", label="bound, which gives p")
    left.axvline(verify_threshold(), color="C7", linewidth=0.7)
    left.set(xlim=(0, 9), ylim=(1e-8, 2), xlabel="verify score", ylabel="unmarked speech above it")
    left.legend(fontsize="small")
    rates = np.maximum(bound, LEAST)
    marked = saved("robustness")["records"]
    for attack, seconds in ROC:
        scores = np.array(
            [row["score"] for row in marked if (row["attack"], row["seconds"]) == (attack, seconds)]
        )
        found = [100 * np.mean(scores > at) for at in score]
        right.semilogx(rates, found, label=f"{attack}, {seconds} s ({len(scores)})")
    right.axvline(1e-6, color="C7", linewidth=0.7)
    right.set(xlim=(LEAST, 1), xlabel="false alarms, at most (bound)", ylabel="verified, %")
    right.legend(fontsize="small")
    figure.savefig(path, dpi=80)


@click.command()
def main() -> None:
    """Draws the watermark's two plots."""
    draw_lengths(IMAGES / "watermark-lengths.png")
    draw_roc(IMAGES / "watermark-roc.png")


if __name__ == "__main__":
    main()
