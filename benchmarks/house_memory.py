"""What an empty house takes: memory of each process that `voicegate run` starts, without a call.

    .venv/bin/python -m benchmarks.house_memory
    .venv/bin/python -m benchmarks.house_memory --beside ../before --turns 2

starts a gateway with the settings that it has by itself, waits until it is ready and so many seconds more,
and sums PSS: a page that several processes share counts once in the sum. `--beside` names checkouts of other
commits, which are measured in turn with this one. It takes some 15 s a start.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Final

import click

from benchmarks.house_meter import pss_mb
from tests.e2e.gateway_process import House

NEEDED: Final = tuple(f"VOICEGATE_{name}" for name in ("DATA_DIR", "SIP_PORT", "HTTP_PORT", "MODELS"))
"""All else is as a gateway has it that is told nothing; another commit may not know all settings."""
OWN: Final = ("engine", "ears")
"""Their memory is the models'; the rest is the gateway's."""


def measured(folder: Path, checkout: Path, settle_s: float) -> dict[str, float]:
    """MB of each process of a house of the code in `checkout`, with `settle_s` seconds after its start."""
    house = House(folder)
    kept = {k: v for k, v in house.environ.items() if not k.startswith("VOICEGATE_") or k in NEEDED}
    house.environ = kept | {"PYTHONPATH": str(checkout), "PYTHONSAFEPATH": "1"}  # not this folder's code
    house.start()
    try:
        assert house.process is not None
        time.sleep(settle_s)
        return {name: pss_mb(pid) for name, pid in ({"supervisor": house.process.pid} | house.pids()).items()}
    finally:
        house.stop()


def sums(house: dict[str, float]) -> dict[str, float]:
    """The sums below the table."""
    gateway = sum(mb for name, mb in house.items() if name not in OWN)
    return {
        "gateway": gateway,
        "gateway and ears": gateway + house.get("ears", 0.0),
        "all": sum(house.values()),
    }


@click.command()
@click.option("--beside", multiple=True, type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--turns", default=1, show_default=True, type=click.IntRange(1, 10))
@click.option("--settle", "settle_s", default=5.0, show_default=True, type=click.FloatRange(0, 60))
def main(beside: tuple[Path, ...], turns: int, settle_s: float) -> None:
    """Prints MB of each process, the median of all turns."""
    checkouts = [*(path.resolve() for path in beside), Path(__file__).resolve().parents[1]]
    runs: dict[Path, list[dict[str, float]]] = {checkout: [] for checkout in checkouts}
    for _ in range(turns):
        for checkout in checkouts:
            with tempfile.TemporaryDirectory(prefix="vg-memory-") as folder:
                house = measured(Path(folder), checkout, settle_s)
            runs[checkout].append(house | sums(house))
    names = list(dict.fromkeys(name for houses in runs.values() for house in houses for name in house))
    names.sort(key=lambda name: name in sums({}))
    for name in names:
        told = (median(house.get(name, 0.0) for house in runs[checkout]) for checkout in checkouts)
        print(f"{name:16}", *(f"{mb:8.1f}" for mb in told))


if __name__ == "__main__":
    main()
