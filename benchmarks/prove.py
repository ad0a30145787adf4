"""Long proofs, each a command of its own: `make prove-null`, `python -m benchmarks.prove null`, and so on for
the names in `proofs.PROOFS`. Without a name: what was proved here, as the table of docs/figures.md.

A proof is made of steps. What each step found is kept in benchmarks/out/prove/NAME-COMMIT.json, so that a run
which was killed goes on where it was, and a finished one is not done again. A checkout with changes is no
commit's: its proof begins anew each time, and counts for nothing.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Final

import click

from benchmarks.proofs import PROOFS, LongProof

ROOT: Final = Path(__file__).resolve().parents[1]
KEPT: Final = Path(__file__).parent / "out" / "prove"
CHANGED: Final = "+changes"


class KeptSteps:
    """What a proof's steps found at one commit, on disk after each of them."""

    def __init__(self, name: str, commit: str) -> None:
        self.path = KEPT / f"{name}-{commit}.json"
        self.found: dict[str, Any] = {}
        self.seconds = 0.0
        if self.path.exists() and not commit.endswith(CHANGED):
            kept = json.loads(self.path.read_text())
            self.found, self.seconds = kept["found"], kept["seconds"]

    def keep(self, step: str, found: Any, seconds: float) -> None:
        self.found[step] = found
        self.seconds += seconds
        KEPT.mkdir(parents=True, exist_ok=True)
        new = self.path.with_suffix(".new")
        new.write_text(json.dumps({"found": self.found, "seconds": round(self.seconds, 1)}, indent=1))
        new.replace(self.path)


def git(*words: str) -> str:
    return subprocess.run(
        ["git", *words], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.strip()


def commit() -> str:
    """The checkout's commit, marked when files that it knows were changed."""
    changed = git("status", "--porcelain", "--untracked-files=no")
    return git("rev-parse", "--short", "HEAD") + (CHANGED if changed else "")


def run(name: str, proof: LongProof, steps: int | None) -> bool:
    """Does the steps that are left, at most so many; whether all are done and hold."""
    at = commit()
    kept = KeptSteps(name, at)
    left = [step for step in proof.steps() if step not in kept.found]
    total = len(left) + len(kept.found)
    click.echo(f"{name} at {at}: {len(kept.found)} of {total} steps are done", err=True)
    with proof:
        for step in left[:steps]:
            began = time.monotonic()
            found = proof.prove(step)
            if commit() != at:
                raise click.ClickException(f"the checkout is no longer {at}: the proof began with it")
            kept.keep(step, found, time.monotonic() - began)
            click.echo(f"{len(kept.found)} of {total}  {step}: {found}", err=True)
    done = len(kept.found) == total
    holds, result = proof.result(kept.found)
    state = "" if done else f"so far ({len(kept.found)} of {total} steps): "
    click.echo(f"{'holds' if holds else 'FAILS'} at {at}: {state}{result}; {kept.seconds:.0f} s")
    return done and holds


def table() -> None:
    click.echo("| proof | command | commit | result |\n| --- | --- | --- | --- |")
    for name, proof in PROOFS.items():
        for path in sorted(KEPT.glob(f"{name}-*.json"), key=lambda one: one.stat().st_mtime):
            at = path.stem.removeprefix(f"{name}-")
            found = json.loads(path.read_text())["found"]
            if at.endswith(CHANGED) or not found:
                continue
            steps = proof.steps()
            left = len(set(steps) - set(found))
            holds, result = proof.result(found)
            said = (
                ("" if holds else "**fails** ")
                + (f"{left} of {len(steps)} steps are left; " if left else "")
                + result
            )
            cells = (proof.what, f"`make prove-{name}`", f"`{at}`", said)
            click.echo(f"| {' | '.join(cells)} |")


@click.command()
@click.argument("name", type=click.Choice(list(PROOFS)), required=False)
@click.option("--steps", type=click.IntRange(1), help="do so many steps and stop")
def main(name: str | None, steps: int | None) -> None:
    """Prove NAME, from where it was left; or print what was proved."""
    if name is None:
        table()
    elif not run(name, PROOFS[name], steps):
        sys.exit(1)


if __name__ == "__main__":
    main()
