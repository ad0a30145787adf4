"""The table of the telephone-codec benchmark, as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from typing import Any

import numpy as np

from benchmarks.watermark.adapters import SpeechMark
from benchmarks.watermark.host_speech import ESPEAK
from benchmarks.watermark.looks_kept import KeptLooks
from benchmarks.watermark.telephone_rows import TelephoneRow

QUALITY = "quality"


def wilson(hits: int, of: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share, in per cent."""
    share, z = hits / of, 1.96
    middle = (share + z * z / (2 * of)) / (1 + z * z / of)
    half = z * sqrt(share * (1 - share) / of + z * z / (4 * of * of)) / (1 + z * z / of)
    return 100 * max(0.0, middle - half), 100 * min(1.0, middle + half)


def counted(looks: list[bool], goal: int | None = None) -> str:
    """`hits/of [interval]`; bold where the whole interval lies below the goal, and an asterisk where only the
    share does."""
    if not looks:
        return "-"
    hits, of = sum(looks), len(looks)
    low, high = wilson(hits, of)
    said = f"{hits}/{of} [{low:.0f}, {high:.0f}]"
    if goal is None or 100 * hits / of >= goal:
        return said
    return f"**{said}**" if high < goal else f"{said}\\*"


def _looked(records: list[dict[str, Any]], how: str, espeak: bool) -> list[dict[str, Any]]:
    return [
        look
        for record in records
        if (record["asked"]["voice"] in ESPEAK) == espeak
        for look in record["looks"]
        if look["how"] == how
    ]


def _line(kept: KeptLooks, row: TelephoneRow, mark: SpeechMark, seconds: int) -> str | None:
    records = list(kept.of(row.name, mark.name, seconds))
    if not records:
        return None
    cells = [row.name, mark.name, str(seconds)]
    goals = row.goals.get(seconds, (None, None)) if mark.name.startswith("both layers") else (None, None)
    for how, goal in zip(("verify", "blind"), goals, strict=True):
        cells.append(counted([look["found"] for look in _looked(records, how, espeak=False)], goal))
    others = [
        counted([look["found"] for look in _looked(records, how, espeak=True)]) for how in ("verify", "blind")
    ]
    cells.append(" / ".join(others))
    cells.append(counted([look["found"] for look in _looked(records, "among", espeak=False)]))
    looks = [look for record in records for look in record["looks"]]
    cells.append(str(sum(look["wrong"] for look in looks)))
    cells.append(" / ".join(_cpu(looks, how) for how in ("verify", "blind")))
    return f"| {' | '.join(cells)} |"


def _cpu(looks: list[dict[str, Any]], how: str) -> str:
    took = [look["cpu_s"] for look in looks if look["how"] == how]
    return f"{np.mean(took):.2f}" if took else "-"


def table(kept: KeptLooks, rows: Sequence[TelephoneRow], marks: Sequence[SpeechMark]) -> list[str]:
    """The lines, a goal that is missed beyond doubt in bold, and what could not be tried below."""
    lines = [
        "| row | mark | s | verify | blind | espeak: verify / blind | named of 100,000 | wrong | CPU-s |",
        "| --- " * 9 + "|",
    ]
    for row in rows:
        for mark in marks:
            lines += [line for seconds in mark.lengths_s if (line := _line(kept, row, mark, seconds))]
    missing = [f"* {row.name}: {row.missing}" for row in rows if row.missing]
    missing += [f"* {said}" for mark in marks if (said := mark.missing())]
    return [*lines, *([""] if missing else []), *missing]


def quality(kept: KeptLooks, marks: Sequence[SpeechMark]) -> list[str]:
    lines = [
        "| mark | PESQ-WB mean, 5th percentile, least | espeak: mean | STOI mean, least | n |",
        "| --- " * 5 + "|",
    ]
    for mark in marks:
        records = list(kept.of(QUALITY, mark.name, QUALITY_S))
        human = [each for each in records if each["asked"]["voice"] not in ESPEAK]
        if not human:
            continue
        pesq, stoi = (np.array([each[what] for each in human]) for what in ("pesq", "stoi"))
        espeak = [each["pesq"] for each in records if each["asked"]["voice"] in ESPEAK]
        lines.append(
            f"| {mark.name} | {pesq.mean():.3f}, {np.quantile(pesq, 0.05):.3f}, {pesq.min():.3f} | "
            f"{f'{np.mean(espeak):.3f}' if espeak else '-'} | {stoi.mean():.4f}, {stoi.min():.4f} | "
            f"{len(human)} + {len(espeak)} |"
        )
    return lines


QUALITY_S = 8
