"""What it costs to write a call's words down: `python -m benchmarks.transcripts CHECKPOINT`.

A whole gateway with Chroma, which writes nothing down itself, on the CPU (CHECKPOINT: a golden, whose speed
says nothing), on 127.0.0.1. The same call is held turn about on a route that keeps transcripts and on one
that does not; CPU-seconds are those of all processes but the engine and the telephone, until the last words
are written.
"""

from __future__ import annotations

import tempfile
import time
from collections import defaultdict
from pathlib import Path

import click
import numpy as np

from benchmarks.house_meter import Meter
from gateway.cli.caller.testphone import place_call
from tests.e2e.gateway_process import House
from tests.needs import HANGS_S, need_sounds

ROUTE = """
[[route]]
name = "{name}"
called = ["{name}"]
keep = {{ transcript = {keeps} }}
do = [
  {{ verb = "answer" }},
  {{ verb = "disclose", principal = "Acme", language = "en", text = "What you say is written down." }},
  {{ verb = "converse", instructions = "x", greeting = "Hello.", silence_s = 20.0 }},
]
"""
PLAN = ROUTE.format(name="kept", keeps="true") + ROUTE.format(name="unkept", keeps="false")
SAID = ("vm-opts", "agent-newlocation", "conf-adminmenu")
LAST_WORDS_S = 3.0
"""After the call: its last words are written, and the house is quiet again."""


def held(house: House, name: str) -> tuple[dict[str, float], float]:
    """CPU-seconds of each part for one call of that route, and the seconds that its caller spoke."""
    script = [need_sounds() / f"{prompt}.wav" for prompt in SAID]
    before, ended = Meter(house).cpu(), len(house.events("call.ended"))
    report = place_call(house.uri.replace("demo", name), script=script)
    if not report.answered:
        raise click.ClickException(f"the call was not answered: {report.ended}")
    house.wait_for("its end", lambda: len(house.events("call.ended")) > ended, HANGS_S)
    time.sleep(LAST_WORDS_S)
    after = Meter(house).cpu()
    call = max(house.calls(), key=lambda one: float(one["started_at"]))
    events = house.get(f"/api/calls/{call['call_id']}")["events"]
    turns = [event["data"] for event in events if event["kind"] == "turn"]
    spoken_s = sum(turn["duration_s"] for turn in turns if turn["who"] == "caller")
    return {part: after[part] - before[part] for part in after}, spoken_s


@click.command()
@click.argument("checkpoint", type=click.Path(path_type=Path, exists=True))
@click.option("--pairs", default=5, show_default=True, help="calls of each kind")
def main(checkpoint: Path, pairs: int) -> None:
    """Prints the middle of the calls of each kind, and of what a pair differs by."""
    spent: dict[str, list[float]] = defaultdict(list)
    spoken: dict[str, list[float]] = defaultdict(list)
    ears: dict[str, list[float]] = defaultdict(list)
    with tempfile.TemporaryDirectory(prefix="vg-transcripts-") as name:
        folder = Path(name)
        (folder / "plans").mkdir()
        (folder / "plans" / "plan.toml").write_text(PLAN)
        house = House(
            folder, dialplans=folder / "plans", engine="chroma", chroma=checkpoint, chroma_reply_s=1.2,
            wide_calls=0, web_lines=0,
        )  # fmt: skip
        house.start()
        try:
            held(house, "kept")  # what is loaded when it is first used
            for pair in range(pairs):
                for route in ("kept", "unkept") if pair % 2 else ("unkept", "kept"):
                    parts, spoken_s = held(house, route)
                    spent[route].append(parts["gateway"])
                    ears[route].append(parts["ears"])
                    spoken[route].append(spoken_s)
        finally:
            house.stop()
    for route in ("kept", "unkept"):
        click.echo(
            f"{route:7} {np.median(spent[route]):.2f} CPU-s a call ({min(spent[route]):.2f} to "
            f"{max(spent[route]):.2f}), {np.median(ears[route]):.2f} of them the ears'; "
            f"{np.median(spoken[route]):.1f} s of speech"
        )
    more = np.median(np.subtract(spent["kept"], spent["unkept"]))
    click.echo(
        f"a transcript costs {more:.2f} CPU-s a call, {more / np.mean(spoken['kept']):.3f} for each second"
    )


if __name__ == "__main__":
    main()
