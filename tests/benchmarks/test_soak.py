"""The soak's own parts: what it reads, how it judges, and whether its leak is in a hall that is made so."""

from __future__ import annotations

import itertools
import math
import os
import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import heap_lines, heap_watch
from benchmarks.house_meter import descriptors, pss_anon_kb, udp_ports
from benchmarks.proofs import Soak
from benchmarks.slopes import FEWEST, WARM_UP, growing
from benchmarks.soak import LEAST_WAVES, MANY_CALLS, Readings, allowed, judged, unanswered, windows
from benchmarks.soak_callers import CALLERS, CROWD, DIALPLAN, MEAN_S, WAVE, wave
from benchmarks.soak_leak import injected, leaking
from gateway.cli.caller.call_reports import CallReport
from gateway.dialplan.dialplan import Dialplan
from gateway.phone.phone_plan import TurnReport
from tests.e2e.gateway_process import House


def report(minute: float, latency_s: float) -> CallReport:
    turn = TurnReport("speech", 1.0, 2.0, latency_s)
    return CallReport(
        answered=True, placed_at=60 * minute, answered_after_s=0.1, first_audio_s=0.05, turns=(turn,),
        packets=100, buffer_ms=40.0,
    )  # fmt: skip


def readings(leak_kb: float, calls: int = 1000) -> Readings:
    made = Readings()
    for n in range(0, calls, 10):
        values = {"memory of hall0, kB": 200_000 + leak_kb * n + n * 7919 % 300, "descriptors of hall0": 40.0}
        made.note(n, values)
    return made


def test_what_grows_is_named_and_what_does_not_is_not() -> None:
    reports = [report(n / 10, 0.5) for n in range(600)]
    assert judged(readings(0.0), reports, 300).grown == []
    found = judged(readings(2.0), reports, 300)
    assert found.grown == ["memory of hall0, kB"]
    assert found.as_json()["gauges"]["descriptors of hall0"]["verdict"] == "steady"
    (line,) = [gauge.line() for gauge in found.gauges if gauge.name == "memory of hall0, kB"]
    assert line.startswith("grows      memory of hall0, kB a call: ")


def test_what_a_process_weighs_says_nothing_of_few_calls() -> None:
    found = judged(readings(2.0, calls=400), [], 300)
    assert found.grown == []
    assert found.as_json()["gauges"]["memory of hall0, kB"]["verdict"] == "too short"


def test_answers_that_come_later_and_later_are_found() -> None:
    reports = [report(n / 10, 0.5 + 0.03 * n / 10) for n in range(600)]
    assert judged(readings(0.0), reports, 300).grown == ["p95 of a turn to its answer, ms"]


def test_times_are_gathered_by_windows_of_minutes() -> None:
    reports = [report(0, 0.5), report(1, 0.7), report(6, 0.9), replace(report(7, 0.9), turns=())]
    minutes, values = windows(reports, 300)["p95 of a turn to its answer, ms"]
    assert minutes == [2.5, 7.5]
    assert values == pytest.approx([690, 900])
    assert windows(reports, 300)["jitter buffer of a caller, ms"][1] == [40.0, 40.0]
    assert windows([], 300) == {}


def test_a_process_that_is_not_there_leaves_a_gap() -> None:
    made = Readings()
    made.note(0, {"memory of a": 1.0})
    made.note(1, {"memory of b": 2.0})
    assert math.isnan(made.gauges["memory of a"][1])
    assert math.isnan(made.gauges["memory of b"][0])
    assert made.gauges["memory of b"][1] == 2.0


def test_each_gauge_has_its_bound() -> None:
    assert allowed("memory of redis, kB").by > allowed("memory of hall0, kB").by
    assert allowed("p95 of INVITE to 200 OK, ms").per == "minute"
    assert allowed("Redis, kB").per == allowed("UDP ports").per == "call"
    assert math.isinf(allowed("memory of hall0, kB", MANY_CALLS - 1).by)
    assert allowed("memory of hall0, kB", MANY_CALLS).by == 1.0


def test_its_callers_dial_what_its_plan_has(tmp_path: Path) -> None:
    (tmp_path / "soak.toml").write_text(DIALPLAN)
    called = {name for route in Dialplan.load(tmp_path).routes for name in route.called}
    assert {caller["dials"] for caller in CALLERS} - called == {"nobody"}


def test_what_this_process_uses_is_read() -> None:
    import socket

    before = udp_ports([os.getpid()])
    with socket.socket(type=socket.SOCK_DGRAM) as bound:
        bound.bind(("127.0.0.1", 0))
        assert udp_ports([os.getpid()]) == before + 1
        assert f"socket:[{os.fstat(bound.fileno()).st_ino}]" in descriptors(os.getpid())
    assert pss_anon_kb(os.getpid()) > 1000
    assert math.isnan(pss_anon_kb(2**22 + 1))
    assert descriptors(2**22 + 1) == []


KEEPS = """
import sys
from benchmarks import heap_watch

kept = []
for line in sys.stdin:
    rings = [[] for _ in range(1000)]
    for ring in rings:
        ring.append(ring)  # the collector's, not kept
    kept += [bytearray(int(line)) for _ in range(100)]
    print(*heap_watch.in_use(), flush=True)
"""


def test_what_a_process_has_in_use_is_told_to_the_kilobyte() -> None:
    argv = [sys.executable, "-c", KEEPS]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        readings = []
        for size in (2048, 2048, 0, 2048):
            process.stdin.write(f"{size}\n")
            process.stdin.flush()
            kb, objects = process.stdout.readline().split()
            readings.append((float(kb), int(objects)))
        process.stdin.close()
    (first, _), (full, some), (empty, more), (again, _) = readings
    assert full - first == pytest.approx(100 * 2.05, abs=10)
    assert empty - full == pytest.approx(0, abs=10)
    assert more - some == pytest.approx(100, abs=30)
    assert again - empty == pytest.approx(100 * 2.05, abs=10)


GIVES_BACK = """
import ctypes
import sys
import numpy
from benchmarks import heap_watch

libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
heap_watch.in_use()
before = heap_watch.in_use()[0]
for block in [libc.malloc(size) for size in range(512, 1024, 16) for _ in range(7)]:
    libc.free(block)
if len(sys.argv) > 1:
    for size in range(1, 1024):
        kept = [numpy.empty(size, numpy.uint8) for _ in range(7)]
    del kept
print(heap_watch.in_use()[0] - before)
"""


@pytest.mark.parametrize("keeper", ["glibc", "numpy"])
def test_what_was_given_back_is_not_in_use(tmp_path: Path, keeper: str) -> None:
    environ = {**os.environ, **injected(tmp_path / "inside", 0)}
    argv = [sys.executable, "-c", GIVES_BACK, *(["numpy"] if keeper == "numpy" else [])]
    more = subprocess.run(argv, env=environ, capture_output=True, text=True, check=True).stdout
    assert float(more) < 20, "glibc keeps 77 kB of it, numpy 3.7 MB"


def test_a_process_of_the_house_tells_it_when_it_is_asked_unless_it_becomes_another(tmp_path: Path) -> None:
    folder = tmp_path / "inside"
    script = "import time\nprint(flush=True)\ntime.sleep(60)"
    environ = {**os.environ, **injected(folder, 0)}
    with ExitStack() as running:
        pids = []
        for more in ([], [heap_watch.THREADLESS[0]]):
            argv = [sys.executable, "-c", script, *more]
            process = running.enter_context(subprocess.Popen(argv, env=environ, stdout=subprocess.PIPE))
            running.callback(process.kill)
            assert process.stdout is not None
            process.stdout.readline()
            pids.append(process.pid)
        assert [heap_watch.tells(folder, pid) for pid in pids] == [True, False]
        assert [len(os.listdir(f"/proc/{pid}/task")) for pid in pids] == [2, 1]
        for number in (1, 2):
            assert heap_watch.told(folder, pids[0], number) is None
            heap_watch.ask(folder, number)
            while (found := heap_watch.told(folder, pids[0], number)) is None:
                time.sleep(0.05)  # it looks into a file now and then
            assert found[0] > 100
            assert found[1] > 1000


def test_what_is_put_into_each_process_of_the_house_loads_nothing_else() -> None:
    script = (
        "import sys; from benchmarks import heap_watch, soak_leak; "
        "print([name for name in ('numpy', 'scipy', 'click') if name in sys.modules])"
    )
    argv = [sys.executable, "-c", script]
    assert subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_each_wave_has_the_same_callers_and_the_first_ones_come_closer() -> None:
    house = House(Path("/nowhere"))
    first, last = wave(house, 8, 0), wave(house, 8, LEAST_WAVES)
    assert (len(first), len(last)) == (CROWD, WAVE)
    assert last == wave(house, 8, LEAST_WAVES + 1)
    assert WAVE % len(CALLERS) == CROWD % len(CALLERS) == 0, "of each kind there are as many"
    assert first[-1].after_s < last[-1].after_s + MEAN_S / 8
    assert LEAST_WAVES * (1 - WARM_UP) >= FEWEST


def test_the_leak_is_in_a_hall_that_is_started_so_and_in_no_other(tmp_path: Path) -> None:
    script = "from gateway.hall.hall import Hall; print(hasattr(Hall._make, '__wrapped__'))"

    def made(more: dict[str, str]) -> str:
        environ = {**os.environ, **more}
        argv = [sys.executable, "-c", script]
        return subprocess.run(argv, env=environ, capture_output=True, text=True, check=True).stdout.strip()

    assert made(injected(tmp_path / "leak", 2048)) == "True"
    assert made({}) == "False"
    assert leaking(lambda n: n + 1, 2048)(1) == 2


def test_a_process_that_is_forked_into_the_house_tells_too(tmp_path: Path) -> None:
    """A thread of what it was forked from is not in it."""
    script = "from gateway.run import entry; print(hasattr(entry.live, '__wrapped__'))"
    for more, told in ((injected(tmp_path / "inside", 0), "True"), ({}, "False")):
        argv, environ = [sys.executable, "-c", script], {**os.environ, **more}
        assert subprocess.run(argv, env=environ, capture_output=True, text=True).stdout.strip() == told


def test_the_proof_wants_the_leak_found_and_nothing_else() -> None:
    proof = Soak()
    plain, leaky = proof.steps()
    calls = {"calls": 300, "answers": 150, "asked": 150}
    step = {"grown": [], "restarted": [], "gauges": {"a": 1}, "calls": calls, "heard": True}
    found = step | {"grown": ["memory of hall0, kB"]}
    assert proof.result({plain: step, leaky: found})[0]
    assert not proof.result({plain: step, leaky: step})[0], "the leak was not found"
    assert not proof.result({plain: found, leaky: found})[0], "and something grows"
    more = step | {"grown": ["heap of hall0, kB", "objects of front"]}
    assert not proof.result({plain: step, leaky: more})[0], "with the leak something else grows"
    assert not proof.result({plain: step | {"restarted": ["hall0"]}, leaky: found})[0]
    assert not proof.result({plain: step | {"heard": False}, leaky: found})[0], "callers had no answers"


def test_whoever_says_something_waits_for_its_answer() -> None:
    for caller in CALLERS:
        acts = [act.act for act in caller["script"]]
        for said, then in itertools.pairwise(acts):
            assert said not in ("say", "press") or then in ("listen", "interrupt"), caller
        assert not acts or acts[-1] not in ("say", "press"), caller


def test_what_had_no_answer_is_named_and_many_of_it_fail_a_run() -> None:
    well = [replace(report(n / 10, 0.5), uri="sip:soak@here", codec="PCMU") for n in range(9)]
    asked = replace(report(1, 0.5).turns[0], latency_s=None)
    badly = replace(well[0], turns=(well[0].turns[0], asked))
    assert judged(Readings(), [*well, badly], 300).heard
    found = judged(Readings(), [badly, badly, well[0]], 300)
    assert not found.heard
    assert found.unanswered == {"sip:soak, PCMU: speech 2 of 2": 2}
    assert unanswered(well) == {}


def test_a_message_and_its_thanks_are_no_question_and_its_answer() -> None:
    message = replace(report(0, 2.5), uri="sip:keys@here")
    times = windows([report(0, 0.5), message], 300)
    assert times["p95 of a turn to its answer, ms"][1] == [500]
    assert times["p95 of a message to the thanks, ms"][1] == [2500]


def test_the_line_that_keeps_something_of_each_call_is_named() -> None:
    held = [{"a.py:1": 2.0 * n, "b.py:2": 300.0, "c.py:3": float(n % 7)} for n in range(0, 300, 10)]
    ((where, per),) = growing([float(n) for n in range(0, 300, 10)], held, 0.02, 12)
    assert where == "a.py:1"
    assert per.per == pytest.approx(2.0)


HOLDS = """
import sys
from pathlib import Path
from benchmarks import heap_lines

kept = []
for number in sys.stdin:
    heap_lines.look(Path(sys.argv[1]), number.strip(), "hall0")
    kept += [bytearray(2048) for _ in range(100)]
    print(flush=True)
"""


def test_a_process_tells_which_line_holds_what_came_since_its_first_rest(tmp_path: Path) -> None:
    script = tmp_path / "holds.py"
    script.write_text(HOLDS)
    environ = {**os.environ, **injected(tmp_path / "inside", 0), heap_lines.VARIABLE: "front hall0"}
    argv = [sys.executable, str(script), str(tmp_path)]
    with subprocess.Popen(
        argv, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        process.communicate("1\n2\n3\n")
    assert heap_lines.told(tmp_path, process.pid, 1) is None
    for number, kb in ((2, 205), (3, 410)):
        lines = heap_lines.told(tmp_path, process.pid, number)
        assert lines is not None
        held = sum(size for where, size in lines.items() if where.rpartition("/")[2].startswith("holds.py:"))
        assert held == pytest.approx(kb, abs=10)
