"""What each stage of the hall's turn costs alone: `python -m benchmarks.stages [--calls 1,4,20,40,64]`.

On the hall's own batches: all calls at once, 20 ms a turn, one thread, as the supervisor starts it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click
import numpy as np

from gateway.hall.media.audio import FRAME_S, HOUSE_HZ, VAD_HZ, VoiceActivity
from gateway.hall.media.key_tones import KeyTones
from gateway.rtp.media.rate_changer import RateChanger
from watermark.keys import KeyRing
from watermark.mark import MarkerBank

TURNS = 500


def costs(calls: int) -> dict[str, float]:
    """% of a core per call: marking, resampling (8 kHz, both ways), VAD, keys as sound (of calls with no
    telephone-event only)."""
    rng = np.random.default_rng(1)
    rows = np.arange(calls)
    narrow = (0.1 * rng.standard_normal((calls, round(VAD_HZ * FRAME_S)))).astype(np.float32)
    house = (0.1 * rng.standard_normal((calls, round(HOUSE_HZ * FRAME_S)))).astype(np.float32)
    up, down = RateChanger(VAD_HZ, HOUSE_HZ, calls), RateChanger(HOUSE_HZ, VAD_HZ, calls)
    vad, keys = VoiceActivity(calls), KeyTones(calls)
    with tempfile.TemporaryDirectory() as folder:
        bank = MarkerBank(KeyRing.create(Path(folder, "keys")).current)
    slots = np.array([bank.open(number) for number in range(calls)])
    stages = {
        "watermark": lambda: bank.mark(slots, house),
        "resampling": lambda: (up.change(rows, narrow), down.change(rows, house)),
        "vad": lambda: vad.judge(rows, narrow),
        "keys": lambda: keys.hear(rows, narrow),
    }
    spent = {}
    for name, stage in stages.items():
        stage()
        began = time.process_time()
        for _ in range(TURNS):
            stage()
        spent[name] = round(100 * (time.process_time() - began) / (TURNS * FRAME_S) / calls, 3)
    return spent


def apart(calls: int) -> dict[str, float]:
    """`costs` in a process of its own, with one thread: a BLAS that was loaded already keeps its threads."""
    one = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "benchmarks.stages", "--calls", str(calls), "--json"]
    said = subprocess.run(command, env=os.environ | one, capture_output=True, check=True, text=True)
    return dict(json.loads(said.stdout))


@click.command()
@click.option("--calls", default="1,4,20,40,64", show_default=True)
@click.option("--json", "as_json", is_flag=True, help="the figures of one number of calls, as JSON")
def main(calls: str, as_json: bool) -> None:
    """What each stage of the hall costs."""
    for count in (int(word) for word in calls.split(",")):
        if as_json:
            click.echo(json.dumps(costs(count)))
        else:
            spent = ", ".join(f"{name} {cost:.3f}" for name, cost in apart(count).items())
            click.echo(f"{count:3} calls, % of a core per call: {spent}")


if __name__ == "__main__":
    main()
