"""How much surer a call is found among a registry's than named by its recording alone:
`python -m benchmarks.watermark.among_calls`.

The same excerpts as `python -m benchmarks.watermark.figures`'s, through the codecs that are hard for blind
detection, sought among 100,000 calls as `voicegate trace` does; and what unmarked speech says among as many.
Prints the docs' table.
"""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path

import click
import numpy as np

from benchmarks.watermark.channels import Attack, attacks
from benchmarks.watermark.figures import KEY, MarkedSpeech, excerpts, interval, sources
from benchmarks.watermark.host_speech import ESPEAK, PROMPTS, RATE_HZ
from watermark.detect import detect

HARD = ("GSM-FR", "AMR 12.2", "mu-AMR 12.2-mu", "AMR 7.4", "mu-GSM-mu, noise, 50 ppm", "AMR 4.75")
CALLS = 100_000


def named(samples: np.ndarray, rate_hz: int, payloads: list[int]) -> int | None:
    found = detect(samples, rate_hz, [KEY], payloads=payloads)
    return found.payload if found.detected else None


def sought(
    voices: list[MarkedSpeech], attack: Attack, seconds: int, clips: int, others: list[int]
) -> Counter[str]:
    """Of how many excerpts the call is named `alone`, `among` the others, and another one (`wrong`)."""
    tally: Counter[str] = Counter()
    for source in voices:
        for samples, rate_hz, _ in excerpts(source, attack, seconds, clips):
            kind = "espeak" if source.voice in ESPEAK else "human"
            began = time.process_time()
            call = named(samples, rate_hz, [*others, source.payload])
            tally["cpu_ms"] += round(1000 * (time.process_time() - began))
            tally["of"] += 1
            tally[f"{kind}, of"] += 1
            tally["alone"] += named(samples, rate_hz, []) == source.payload
            tally["among"] += call == source.payload
            tally[f"{kind}, among"] += call == source.payload
            tally["wrong"] += call not in (None, source.payload)
    return tally


@click.command()
@click.option("--prompts", type=click.Path(path_type=Path), default=PROMPTS, show_default=True)
@click.option("--clips", type=int, default=7, show_default=True, help="Per voice, attack and length.")
def main(prompts: Path, clips: int) -> None:
    voices = sources(prompts, 120.0)
    payloads = np.random.default_rng(21).integers(1 << 48, size=CALLS - 1).tolist()
    others = [KEY.gateway << 48 | payload for payload in payloads]
    click.echo("| attack | s | named alone | among the calls | human, espeak | wrong | CPU-s |")
    click.echo("| --- " * 7 + "|")
    for attack in [each for each in attacks() if each.name in HARD]:
        for seconds in attack.seconds:
            tally = sought(voices, attack, seconds, clips, others)
            of = tally["of"]
            alone, among = (interval(tally[what], of).split(" % of")[0] for what in ("alone", "among"))
            kinds = ", ".join(
                f"{tally[f'{kind}, among']}/{tally[f'{kind}, of']}" for kind in ("human", "espeak")
            )
            click.echo(
                f"| {attack.name} | {seconds} | {alone} | {among} | {kinds} | {tally['wrong']} | "
                f"{tally['cpu_ms'] / of / 1000:.1f} |"
            )
    plain = [
        source.plain[at : at + 10 * RATE_HZ]
        for source in voices
        for at in np.linspace(0, len(source.plain) - 10 * RATE_HZ, clips).astype(int).tolist()
    ]
    wrong = sum(named(samples, RATE_HZ, others) is not None for samples in plain)
    click.echo(f"unmarked, 10 s: {wrong} of {len(plain)} were taken for one of the calls")


if __name__ == "__main__":
    main()
