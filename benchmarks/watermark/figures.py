"""The carrier's own figures: `python -m benchmarks.watermark.figures [--quick]`, `make bench-watermark`.

Sections: quality, cost, null, robustness, lengths, attacks; `--only` runs some of them. Everything is
printed, and each section written to benchmarks/out/, from where `python -m benchmarks.watermark.table` makes
the tables of the docs and `python -m benchmarks.watermark.plots` draws.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from math import exp, log, sqrt
from multiprocessing import Process
from pathlib import Path
from typing import Any

import click
import numpy as np
import soxr

from benchmarks.watermark import attacks as watermark_attacks
from benchmarks.watermark import null as watermark_null
from benchmarks.watermark.channels import Attack, attacks
from benchmarks.watermark.host_speech import (
    APART,
    ESPEAK,
    HUMAN_APART,
    PROMPTS,
    RATE_HZ,
    TUNED,
    VOICES,
    speech,
)
from watermark.detect import DETECTED, detect
from watermark.keys import BOTH_LAYERS, MarkKey
from watermark.mark import Marker, MarkerBank
from watermark.selfcheck import SelfCheck

KEY = MarkKey("wm-be9c", 0xBE9C, bytes(range(32)))
OUT = Path(__file__).parents[1] / "out"
SECTIONS = ("quality", "cost", "null", "robustness", "lengths", "attacks")
"""In this order; the null is counted beside all that follow it, in a process of its own."""
QUALITY_S = 8
PLOTTED = ("G.711 mu", "Opus 12k", "20 dB noise", "GSM-FR", "AMR 12.2", "AMR 7.4", "AMR 4.75", "splices")
LENGTHS_S = (2, 3, 5, 10, 20)


@dataclass(frozen=True)
class TableLine:
    """One row of the table."""

    section: str
    name: str
    figures: str


class Table:
    """`records`: what plots need of each section."""

    def __init__(self) -> None:
        self.lines: list[TableLine] = []
        self.records: dict[str, list[dict[str, Any]]] = {}

    def add(self, section: str, name: str, figures: str) -> None:
        self.lines.append(TableLine(section, name, figures))
        click.echo(f"{section:11s} {name:44s} {figures}")

    def save(self, section: str) -> None:
        lines = [asdict(line) for line in self.lines if line.section == section]
        saved = {"lines": lines, "records": self.records.get(section, [])}
        (OUT / f"watermark-{section}.json").write_text(json.dumps(saved, indent=1))


def saved(section: str) -> dict[str, Any]:
    """What `Table.save` wrote: `lines` and `records`."""
    return dict(json.loads((OUT / f"watermark-{section}.json").read_text()))


@dataclass
class MarkedSpeech:
    """A voice's speech, unmarked and marked, one call."""

    voice: str
    plain: np.ndarray
    marked: np.ndarray
    payload: int
    call_s: float


def sources(prompts: Path, seconds: float) -> list[MarkedSpeech]:
    rng = np.random.default_rng(20)
    out = []
    for voice in VOICES:
        plain = speech(voice, seconds, prompts)
        if plain is None:
            click.echo(f"voice {voice}: not installed, left out")
            continue
        plain = plain[: len(plain) // 240 * 240]
        payload = KEY.gateway << 48 | int(rng.integers(1 << 48))
        hop = int(rng.integers(90_000))
        marked = watermark_attacks.mark_calls(KEY, [payload], plain, hop)[0]
        out.append(MarkedSpeech(voice, plain, marked, payload, hop / 100))
    return out


def interval(hits: int, of: int) -> str:
    """Wilson's 95 % interval of a share."""
    if not of:
        return "-"
    share, z = hits / of, 1.96
    middle = (share + z * z / (2 * of)) / (1 + z * z / of)
    half = z * sqrt(share * (1 - share) / of + z * z / (4 * of * of)) / (1 + z * z / of)
    low, high = 100 * max(0.0, middle - half), 100 * min(1.0, middle + half)
    return f"{100 * share:5.1f} [{low:.1f}, {high:.1f}] % of {of}"


def quality(table: Table, voices: list[MarkedSpeech], clips: int) -> None:
    from pesq import pesq
    from pystoi import stoi

    everything: dict[str, list[tuple[float, float, float]]] = {}
    for source in voices:
        length = QUALITY_S * RATE_HZ
        for at in range(0, min(len(source.plain) - length + 1, clips * length), length):
            plain, marked = source.plain[at : at + length], source.marked[at : at + length]
            low = [soxr.resample(each, RATE_HZ, 16_000) for each in (plain, marked)]
            snr = 10 * np.log10(np.sum(plain**2) / np.sum((marked - plain) ** 2))
            figures = (pesq(16_000, *low, "wb"), stoi(plain, marked, RATE_HZ), float(snr))
            everything.setdefault(source.voice, []).append(figures)
    groups = [("all voices", VOICES), ("voices used for tuning", TUNED), ("voices kept apart", APART)]
    for name, members in [*groups, *((voice, (voice,)) for voice in everything)]:
        rows = np.array([row for voice in members for row in everything.get(voice, [])])
        if len(rows):
            table.add(
                "quality", name,
                f"PESQ-WB mean {rows[:, 0].mean():.3f}, 5 % {np.quantile(rows[:, 0], 0.05):.3f}; "
                f"STOI mean {rows[:, 1].mean():.4f}, min {rows[:, 1].min():.4f}; "
                f"SNR {rows[:, 2].mean():.1f} dB; n = {len(rows)}",
            )  # fmt: skip


def excerpts(
    source: MarkedSpeech, attack: Attack, seconds: int, count: int
) -> Iterator[tuple[np.ndarray, int, float]]:
    """`count` excerpts after the attack, from all over the source, with where they lie in the call."""
    length = seconds * RATE_HZ
    room = len(source.marked) - length
    for at in np.linspace(0, max(room, 0), count).astype(int).tolist() if room >= 0 else []:
        samples, rate_hz = attack.channel(source.marked[at : at + length], RATE_HZ)
        yield samples, rate_hz, source.call_s + at / RATE_HZ


def heard(source: MarkedSpeech, attack: Attack, seconds: int, clips: int) -> Iterator[dict[str, Any]]:
    """What the detector makes of each excerpt, blind and (unless speeds must be searched) verifying."""
    speeds = "speed" in attack.name
    for samples, rate_hz, call_s in excerpts(source, attack, seconds, clips):
        began = time.process_time()
        found = detect(samples, rate_hz, [KEY], speeds=speeds)
        cpu_s = time.process_time() - began
        record = {
            "attack": attack.name, "seconds": seconds, "voice": source.voice, "cpu_s": cpu_s,
            "blind": found.detected, "ln_p": found.ln_p, "right": found.payload == source.payload,
            "wrong": found.payload not in (None, source.payload),
        }  # fmt: skip
        if not speeds:
            window = (max(0.0, call_s - 10), call_s + 10)
            verified = detect(samples, rate_hz, [KEY], payloads=[source.payload], call_s=window)
            record |= {"verify": verified.detected, "score": verified.score}
        yield record


def robustness(table: Table, voices: list[MarkedSpeech], clips: int) -> None:
    records = table.records.setdefault("robustness", [])
    for attack in attacks():
        for seconds in attack.seconds:
            rows = [row for source in voices for row in heard(source, attack, seconds, clips)]
            if not rows:
                continue
            records += rows
            goal = next((f" (goal {100 * wanted:g})" for at, wanted in attack.goals if at == seconds), "")
            blind = ", ".join(f"{kind} {tally}" for kind, tally in tallies(rows).items())
            verified = [row for row in rows if "verify" in row]
            verify = "verify not run; "
            if verified:
                score = np.median([row["score"] for row in verified])
                verify = f"verify {share(verified, 'verify'):.1f}; score {score:.1f}; "
            table.add(
                "robustness", f"{attack.name}, {seconds} s",
                f"blind {interval(sum(row['blind'] for row in rows), len(rows))}{goal}: {blind}; "
                f"payload {share(rows, 'right'):.1f}, wrong {sum(row['wrong'] for row in rows)}; "
                f"{verify}{np.mean([row['cpu_s'] for row in rows]):.2f} s CPU",
            )  # fmt: skip


def tallies(rows: list[dict[str, Any]]) -> dict[str, str]:
    """Found blind, of each kind of voice."""
    kinds = {"tuned": TUNED, "apart": HUMAN_APART, "espeak": ESPEAK}
    hits = {kind: [row["blind"] for row in rows if row["voice"] in of] for kind, of in kinds.items()}
    return {kind: f"{sum(each)}/{len(each)}" for kind, each in hits.items()}


def _mark_one(marker: Marker, frames: list[np.ndarray]) -> None:
    for frame in frames:
        marker.mark(frame)


def _mark_all(bank: MarkerBank, slots: np.ndarray, blocks: list[np.ndarray]) -> None:
    for block in blocks:
        bank.mark(slots, block)


def share(rows: list[dict[str, Any]], what: str) -> float:
    return 100 * sum(row[what] for row in rows) / max(1, len(rows))


def lengths(table: Table, voices: list[MarkedSpeech], clips: int) -> None:
    """Blind detection over the excerpt's length, for a plot."""
    records = table.records.setdefault("lengths", [])
    for attack in attacks():
        if attack.name in PLOTTED:
            shares = []
            for seconds in LENGTHS_S:
                rows = [row for source in voices for row in heard(source, attack, seconds, clips)]
                records += rows
                shares.append(f"{seconds} s {share(rows, 'blind'):.0f}")
            table.add("lengths", attack.name, f"blind {', '.join(shares)} % of {len(rows)} each")


def least(run: Callable[[], object], times: int) -> float:
    """CPU-seconds of the quickest of so many runs: a busy machine only makes them longer."""
    took = []
    for _ in range(times):
        began = time.process_time()
        run()
        took.append(time.process_time() - began)
    return min(took)


def marking_cost(table: Table, talk: np.ndarray) -> None:
    """Marking with the carrier alone and with both layers, turn about in one process."""
    frames = [talk[at : at + 480] for at in range(0, min(len(talk), 60 * RATE_HZ) - 480, 480)]
    keys = (KEY, replace(KEY, version=BOTH_LAYERS))
    alone = [partial(_mark_one, Marker(key, 1), frames[:640]) for key in keys]
    _marking(table, "one call alone", alone, 640, " (goal .35)", " (goal 1.7)")
    for calls in (16, 64):
        blocks = [np.tile(frame, (calls, 1)) for frame in frames[:128]]
        banks = [MarkerBank(key) for key in keys]
        together = [
            partial(_mark_all, bank, np.array([bank.open(n) for n in range(calls)]), blocks) for bank in banks
        ]
        goals = (" (goal .05)", " (goal 1.7)") if calls == 64 else ("", "")
        _marking(table, f"{calls} calls at once", together, 128 * calls, *goals)


def _marking(
    table: Table, name: str, runs: Sequence[Callable[[], None]], frames: int, goal: str, goal_times: str
) -> None:
    """`runs`: so many frames with the carrier alone, and with both layers."""
    took = np.min([[least(run, 1) for run in runs] for _ in range(20)], axis=0)
    one, both = 100 * took / (frames * 0.02)
    table.add(
        "cost", f"marking, {name}",
        f"{one:.4f} % of a core a call{goal}; "
        f"with both layers {both:.4f}, {both / one:.2f} times{goal_times}",
    )  # fmt: skip


def cost(table: Table, voices: list[MarkedSpeech]) -> None:
    rows = np.random.default_rng(1).standard_normal((2_000, 480)).astype(np.float32)
    yardstick = least(lambda: np.fft.rfft(rows, axis=1), 20) / len(rows)
    table.add(
        "cost", "yardstick: numpy rfft of 480 floats", f"{1e6 * yardstick:.2f} us (1.1 on an idle core here)"
    )
    marking_cost(table, voices[0].plain)
    narrow = soxr.resample(voices[0].marked[: 10 * RATE_HZ], RATE_HZ, 8_000)
    plain = soxr.resample(voices[0].plain[: 10 * RATE_HZ], RATE_HZ, 8_000)
    payload, call_s = voices[0].payload, voices[0].call_s
    runs = {
        "verify 10 s, position known to 10 s": lambda: detect(
            narrow, 8_000, [KEY], payloads=[payload], call_s=(call_s - 5, call_s + 5)
        ),
        "verify 10 s, anywhere in 15 minutes (goal 100 ms)": lambda: detect(
            narrow, 8_000, [KEY], payloads=[payload], call_s=(max(0, call_s - 450), call_s + 450)
        ),
        "blind 10 s, marked (goal 1 s)": lambda: detect(narrow, 8_000, [KEY]),
        "blind 10 s, unmarked (goal 1 s)": lambda: detect(plain, 8_000, [KEY]),
        "blind 10 s, unmarked, all speeds": lambda: detect(plain, 8_000, [KEY], speeds=True),
    }
    detect(narrow, 8_000, [KEY])  # draws the line once
    for name, run in runs.items():
        table.add("cost", name, f"{1000 * least(run, 1 if 'speeds' in name else 8):.0f} ms CPU")
    check = SelfCheck(KEY, payload)
    hop = round(call_s * 100)
    marked = voices[0].marked
    due = next(
        n for n in range(len(marked) // 480) if check.heard(hop + 2 * n, marked[n * 480 : (n + 1) * 480])
    )
    window = check.take()
    verdict, took = window.verdict(), least(window.verdict, 5)
    table.add(
        "cost",
        "self-check of 10 s of voice",
        f"{1000 * took:.1f} ms CPU, score {verdict.score:.1f} ({due} frames)",
    )


def adversary(table: Table, voices: list[MarkedSpeech], hours: float, calls: int) -> None:
    talk, other = voices[0].plain, voices[-1].plain
    for row in [
        *watermark_attacks.one_call(KEY, talk, other, hours),
        *watermark_attacks.greetings(KEY, talk, other, calls),
        *watermark_attacks.mixing(KEY, talk, other),
    ]:
        table.add("attacks", row.name, row.said)


def null(prompts: Path, trials: int, budget_s: float) -> None:
    table = Table()
    threshold = watermark_null.verify_threshold()
    counts = watermark_null.count(prompts, trials, budget_s)
    bounds = np.array(counts.blind)
    table.records["null"] = [
        {"trials": counts.trials, "histogram": counts.histogram.tolist(), "blind": counts.blind}
    ]
    begin, slope, low, high = counts.tail()
    table.add(
        "null", "verify, counted",
        f"{counts.over(threshold)} of {counts.trials} trials ({counts.searches} line searches) above "
        f"{threshold:.2f}, where p = 1e-6; 95 %: below {3 / counts.trials:.1e}; "
        f"largest {counts.largest:.2f}; {counts.seconds:.0f} s",
    )  # fmt: skip
    table.add(
        "null", "verify, fitted tail",
        f"beyond {begin:.2f} falls as exp(-s z^2 / 2), s = {slope:.2f} [{low:.2f}, {high:.2f}]; "
        f"at {threshold:.2f}: {counts.expected(threshold, slope, begin):.1e} "
        f"[{counts.expected(threshold, high, begin):.1e}, {counts.expected(threshold, low, begin):.1e}]",
    )  # fmt: skip
    limit, slope, low, high = watermark_null.blind_tail(bounds)
    alarm = log(DETECTED)
    chances = [0.2 * exp(each * (alarm - limit)) for each in (slope, high, low)]
    table.add(
        "null",
        "blind, counted",
        f"{int((bounds < alarm).sum())} of {len(bounds)} trials below {alarm:.1f}, where p = 1e-6; "
        f"least ln p {bounds.min():.1f}; 95 %: rate below {3 / len(bounds):.1e}",
    )
    table.add(
        "null",
        "blind, fitted tail (extrapolated)",
        f"below {limit:.1f} falls as exp(s ln p), s = {slope:.2f} [{low:.2f}, {high:.2f}]; at {alarm:.1f}: "
        f"{chances[0]:.0e} [{chances[1]:.0e}, {chances[2]:.0e}]",
    )
    table.save("null")


@click.command()
@click.option("--quick", is_flag=True, help="A few minutes, small numbers.")
@click.option("--only", multiple=True, type=click.Choice(SECTIONS), help="Only these sections.")
@click.option("--prompts", type=click.Path(path_type=Path), default=PROMPTS, show_default=True)
@click.option("--clips", type=int, help="Excerpts per voice, attack and length [12; quick 2].")
@click.option("--null-trials", type=int, help="Verify trials to count [3000000; quick 20000].")
@click.option("--null-budget-s", type=float, help="Stop counting after this time [3600; quick 60].")
def main(
    quick: bool, only: tuple[str, ...], prompts: Path, clips: int | None, null_trials: int | None,
    null_budget_s: float | None,
) -> None:  # fmt: skip
    """Measures the watermark and prints one table."""
    wanted = only or SECTIONS
    clips = clips or (2 if quick else 12)
    table = Table()
    OUT.mkdir(exist_ok=True)
    voices = sources(prompts, 40.0 if quick or clips <= 3 else 120.0)
    hours, calls = (0.1, 100) if quick else (1.0, 1_000)
    trials = null_trials or (20_000 if quick else 3_000_000)
    budget_s = null_budget_s or (60 if quick else 3_600)
    counting = Process(target=null, args=(prompts, trials, budget_s))
    sections: dict[str, Callable[[], None]] = {
        "quality": lambda: quality(table, voices, clips),
        "cost": lambda: cost(table, voices),
        "robustness": lambda: robustness(table, voices, clips),
        "lengths": lambda: lengths(table, voices, max(1, clips // 4)),
        "attacks": lambda: adversary(table, voices, hours, calls),
    }
    for name in SECTIONS:
        if name not in wanted:
            continue
        if name == "null":
            counting.start()
        else:
            sections[name]()
            table.save(name)
    if "null" in wanted:
        counting.join()


if __name__ == "__main__":
    main()
