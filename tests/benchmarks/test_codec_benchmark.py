"""The telephone-codec benchmark: its parts, on one excerpt and two rows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from benchmarks.watermark import __main__ as command
from benchmarks.watermark import chromium_calls, codec_table, telephone_rows
from benchmarks.watermark.adapters import Look, OtherPython, Ours
from benchmarks.watermark.host_speech import RATE_HZ
from benchmarks.watermark.hosts import HostSpeech
from benchmarks.watermark.jitter_buffer import delays_s, stood_in
from benchmarks.watermark.looks_kept import Asked, KeptLooks
from benchmarks.watermark.telephone_rows import TelephoneRow


def syllables(seconds: int) -> np.ndarray:
    """Noise that swells and sinks as speech does."""
    rng = np.random.default_rng(5)
    time_s = np.arange(seconds * RATE_HZ) / RATE_HZ
    loudness = 0.55 + 0.45 * np.sin(2 * np.pi * 3.1 * time_s)
    return (0.1 * loudness * rng.standard_normal(len(time_s))).astype(np.float32)


class Counting:
    """A mark that finds whatever is louder than nothing, and counts what it was asked."""

    name, lengths_s = "counting", (10, 20)

    def __init__(self) -> None:
        self.marks, self.asked_s = 0, []

    def missing(self) -> str | None:
        return None

    def marked(self, host: HostSpeech) -> np.ndarray:
        self.marks += 1
        return host.speech

    def looks(self, host: HostSpeech, samples: np.ndarray, rate_hz: int, among: bool) -> Iterator[Look]:
        self.asked_s.append(len(samples) / rate_hz)
        yield Look("blind", bool(np.abs(samples).max() > 0), 1.0, 0.0)


def straight(host: HostSpeech, samples: np.ndarray, rate_hz: int) -> tuple[np.ndarray, int]:
    return samples, rate_hz


def silent(host: HostSpeech, samples: np.ndarray, rate_hz: int) -> tuple[np.ndarray, int]:
    return np.zeros_like(samples), rate_hz


ROWS = [
    TelephoneRow("straight", "all", {10: (98, 95)}, straight),
    TelephoneRow("silent", "all", {10: (98, 95)}, silent),
    TelephoneRow("G.799", "all", {}, straight, missing="G.799 is not tried: apt-get install libg799"),
]


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch) -> Counting:
    mark = Counting()
    host = HostSpeech("en", 0, syllables(30))
    monkeypatch.setattr(command, "marks", lambda: [mark])
    monkeypatch.setattr(command, "rows", lambda _: ROWS)
    monkeypatch.setattr(command.hosts, "rounds", lambda *_: iter([[host]]))
    return mark


def said(*arguments: str) -> str:
    done = CliRunner().invoke(command.main, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def rows_of(output: str, row: str) -> list[str]:
    return [line for line in output.splitlines() if line.startswith(f"| {row} |")]


def test_a_run_goes_on_where_it_was_and_prints_the_same_table(counting: Counting, tmp_path: Path) -> None:
    first = said("--out", str(tmp_path), "--only", "s", "--length", "10")
    assert counting.asked_s == [10.0, 10.0]
    assert "1/1 [21, 100]" in rows_of(first, "straight")[0]
    assert "0/1 [0, 79]" in rows_of(first, "silent")[0]

    again = said("--out", str(tmp_path), "--only", "s", "--length", "10")
    assert counting.asked_s == [10.0, 10.0], "what is known is not asked again"
    assert rows_of(again, "silent") == rows_of(first, "silent")

    said("--out", str(tmp_path), "--only", "s")
    assert counting.asked_s == [10.0, 10.0, 20.0, 20.0], "only the length that was missing"


def test_a_killed_run_loses_the_line_it_was_writing(counting: Counting, tmp_path: Path) -> None:
    said("--out", str(tmp_path), "--only", "s", "--length", "10")
    (kept,) = tmp_path.glob("*.jsonl")
    kept.write_text(kept.read_text()[:-40])
    output = said("--out", str(tmp_path), "--only", "s", "--length", "10")
    assert len(counting.asked_s) == 3
    assert len(rows_of(output, "straight")) == len(rows_of(output, "silent")) == 1
    assert len(KeptLooks(kept).records) == 2


def test_a_row_without_its_encoder_says_what_to_install(counting: Counting, tmp_path: Path) -> None:
    output = said("--out", str(tmp_path), "--only", "G.799")
    assert "* G.799: G.799 is not tried: apt-get install libg799" in output
    assert not counting.asked_s


def test_the_cpu_seconds_end_a_run(counting: Counting, tmp_path: Path) -> None:
    output = said("--out", str(tmp_path), "--only", "s", "--seconds-of-cpu", "-1")
    assert "the same command goes on from here" in output
    assert not counting.asked_s


def test_an_unknown_row_is_told_the_rows_that_there_are(counting: Counting, tmp_path: Path) -> None:
    done = CliRunner().invoke(command.main, ["--out", str(tmp_path), "--only", "G.72"])
    assert done.exit_code == 2
    assert "'straight', 'silent', 'G.799'" in done.output


def test_missing_libraries_are_missing_rows(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(
        telephone_rows, "MISSING", {"G.729": "G.729 is not tried: apt-get install libbcg729-0"}
    )
    telephone_rows.encoders.cache_clear()
    try:
        missing = {row.name: row.missing for row in telephone_rows.rows(tmp_path)}
    finally:
        telephone_rows.encoders.cache_clear()
    for name in ("G.729", "mu > G.729 > mu", "GSM > G.729"):
        assert "apt-get install" in (missing[name] or "")
    assert missing["wobble 1 ms 1 Hz"] is None or "ffmpeg" in missing["wobble 1 ms 1 Hz"]


def test_a_mark_without_its_python_says_how_to_get_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_SUCH_PYTHON", raising=False)
    mark = OtherPython("perth", "NO_SUCH_PYTHON", "resemble_perth", "make an environment")
    assert mark.missing() == (
        "perth is not tried: make an environment, and name its Python in NO_SUCH_PYTHON"
    )


def test_our_mark_is_found_in_what_it_marked() -> None:
    mark, host = Ours("both layers, 2 dB", 2.0, (10,)), HostSpeech("en", 3, syllables(10))
    looks = {look.how: look for look in mark.looks(host, mark.marked(host), RATE_HZ, among=False)}
    assert looks["verify"].found
    assert looks["blind"].found
    assert not looks["blind"].wrong


def test_the_stand_in_for_neteq_keeps_the_sound_and_changes_its_time() -> None:
    sound = syllables(20)
    played, rate_hz = stood_in(sound, RATE_HZ)
    assert rate_hz == 8_000
    assert np.array_equal(played, stood_in(sound, RATE_HZ)[0]), "the same excerpt meets the same network"
    assert 18 < len(played) / rate_hz < 23
    level = np.sqrt(np.mean(np.square(played))) / np.sqrt(np.mean(np.square(sound)))
    assert 0.3 < level < 1.2, "of white noise a third lies below 4 kHz"
    late = delays_s(2_000, np.random.default_rng(1))
    assert np.isinf(late).sum() > 0
    assert np.nanmax(late[np.isfinite(late)]) > 0.06


def test_a_goal_is_bold_only_where_the_whole_interval_misses_it() -> None:
    assert codec_table.counted([True] * 8, 98) == "8/8 [68, 100]"
    assert codec_table.counted([True] * 7 + [False], 95) == "7/8 [53, 98]\\*"
    assert codec_table.counted([True] + [False] * 7, 98) == "**1/8 [2, 47]**"


def test_another_search_is_another_recording(tmp_path: Path) -> None:
    kept = KeptLooks(tmp_path / "kept.jsonl")
    kept.add(Asked("clean", "ours", "en", 0, 10), [Look("blind", True, 9.0, 1.0)])
    assert kept.knows(Asked("clean", "ours", "en", 0, 10))
    assert not kept.knows(Asked("clean", "ours", "en", 0, 10, search="within a minute"))


def test_a_recording_of_chromium_is_found_by_what_was_sent(tmp_path: Path) -> None:
    sent = np.random.default_rng(3).uniform(-0.5, 0.5, 20 * RATE_HZ).astype(np.float32)
    (tmp_path / chromium_calls.FOLDER).mkdir()
    kept = tmp_path / chromium_calls.FOLDER / f"{chromium_calls.name_of(sent)}.npz"
    np.savez(kept, sound=np.full(100, 1 << 14, np.int16), rate_hz=48_000, seconds=20.0, stats="{}")
    sound, rate_hz = chromium_calls.recorded(sent, RATE_HZ, tmp_path) or (np.zeros(1), 0)
    assert (sound == 0.5).all()
    assert rate_hz == 48_000
    other, longer = sent[::-1], np.concatenate((sent, sent))
    assert chromium_calls.recorded(other, RATE_HZ, tmp_path) is None
    assert chromium_calls.recorded(longer, RATE_HZ, tmp_path) is None, "so much was not recorded"


def test_what_is_not_marked_is_a_row(tmp_path: Path) -> None:
    row = next(row for row in telephone_rows.rows(tmp_path) if row.name == "not marked, G.711")
    plain = np.random.default_rng(4).uniform(-0.5, 0.5, 2 * RATE_HZ).astype(np.float32)
    host = HostSpeech("en", 0, plain)
    once, again = (row.through(host, marked, RATE_HZ) for marked in (plain, plain + 0.1))
    assert once is not None
    assert again is not None
    assert np.array_equal(once[0], again[0])
