"""How often the envelope layer takes for ours what is not: counted, in a file that a later run goes on with.

    python -m benchmarks.envelope_null FOLDER --places 3000000 --searches 6000 --minutes 30

Sound is 10 s of a voice that the network did not learn from, unmarked or marked with another key, through
the channels of `benchmarks/envelope_table.py` in turn; the keys are other ones for each. A trial of a
**place** is z at one place of the line with one tempo; places are a cell and more apart, and no chip is in
the same trial twice in the same place. A trial of a **call** is z of one call's own half at a place. A trial
of a **search** is a whole blind search, of which the bound
on p is kept. The file is named by the weights and by the searching code: what was counted with others is
not counted.
"""

from __future__ import annotations

import hashlib
import json
import time
from pathlib import Path
from typing import Final

import click
import numpy as np
import scipy.fft

from benchmarks import envelope_table
from benchmarks.envelope_lessons import narrow
from benchmarks.watermark.codec_libraries import MISSING
from watermark.envelope import chip_network, loudness
from watermark.envelope import search as searching
from watermark.envelope.cells import CELL_HOPS, LINE_BANDS, LINE_CELLS, Cells
from watermark.keys import BOTH_LAYERS, MarkKey
from watermark.mark import MarkerBank

OUT: Final = Path(__file__).with_name("out")
SEARCHED_S: Final = 10
EDGES: Final = np.linspace(-8, 8, 321)
CALLS: Final = LINE_CELLS
KEYS: Final = 8
"""With which each sound is searched."""
SURE: Final = -13.8
SPARE_CHANNELS: Final = ("speaker, room, babble 15 dB", "stretch +-3 % each second")
"""Those that cost most and are left out."""


def state_path() -> Path:
    """Where what was counted with these weights and this search is kept."""
    named = hashlib.sha256()
    for path in (chip_network.PATH, Path(searching.__file__), Path(loudness.__file__)):
        named.update(path.read_bytes())
    return OUT / f"envelope-null-{named.hexdigest()[:12]}.json"


def heard(folder: Path, number: int) -> np.ndarray:
    """What the network says of the `number`-th sound, half of them marked by a key that is not searched
    for."""
    channels = [
        channel
        for name, channel in envelope_table.channels(folder).items()
        if name not in SPARE_CHANNELS and not any(codec in name for codec in MISSING)
    ]
    material = envelope_table.excerpts(folder, 64)
    _, speech = material[number % len(material)]
    part = speech[(number // len(material) % 2) * SEARCHED_S * envelope_table.RATE_HZ :]
    part = np.ascontiguousarray(part[: SEARCHED_S * envelope_table.RATE_HZ])
    if number % 2:
        bank = MarkerBank(MarkKey("other", 9, b"other" + number.to_bytes(32), BOTH_LAYERS, 2.0))
        marked = np.empty((1, len(part)), np.float32)
        bank.mark_whole(np.array([bank.open(number)], np.intp), part[None], marked)
        part = marked[0]
    channel = channels[number * 7 % len(channels)]
    return chip_network.soft(narrow(*channel(part, envelope_table.RATE_HZ)))


def place_scores(soft: np.ndarray, cells: Cells) -> np.ndarray:
    """z of the recording where it begins with each cell of the line, `(LINE_CELLS,)`."""
    many = soft.shape[1] // CELL_HOPS + 1
    theirs = searching.heard_cells(soft, np.arange(many) * float(CELL_HOPS), 0.0)[LINE_BANDS]
    spectrum = np.conj(scipy.fft.rfft(theirs, LINE_CELLS, axis=1))
    spectrum *= scipy.fft.rfft(np.asarray(cells.line.T, np.float32), axis=1)
    alike = scipy.fft.irfft(spectrum.sum(axis=0), LINE_CELLS)
    return np.asarray(alike / np.sqrt(np.square(theirs).sum()))


def calls_scores(soft: np.ndarray, cells: Cells, number: int) -> np.ndarray:
    """z of `CALLS` calls' own half at one place of the line."""
    rng = np.random.default_rng(number)
    calls = rng.integers(0, 1 << 64, CALLS, dtype=np.uint64)
    place = searching.LinePlace(int(rng.integers(searching.LINE_HOPS)), 0.0, 0, 0.0, 0.0)
    return searching.call_scores(soft, cells, calls, place)


def counted(what: str, counts: np.ndarray, squares: float, largest: float) -> str:
    centres = (EDGES[1:] + EDGES[:-1]) / 2
    trials = int(counts.sum())
    std = float(np.sqrt(squares / max(trials, 1)))
    kurtosis = float((counts * centres**4).sum() / max(trials, 1)) / max(std, 1e-9) ** 4
    return f"{what}: {trials} trials, std {std:.4f}, kurtosis {kurtosis:.3f}, largest {largest:.2f}"


def told(state: dict[str, list[float]]) -> str:
    bounds = np.array(state["ln_p"] or [0.0])
    trials = [
        counted(
            what,
            np.array(state[f"{what} histogram"]),
            state[f"{what} squares"][0],
            state[f"{what} largest"][0],
        )
        for what in ("places", "calls")
    ]
    return (
        f"{'; '.join(trials)}; "
        f"searches: {len(bounds)}, {int((bounds < SURE).sum())} below {SURE} (p = 1e-6), least ln p "
        f"{bounds.min():.1f}, {int((bounds < -3).sum())} below -3 (at most {len(bounds) / 20:.0f} are due)"
    )


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--places", default=3_000_000, show_default=True, help="Trials of places wanted, all runs together."
)
@click.option("--searches", default=100, show_default=True, help="Blind searches wanted.")
@click.option("--minutes", default=60.0, show_default=True, help="Of the processor, this run.")
def main(folder: Path, places: int, searches: int, minutes: float) -> None:
    """Counts until there are as many, and says what it counted."""
    path = state_path()
    OUT.mkdir(exist_ok=True)
    state = {
        **{f"{what} histogram": [0.0] * (len(EDGES) - 1) for what in ("places", "calls")},
        **{f"{what} {count}": [0.0] for what in ("places", "calls") for count in ("squares", "largest")},
        "ln_p": [],
        "next": [0.0],
    }
    if path.exists():
        state = json.loads(path.read_text())
    began = time.process_time()
    while time.process_time() - began < 60 * minutes:
        missing = places - sum(state["places histogram"]), searches - len(state["ln_p"])
        if max(missing) <= 0:
            break
        number = int(state["next"][0])
        soft = heard(folder, number)
        cells = Cells(b"null" + number.to_bytes(32))
        if missing[0] > 0:
            for what, z in (
                ("places", place_scores(soft, cells)),
                ("calls", calls_scores(soft, cells, number)),
            ):
                state[f"{what} histogram"] = (
                    np.array(state[f"{what} histogram"]) + np.histogram(z, EDGES)[0]
                ).tolist()
                state[f"{what} squares"][0] += float(np.square(z).sum())
                state[f"{what} largest"][0] = max(state[f"{what} largest"][0], float(z.max()))
        for other in range(min(KEYS, missing[1])):
            searched = Cells(b"null" + number.to_bytes(32) + bytes([other] if other else []))
            found = searching.search(soft, searched, count=1)
            state["ln_p"].append(found[0].ln_p if found else 0.0)
        state["next"][0] += 1
        if number % 20 == 19:
            path.write_text(json.dumps(state))
            click.echo(told(state))
    path.write_text(json.dumps(state))
    click.echo(f"{path.name}: {told(state)}")


if __name__ == "__main__":
    main()
