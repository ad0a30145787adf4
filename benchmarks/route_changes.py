"""How long a caller hears nothing when the route changes: `python -m benchmarks.route_changes`.

A whole gateway with the embedded engine, or with `--chroma CHECKPOINT` on the CPU, on 127.0.0.1; a telephone
presses a key of a menu again and again, and each press leads to another route. Measured at the telephone,
from the end of the key to the first sound. `--changes` is how often.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import click

from gateway.cli.caller.testphone import place_call
from tests.e2e.gateway_process import House

ROUTE = """
[[route]]
name = "{name}"
{called}
do = [
  {{ verb = "answer" }}, {{ verb = "disclose", principal = "Acme", language = "en" }},
  {{ verb = "gather", prompt = "You are in the {name} menu. Press one.", branches = {{ "1" = "{other}" }} }},
]
"""
PLAN = ROUTE.format(name="first", called='called = ["demo"]', other="second") + ROUTE.format(
    name="second", called="", other="first"
)


@click.command()
@click.option("--changes", default=10, help="how often the route changes")
@click.option("--chroma", type=click.Path(path_type=Path, exists=True), help="a checkpoint, such as a golden")
def main(changes: int, chroma: Path | None) -> None:
    """Prints the least, the middle and the longest silence."""
    with tempfile.TemporaryDirectory(prefix="vg-routes-") as name:
        folder = Path(name)
        (folder / "plans").mkdir()
        (folder / "plans" / "menu.toml").write_text(PLAN)
        engine: dict[str, Any] = {} if chroma is None else {"engine": "chroma", "chroma": chroma}
        house = House(folder, dialplans=folder / "plans", **engine)
        house.start()
        try:
            report = place_call(house.uri, script=["1"] * changes, duration_s=20.0 * changes)
        finally:
            house.stop()
    waits = sorted(turn.latency_s for turn in report.turns if turn.latency_s is not None)
    if not waits:
        raise click.ClickException(f"no key was answered: {report.ended}")
    middle = waits[len(waits) // 2]
    click.echo(f"{len(waits)} changes: silence {waits[0]:.2f} to {waits[-1]:.2f} s, p50 {middle:.2f} s")


if __name__ == "__main__":
    main()
