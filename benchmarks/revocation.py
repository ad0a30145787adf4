"""How soon running calls fall silent when a voice is revoked: `python -m benchmarks.revocation [--calls 40]`.

A whole gateway with Chroma on a toy checkpoint and that many telephones that listen to a registered voice.
The voice is revoked as `voicegate voice revoke` does it, from another process than the gateway's; each call's
"muted" event says when its hall silenced it.
"""

from __future__ import annotations

import math
import tempfile
import threading
import time
from pathlib import Path

import click
import numpy as np

from consent.office.withdrawal import Withdrawals
from gateway.cli.testphone import CallRequest, place_calls
from model.chroma import toy
from tests.e2e.gateway_process import House
from tests.e2e.test_voices import LINES, PLANS, Office


def measure(calls: int, folder: Path) -> list[float]:
    """Seconds from the revocation's return to each call's silence."""
    plans = folder / "plans"
    plans.mkdir()
    (plans / "voices.toml").write_text(PLANS.replace("@LINES@", LINES))
    toy.write(folder / "toy")
    house = House(
        folder / "house",
        dialplans=plans,
        engine="chroma",
        chroma=folder / "toy",
        chroma_reply_s=4.0,
        engine_calls=calls + 4,
        narrow_lines=math.ceil(calls / 4),
        wide_lines=0,
        invites_per_s=1000,
    )
    (house.folder / "data").mkdir(mode=0o700, parents=True)
    office = Office(house)
    office.register_jane()
    house.start()
    try:
        uri = house.uri.replace("demo", "jane")
        requests = [CallRequest(uri, duration_s=40, after_s=4 * n / calls) for n in range(calls)]
        phones = threading.Thread(target=place_calls, args=(requests,))
        phones.start()
        house.wait_for(
            "all calls", lambda: sum(c["state"] == "confirmed" for c in house.calls()) >= calls, 40
        )
        standing = office.office.standing_of("jane")
        assert standing is not None
        withdrawals = Withdrawals(office.office.books, office.office.vault)
        act = office.act("alice", "revoke", voice_id=standing.voice_id, reason="a bench")
        began = time.time()
        withdrawals.revoke("jane", "a bench", act)
        phones.join()
        events = [house.get(f"/api/calls/{call['call_id']}")["events"] for call in house.calls()]
        return [event["at"] - began for known in events for event in known if event["kind"] == "muted"]
    finally:
        house.stop()
        office.office.close()


@click.command()
@click.option("--calls", default=40, show_default=True)
def main(calls: int) -> None:
    """How soon a revoked voice falls silent."""
    with tempfile.TemporaryDirectory(prefix="voicegate-bench-") as name:
        took = measure(calls, Path(name))
    click.echo(
        f"{len(took)} of {calls} calls muted; after the revocation was asked for: "
        f"p50 {np.median(took):.2f} s, longest {max(took):.2f} s"
    )


if __name__ == "__main__":
    main()
