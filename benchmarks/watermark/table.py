"""The tables of docs/watermark.md from what `python -m benchmarks.watermark.figures` saved, as Markdown:
`python -m benchmarks.watermark.table`."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import click
import numpy as np

from benchmarks.watermark.channels import attacks
from benchmarks.watermark.figures import SECTIONS, interval, saved, share, tallies


def detection() -> None:
    """A goal that is missed is bold."""
    goals = {(each.name, at): 100 * wanted for each in attacks() for at, wanted in each.goals}
    rows: dict[tuple[str, int], list[dict[str, Any]]] = defaultdict(list)
    for row in saved("robustness")["records"]:
        rows[row["attack"], row["seconds"]].append(row)
    click.echo("| attack | s | goal | blind | tuned, apart, espeak | payload | wrong | verify | score |")
    click.echo("| --- " * 9 + "|")
    for (attack, seconds), some in rows.items():
        goal, hits = goals.get((attack, seconds)), share(some, "blind")
        blind = (
            interval(sum(row["blind"] for row in some), len(some)).strip().removesuffix(f" % of {len(some)}")
        )
        missed = goal is not None and hits < goal
        verified = [row for row in some if "verify" in row]
        cells = [
            attack, str(seconds), "-" if goal is None else f"{goal:g}",
            f"**{blind}**" if missed else blind,
            ", ".join(tallies(some).values()),
            f"{share(some, 'right'):.1f}", f"{sum(row['wrong'] for row in some)}",
            f"{share(verified, 'verify'):.1f}" if verified else "-",
            f"{np.median([row['score'] for row in verified]):.1f}" if verified else "-",
        ]  # fmt: skip
        click.echo(f"| {' | '.join(cells)} |")


@click.command()
def main() -> None:
    """Prints the watermark's tables."""
    for section in SECTIONS:
        click.echo(f"\n### {section}\n")
        if section == "robustness":
            detection()
            continue
        click.echo("| what | measured |\n| --- | --- |")
        for line in saved(section)["lines"]:
            click.echo(f"| {line['name']} | {line['figures']} |")


if __name__ == "__main__":
    main()
