"""A thief who has no key, but this code: what erases a mark, and what that costs the ear.

    python -m benchmarks.watermark.thief --excerpts 8                   # some ten minutes of a core
    python -m benchmarks.watermark.thief --excerpts 2 --only filter     # ffmpeg's filters, tried on few

An excerpt is 10 s of a voice of `host_speech`, marked by both layers; the thief changes
it, and it comes to the detector through G.711. For each change are printed: PESQ-WB of what the thief has,
against the unmarked speech (mean, least), and how many excerpts are still verified, with the place known to
a quarter of a second as the registry knows it, and found blind: by the carrier alone, by the envelope
alone, and by the verdict of both. In brackets Wilson's interval of the verdict, 95 %; espeak-ng's
excerpts are told apart after a plus sign.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import click
import numpy as np
import soxr

from benchmarks.watermark.attacks import mark_calls
from benchmarks.watermark.figures import interval
from benchmarks.watermark.host_speech import ESPEAK, PROMPTS, RATE_HZ, VOICES, speech
from benchmarks.watermark.thefts import THEFTS, Theft, all_thefts
from watermark import call_guesses, detect, sound, whereabouts
from watermark.call_guesses import Heard
from watermark.envelope.cells import CELL_HOPS, Cells
from watermark.envelope.search import search
from watermark.judge import NOTHING, Detection, clearest, of_many
from watermark.keys import BOTH_LAYERS, MarkKey
from watermark.whiten import NARROW_HZ, whiten

OUT: Final = Path(__file__).parents[1] / "out"
EXCERPT_S: Final = 10
GATEWAY: Final = 0xBE9C
SECRET: Final = bytes(range(32))
KNOWN_S: Final = 0.25


@dataclass(frozen=True)
class Loot:
    """10 s of a call from `call_s` on, unmarked and marked, at 24 kHz."""

    voice: str
    plain: np.ndarray
    marked: np.ndarray
    payload: int
    call_s: float


@dataclass(frozen=True)
class Trial:
    """What a theft left of one excerpt."""

    theft: str
    excerpt: int
    voice: str
    pesq: float
    known_carrier: bool
    known_envelope: bool
    known: bool
    blind_carrier: bool
    blind_envelope: bool
    blind: bool
    named: bool
    score_carrier: float
    score_envelope: float


def loot(key: MarkKey, count: int, prompts: Path) -> Iterator[Loot]:
    """`count` excerpts, one of each voice before the second of any."""
    rng = np.random.default_rng(14)
    rounds = -(-count // len(VOICES))
    for at in range(count):
        voice = VOICES[at % len(VOICES)]
        whole = speech(voice, float(EXCERPT_S * rounds + 1), prompts)
        if whole is None:
            click.echo(f"voice {voice}: not installed, left out")
            continue
        begin = at // len(VOICES) * EXCERPT_S * RATE_HZ
        plain = whole[begin : begin + EXCERPT_S * RATE_HZ]
        payload = key.gateway << 48 | int(rng.integers(1 << 48))
        hop = int(rng.integers(90_000))
        marked = mark_calls(key, [payload], plain, hop)[0]
        yield Loot(voice, plain[: len(marked)], marked, payload, hop / 100)


def heard_quality(plain: np.ndarray, stolen: np.ndarray) -> float:
    """PESQ-WB; NaN where it cannot be told."""
    from pesq import PesqError, pesq

    wide = [np.asarray(soxr.resample(each, RATE_HZ, 16_000), np.float32) for each in (plain, stolen)]
    try:
        return float(pesq(16_000, *wide, "wb"))
    except PesqError:
        return float("nan")


def tried(name: str, theft: Theft, number: int, of: Loot, key: MarkKey) -> Trial:
    """One theft of one excerpt, and who still finds it. Who is not found where he is known to be is not
    sought blind."""
    stolen = theft(of.marked, RATE_HZ, np.random.default_rng(number))
    line = sound.through_mu_law(np.asarray(soxr.resample(stolen, RATE_HZ, NARROW_HZ), np.float32))
    heard = Heard(line, whiten(line))
    window = (of.call_s - KNOWN_S, of.call_s + KNOWN_S)
    by_carrier, by_envelope = _carrier(heard, key, of, window), _envelope(heard, key, of)
    verdict = detect.detect_narrow(line, [key], payloads=[of.payload], call_s=window)
    blind = [NOTHING] * 3
    if verdict.detected or by_envelope.detected:
        blind = _blind(heard, key)
    return Trial(
        name,
        number,
        of.voice,
        heard_quality(of.plain, stolen),
        by_carrier.detected,
        by_envelope.detected,
        verdict.detected,
        blind[0].detected,
        blind[1].detected,
        blind[2].detected,
        blind[2].detected and blind[2].payload == of.payload,
        by_carrier.score,
        by_envelope.score,
    )


def _carrier(heard: Heard, key: MarkKey, of: Loot, call_s: tuple[float, float]) -> Detection:
    """Where the registry says that it is: with a steady clock, or along its courses."""
    steady = detect.by_carrier(detect.pilot_searches(heard.white, key, (of.payload,), call_s))
    followed = whereabouts.known(heard, key, [of.payload], call_s)
    return clearest(of_many(each, 2) for each in (steady, followed))


def _envelope(heard: Heard, key: MarkKey, of: Loot) -> Detection:
    """There, at any tempo, by both halves."""
    cells, hops = Cells(key.secret), round(2 * KNOWN_S * 100)
    first = cells.entry(of.payload) * CELL_HOPS + round((of.call_s - KNOWN_S) * 100)
    places = search(heard.soft, cells, first, hops, laps=range(1), count=1)
    tried = [call_guesses.ln_tries_at(heard, place, hops, 1) for place in places]
    return call_guesses.by_cells(key, call_guesses.calls_at(heard, cells, [of.payload], places, tried))


def _blind(heard: Heard, key: MarkKey) -> list[Detection]:
    """By the carrier alone, by the envelope alone, and the verdict of all that `detect` looks at."""
    steady = detect.by_carrier(detect.pilot_searches(heard.white, key, (), None))
    if not (looks := whereabouts.anywhere(heard, key, (), None)):
        return [steady, NOTHING, of_many(steady, 2)]
    return [steady, looks[0], clearest(of_many(each, 2) for each in (steady, *looks))]


def row(trials: list[Trial]) -> str:
    """What the table says of a theft."""

    heard = [each.pesq for each in trials if each.pesq == each.pesq]
    quality = f"{np.mean(heard):.2f}, {min(heard):.2f}" if heard else "-"

    def count(what: str) -> int:
        return sum(getattr(each, what) for each in trials)

    others = sum(each.known for each in trials if each.voice not in ESPEAK)
    espeak = sum(each.known for each in trials if each.voice in ESPEAK)
    known = "/".join(str(count(what)) for what in ("known_carrier", "known_envelope", "known"))
    blind = "/".join(str(count(what)) for what in ("blind_carrier", "blind_envelope", "blind"))
    return (
        f"PESQ {quality}; verified {known} ({others}+{espeak}), "
        f"{interval(count('known'), len(trials)).strip()}; "
        f"blind {blind}, named {count('named')}; "
        f"scores {np.median([each.score_carrier for each in trials]):.1f}, "
        f"{np.median([each.score_envelope for each in trials]):.1f}"
    )


def chosen(only: Iterable[str]) -> dict[str, Theft]:
    wanted = tuple(only)
    every = all_thefts()
    if not wanted:
        return THEFTS
    return {name: theft for name, theft in every.items() if any(word in name for word in wanted)}


def kept(path: Path) -> list[Trial]:
    """What earlier runs tried."""
    if not path.exists():
        return []
    return [Trial(**json.loads(line)) for line in path.read_text().splitlines()]


@click.command()
@click.option("--excerpts", default=8, show_default=True)
@click.option("--db", default=2.0, show_default=True, help="The envelope layer's depth.")
@click.option("--only", multiple=True, help="Thefts whose name holds this; without it all but the filters.")
@click.option("--prompts", type=click.Path(path_type=Path), default=PROMPTS, show_default=True)
@click.option("--into", type=click.Path(path_type=Path), help="The file of trials that a run goes on with.")
def main(excerpts: int, db: float, only: tuple[str, ...], prompts: Path, into: Path | None) -> None:
    """Prints what each theft leaves of the mark, from what this run and those before it tried."""
    key = MarkKey("wm-be9c", GATEWAY, SECRET, BOTH_LAYERS, db)
    path = into or OUT / f"watermark-thief-{db:g}.jsonl"
    path.parent.mkdir(exist_ok=True)
    done = {(each.theft, each.excerpt) for each in kept(path)}
    thefts = chosen(only)
    for number, of in enumerate(loot(key, excerpts, prompts)):
        for name, theft in thefts.items():
            if (name, number) not in done:
                trial = tried(name, theft, number, of, key)
                with path.open("a") as file:
                    file.write(json.dumps(asdict(trial)) + "\n")
        click.echo(f"{number + 1} of {excerpts} excerpts", err=True)
    rows: dict[str, list[Trial]] = {name: [] for name in thefts}
    for each in kept(path):
        rows.setdefault(each.theft, []).append(each)
    for name, trials in rows.items():
        if trials:
            click.echo(f"{name:48s} {row(trials)}")


if __name__ == "__main__":
    main()
