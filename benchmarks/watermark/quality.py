"""What both layers cost to the ear, over how strong each is: `python -m benchmarks.watermark.quality`.

Rows are the carrier's level (of what it is alone) by the envelope layer's depth in dB: PESQ-WB, STOI, and the
distance by Zimtohrli, which is made for just noticeable differences, where `VOICEGATE_ZIMTOHRLI_PYTHON`
names a Python that has it. What was measured is kept in benchmarks/out/watermark-curve.json by clip and row,
and not measured again; delete it after a change of the marker. Some 5 s of a core for a clip and all rows.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import click
import numpy as np
import soxr

from benchmarks.watermark.host_speech import ESPEAK, PROMPTS, RATE_HZ, VOICES, speech
from watermark import code
from watermark.envelope.marker import EnvelopeBank
from watermark.keys import BOTH_LAYERS, MarkKey
from watermark.mark import AHEAD, BESIDE, HOP, Marker
from watermark.selfcheck import Window

OUT: Final = Path(__file__).parents[1] / "out"
CLIP_S: Final = 8
SECRET: Final = bytes(range(32))
PAYLOAD: Final = 0xBE9C_0000_1234_5678
CARRIER: Final = (1.0, 0.8, 0.65)
DEPTHS_DB: Final = (0.0, 1.0, 1.5, 2.0)
ROWS: Final = (*((share, depth) for share in CARRIER for depth in DEPTHS_DB), (0.0, 1.5), (0.0, 2.0))
TODAY: Final = (1.0, 0.0)
CHOSEN: Final = (0.8, 1.5)
HEAD: Final = (
    "| carrier, envelope | PESQ-WB mean | 5 % | mean without espeak | 5 % | STOI mean, least "
    "| Zimtohrli, of today's | carrier's score, least | envelope's |\n" + "| --- " * 9 + "|"
)

Row = tuple[float, float]
Kept = dict[str, dict[str, float]]
"""By clip and row: pesq, stoi, zimtohrli, carrier, envelope."""


def marked(plain: np.ndarray, row: Row) -> np.ndarray:
    """`plain` float32 24 kHz in whole hops, with a row's layers."""
    share, depth_db = row
    swelled = plain if not depth_db else layered(plain, depth_db)
    if not share:
        return swelled
    if not depth_db:
        return plain + np.float32(share) * (_by_marker(plain, MarkKey("wm-be9c", 0xBE9C, SECRET)) - plain)
    key = MarkKey("wm-be9c", 0xBE9C, SECRET, BOTH_LAYERS, depth_db)
    return swelled + np.float32(share / BESIDE) * (_by_marker(plain, key) - swelled)


def layered(plain: np.ndarray, depth_db: float) -> np.ndarray:
    """The envelope layer alone."""
    key = MarkKey("wm-be9c", 0xBE9C, SECRET, BOTH_LAYERS, depth_db)
    bank = EnvelopeBank(key, RATE_HZ, HOP, 1, AHEAD)
    out = []
    for at in range(0, len(plain) // HOP, AHEAD):
        bank.draw(0, PAYLOAD, at)
        block = plain[None, at * HOP : (at + AHEAD) * HOP]
        count = block.shape[1] // HOP
        out.append(bank.mark(slice(0, 1), (slice(0, 1), slice(0, count)), block)[0])
    return np.concatenate(out)


def _by_marker(plain: np.ndarray, key: MarkKey) -> np.ndarray:
    marker = Marker(key, PAYLOAD)
    return np.concatenate((marker.mark(plain).samples, marker.flush().samples))[marker.delay_samples :]


def measured(plain: np.ndarray, changed: np.ndarray) -> dict[str, float]:
    from pesq import pesq
    from pystoi import stoi

    low = [soxr.resample(each, RATE_HZ, 16_000) for each in (plain, changed)]
    return {"pesq": float(pesq(16_000, *low, "wb")), "stoi": float(stoi(plain, changed, RATE_HZ))}


def scores(changed: np.ndarray) -> dict[str, float]:
    """Scores of both layers, at their places."""
    key = MarkKey("wm-be9c", 0xBE9C, SECRET, BOTH_LAYERS)
    carried, swung = Window(key, PAYLOAD, code.encode(PAYLOAD), [0], [changed]).scores()
    return {"carrier": carried, "envelope": swung}


def distances(python: str, plain: list[np.ndarray], changed: list[np.ndarray]) -> list[float]:
    with TemporaryDirectory() as folder:
        given, told = Path(folder) / "in.npz", Path(folder) / "out.json"
        np.savez(given, plain=np.stack(plain), marked=np.stack(changed))
        script = Path(__file__).with_name("zimtohrli_distance.py")
        subprocess.run([python, str(script), str(given), str(told)], check=True)
        return [float(each) for each in json.loads(told.read_text())]


def measure(clips: dict[str, np.ndarray], kept: Kept, path: Path) -> None:
    """Fills what `kept` lacks, and saves it after each row."""
    python = os.environ.get("VOICEGATE_ZIMTOHRLI_PYTHON")
    for row in ROWS:
        of_row = {name: kept.setdefault(f"{name} {row[0]:g} {row[1]:g}", {}) for name in clips}
        wanted = {"pesq", "stoi", "carrier", "envelope"} | ({"zimtohrli"} if python else set())
        missing = [name for name, figures in of_row.items() if not wanted <= figures.keys()]
        changed = {name: marked(clips[name], row) for name in missing}
        for name in missing:
            if "pesq" not in of_row[name]:
                of_row[name].update(measured(clips[name], changed[name]))
            of_row[name].update(scores(changed[name]))
        far = [name for name in missing if python and "zimtohrli" not in of_row[name]]
        if python and far:
            found = distances(python, [clips[name] for name in far], [changed[name] for name in far])
            for name, distance in zip(far, found, strict=True):
                of_row[name]["zimtohrli"] = distance
        path.write_text(json.dumps(kept, indent=1))
        click.echo(said(row, kept, list(clips)), nl=True)


def said(row: Row, kept: Kept, names: list[str]) -> str:
    """A row of the table of the docs."""

    def figures(what: str, of: list[str], at: Row = row) -> np.ndarray:
        found = [kept.get(f"{name} {at[0]:g} {at[1]:g}", {}).get(what, np.nan) for name in of]
        return np.array(found)

    others = [name for name in names if name.split("/")[0] not in ESPEAK]
    pesq, apart, stoi = figures("pesq", names), figures("pesq", others), figures("stoi", names)
    carried, swung = figures("carrier", names), figures("envelope", names)
    ratio = figures("zimtohrli", names).mean() / figures("zimtohrli", names, TODAY).mean()
    far = "-" if np.isnan(ratio) else f"{figures('zimtohrli', names).mean():.5f}, {ratio:.2f}"
    shown = f"{row[0]:g}, {row[1]:g} dB"
    return (
        f"| {f'**{shown}**' if row == CHOSEN else shown} "
        f"| {pesq.mean():.3f} | {np.quantile(pesq, 0.05):.3f} "
        f"| {apart.mean():.3f} | {np.quantile(apart, 0.05):.3f} "
        f"| {stoi.mean():.4f}, {stoi.min():.4f} | {far} "
        f"| {carried.mean():.1f}, {carried.min():.1f} | {swung.mean():.1f}, {swung.min():.1f} |"
    )


@click.command()
@click.option("--clips", "count", default=5, show_default=True, help="Clips of 8 s of each voice.")
@click.option("--prompts", type=click.Path(path_type=Path), default=PROMPTS, show_default=True)
def main(count: int, prompts: Path) -> None:
    """Prints one row for each pair of levels."""
    OUT.mkdir(exist_ok=True)
    path = OUT / "watermark-curve.json"
    kept: Kept = json.loads(path.read_text()) if path.exists() else {}
    length = CLIP_S * RATE_HZ
    clips: dict[str, np.ndarray] = {}
    for voice in VOICES:
        plain = speech(voice, count * CLIP_S + 1.0, prompts)
        if plain is None:
            click.echo(f"voice {voice}: not installed, left out")
            continue
        for at in range(min(count, len(plain) // length)):
            clips[f"{voice}/{at}"] = plain[at * length : (at + 1) * length]
    click.echo(f"{len(clips)} clips\n{HEAD}")
    measure(clips, kept, path)


if __name__ == "__main__":
    main()
