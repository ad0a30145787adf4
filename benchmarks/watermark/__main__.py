"""The telephone-codec benchmark for speech marks: `python -m benchmarks.watermark`.

Each row is tried with each mark on the same excerpts, turn about. What was heard is kept by the state of
`watermark/`, under benchmarks/out/watermark: a run that was killed goes on, and the table is printed from
what is there.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import click
import numpy as np
import soxr

from benchmarks.watermark import codec_table, hosts
from benchmarks.watermark.adapters import SpeechMark, marks
from benchmarks.watermark.host_speech import RATE_HZ, VOICES
from benchmarks.watermark.hosts import CLIPS, HostSpeech
from benchmarks.watermark.looks_kept import Asked, KeptLooks, state_of_watermark
from benchmarks.watermark.telephone_rows import TelephoneRow, rows

OUT = Path(__file__).parents[1] / "out" / "watermark"


def used_s() -> float:
    """CPU-seconds of this process and of the encoders that it ran."""
    spent = os.times()
    return spent.user + spent.system + spent.children_user + spent.children_system


class OutOfTime(Exception):
    """The CPU-seconds are used up; what was heard is kept."""


class Run:
    """One run of the command; `seconds_of_cpu`: it stops after so many."""

    def __init__(self, kept: KeptLooks, seconds_of_cpu: float, lengths_s: Sequence[int] = ()) -> None:
        self.kept, self.until_s = kept, used_s() + seconds_of_cpu
        self.lengths_s = set(lengths_s)
        self._marked: dict[tuple[str, str], np.ndarray] = {}

    def marked(self, mark: SpeechMark, host: HostSpeech) -> np.ndarray:
        if (mark.name, host.name) not in self._marked:
            self._marked[mark.name, host.name] = mark.marked(host)
        return self._marked[mark.name, host.name]

    def lengths(self, mark: SpeechMark) -> list[int]:
        return [each for each in mark.lengths_s if not self.lengths_s or each in self.lengths_s]

    def hears(self, row: TelephoneRow, mark: SpeechMark, host: HostSpeech) -> int:
        """Asks the mark's detector about each length that is not known yet; how many those were."""
        wanted = [
            (seconds, asked)
            for seconds in self.lengths(mark)
            if not self.kept.knows(asked := Asked(row.name, mark.name, host.voice, host.number, seconds))
        ]
        if not wanted:
            return 0
        if used_s() > self.until_s:
            raise OutOfTime
        longest = max(seconds for seconds, _ in wanted)
        speech = self.marked(mark, host)[: longest * RATE_HZ]
        if (heard := row.through(host, speech, RATE_HZ)) is None:
            return 0
        samples, rate_hz = heard
        for seconds, asked in wanted:
            self.kept.add(asked, list(mark.looks(host, samples[: seconds * rate_hz], rate_hz, row.among)))
        return len(wanted)

    def compares(self, mark: SpeechMark, host: HostSpeech) -> None:
        """How near the mark leaves the host, unless that is known."""
        from pesq import pesq
        from pystoi import stoi

        seconds = codec_table.QUALITY_S
        asked = Asked(codec_table.QUALITY, mark.name, host.voice, host.number, seconds)
        if self.kept.knows(asked):
            return
        if used_s() > self.until_s:
            raise OutOfTime
        both = [each[: seconds * RATE_HZ] for each in (host.speech, self.marked(mark, host))]
        low = [soxr.resample(each, RATE_HZ, 16_000) for each in both]
        self.kept.add_quality(asked, float(pesq(16_000, *low, "wb")), float(stoi(*both, RATE_HZ)))

    def round(
        self,
        some: list[HostSpeech],
        tried: Sequence[TelephoneRow],
        compared: Sequence[SpeechMark],
        quality: bool,
    ) -> None:
        """All rows of these hosts; which mark begins changes from host to host."""
        self._marked.clear()
        for row in tried:
            heard = 0
            for at, host in enumerate(some):
                turn = at % len(compared)
                for mark in (*compared[turn:], *compared[:turn]):
                    heard += self.hears(row, mark, host)
            if heard:
                click.echo(f"{row.name}: {heard} recordings more, {used_s():.0f} CPU-s", err=True)
        for host in some if quality else ():
            for mark in compared:
                self.compares(mark, host)


@click.command()
@click.option(
    "--clips", type=click.IntRange(1, CLIPS), default=CLIPS, show_default=True, help="Excerpts of each voice."
)
@click.option(
    "--only", multiple=True, metavar="ROW", help="Rows that begin so, or `quality`; all without it."
)
@click.option("--mark", "chosen", multiple=True, metavar="MARK", help="Marks that begin so; all without it.")
@click.option(
    "--length", "lengths_s", multiple=True, type=int, metavar="S", help="Lengths in s; all without it."
)
@click.option("--voice", "voices", multiple=True, type=click.Choice(VOICES), help="All without it.")
@click.option(
    "--seconds-of-cpu", type=float, default=float("inf"), help="Stop after so many; 0 prints what is there."
)
@click.option("--out", type=click.Path(path_type=Path), default=OUT, show_default=True)
def main(
    clips: int, only: tuple[str, ...], chosen: tuple[str, ...], lengths_s: tuple[int, ...],
    voices: tuple[str, ...], seconds_of_cpu: float, out: Path,
) -> None:  # fmt: skip
    """Tries the rows that are not known yet, and prints the table."""
    state = state_of_watermark()
    kept = KeptLooks(out / f"{state}.jsonl")
    everything = rows(out / "speech")
    wanted = [row for row in everything if not only or row.name.startswith(only)]
    compared = [mark for mark in marks() if not chosen or mark.name.startswith(chosen)]
    quality = not only or codec_table.QUALITY in only
    if not (wanted or quality) or not compared:
        names = ", ".join(f"'{each.name}'" for each in (everything if compared else marks()))
        raise click.UsageError(f"nothing begins so; there are {names}")
    run = Run(kept, seconds_of_cpu, lengths_s)
    here = (
        [row for row in wanted if row.missing is None],
        [mark for mark in compared if mark.missing() is None],
    )
    try:
        if seconds_of_cpu <= 0:
            raise OutOfTime  # before anybody speaks
        for some in hosts.rounds(clips, out / "speech", voices or VOICES):
            run.round(some, *here, quality)
    except OutOfTime:
        click.echo("the CPU-seconds are used up; the same command goes on from here", err=True)
    click.echo(f"`git rev-parse HEAD:watermark`: {state}; {len(kept.records)} recordings in {kept.path}\n")
    click.echo("\n".join(codec_table.table(kept, wanted, compared)))
    if quality:
        click.echo("\n" + "\n".join(codec_table.quality(kept, compared)))


if __name__ == "__main__":
    main()
