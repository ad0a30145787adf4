"""What is proved, step by step; `benchmarks/prove.py` runs it and keeps what was found."""

from __future__ import annotations

import io
import os
import re
import resource
import subprocess
import sys
import tempfile
import wave
from abc import ABC, abstractmethod
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Protocol, Self

import click
import numpy as np

from benchmarks import edge_fuzz, fault_rows, soak
from benchmarks.watermark import null as watermark_null
from benchmarks.watermark.host_speech import HUMAN, PROMPTS, RATE_HZ, speech
from watermark import examine
from watermark.keys import KeyRing
from watermark.pcm import bytes_from_float

ROOT: Final = Path(__file__).resolve().parents[1]
Found = dict[str, Any]


class LongProof(Protocol):
    """`what` is said of it in the docs. It is entered before its first step and left after the last."""

    what: str

    def __enter__(self) -> Self: ...
    def __exit__(self, *_: object) -> None: ...
    def steps(self) -> list[str]:
        """Names, always the same ones at one commit."""
        ...

    def prove(self, step: str) -> Any:
        """What it found, as JSON has it."""
        ...

    def result(self, found: Found) -> tuple[bool, str]:
        """Whether what was found so far holds, and in words."""
        ...


class Plain:
    """A proof that has nothing to begin and nothing to end."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass


class Null(Plain):
    """147 searches of human speech with fresh keys, 20,480 verify trials each."""

    what = "unmarked speech is not taken for a call's"
    SEARCHES: Final = 147

    def steps(self) -> list[str]:
        return [f"search {number}" for number in range(self.SEARCHES)]

    @cached_property
    def _speech(self) -> list[np.ndarray]:
        return list(watermark_null.segments(PROMPTS))

    def prove(self, step: str) -> Any:
        number = int(step.split()[1])
        scores = watermark_null.searched(self._speech[number % len(self._speech)], number)
        alarms = int((scores > watermark_null.verify_threshold()).sum())
        return {"trials": len(scores), "alarms": alarms, "largest": round(float(scores.max()), 3)}

    def result(self, found: Found) -> tuple[bool, str]:
        trials = sum(each["trials"] for each in found.values())
        alarms = sum(each["alarms"] for each in found.values())
        largest = max((each["largest"] for each in found.values()), default=0.0)
        threshold = watermark_null.verify_threshold()
        told = f"{alarms} of {trials:,} verify trials above {threshold:.2f}, where p = 1e-6"
        return alarms == 0, f"{told}; largest {largest:.2f}"


class Halves(Plain):
    """Courses of the carrier (`watermark.drift`) of 2 s of human speech, unmarked or with another call's mark
    at the very place, each fitted to one half of a call's chips and judged by the other: by that call's own,
    and by other rows' and payloads', which it is as blind to."""

    what = "a course that half of the chips fit says nothing to the other half"
    STEPS: Final = 48
    PAIRS: Final = 512

    def steps(self) -> list[str]:
        return [f"{self.PAIRS} pairs, {number}" for number in range(self.STEPS)]

    @cached_property
    def _material(self) -> watermark_null.HalvesMaterial:
        return watermark_null.HalvesMaterial.of(PROMPTS)

    def prove(self, step: str) -> Any:
        both = self._material.scores(int(step.split()[-1]), self.PAIRS)
        return {
            whose: {
                "trials": scores.size,
                "alarms": int((scores > watermark_null.HALVES_THRESHOLD).sum()),
                "largest": round(float(scores.max()), 3),
                "sum": float(scores.sum()),
                "squares": float(np.square(scores).sum()),
            }
            for whose, scores in (("own", both[:, 0]), ("others'", both[:, 1:]))
        }

    def result(self, found: Found) -> tuple[bool, str]:
        told, all_alarms = [], 0
        for whose in ("own", "others'"):
            some = [each[whose] for each in found.values()]
            trials, alarms = (sum(each[count] for each in some) for count in ("trials", "alarms"))
            largest = max((each["largest"] for each in some), default=0.0)
            mean = sum(each["sum"] for each in some) / max(trials, 1)
            spread = (sum(each["squares"] for each in some) / max(trials, 1) - mean**2) ** 0.5
            all_alarms += alarms
            told.append(
                f"by {whose} chips {alarms} of {trials:,} above {watermark_null.HALVES_THRESHOLD:.2f} (mean "
                f"{mean:.3f}, deviation {spread:.3f}, largest {largest:.2f})"
            )
        return all_alarms == 0, f"{'; '.join(told)}; p = 1e-6 for one place there"


class Detector(Plain):
    """The public detector's child on a minute of two human voices, one in each channel, with 1 to 4 keys: the
    longest and costliest questions that it takes."""

    what = "the public detector has the time for a minute in two channels"

    def steps(self) -> list[str]:
        return [f"{keys} keys" for keys in (1, 2, 3, 4)]

    def prove(self, step: str) -> Any:
        keys = int(step.split()[0])
        voices = [speech(voice, examine.LONGEST_S, PROMPTS) for voice in ("it", "ru")]
        if any(voice is None for voice in voices):
            raise SystemExit(f"no prompts in {PROMPTS}: {', '.join(HUMAN.values())}")
        with tempfile.TemporaryDirectory() as folder:
            ring = KeyRing.create(Path(folder) / "keys")
            for _ in range(keys - 1):
                ring = ring.rotate(Path(folder) / "keys")
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            child = subprocess.run(
                [sys.executable, "-m", "watermark.examine", str(Path(folder) / "keys")],
                input=_stereo(np.stack(voices, axis=1)),  # type: ignore[arg-type]  # none is None
                env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
                capture_output=True,
            )
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        allowed_s = examine.cpu_s(examine.LONGEST_S, 2, keys)
        said = child.stdout.decode().strip() or f"status {child.returncode}"
        return {"said": said, "cpu_s": round(cpu_s, 1), "allowed_s": allowed_s}

    def result(self, found: Found) -> tuple[bool, str]:
        told = [
            f"{step}: {each['said']} in {each['cpu_s']} of {each['allowed_s']} CPU-s"
            for step, each in found.items()
        ]
        return all(each["said"].startswith("no ") for each in found.values()), ", ".join(told)


def _stereo(samples: np.ndarray) -> bytes:
    """float32 `(n, 2)` at 24 kHz as a 16-bit WAV file."""
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(2)
        writer.setsampwidth(2)
        writer.setframerate(RATE_HZ)
        writer.writeframes(bytes_from_float(samples))
    return file.getvalue()


class Soak(Plain):
    """Five minutes of calls that come and go, and five more in a hall that keeps 2 kB of each of them."""

    what = "nothing grows while calls come and go, and what does is found"
    MINUTES: Final = 5.0
    LEAK_BYTES: Final = 2048
    LEAKS: Final = ("heap of hall", "memory of hall")
    """What that leak is found by, and nothing else grows."""

    def steps(self) -> list[str]:
        return ["as it is", f"with a leak of {self.LEAK_BYTES} bytes a call"]

    def prove(self, step: str) -> Any:
        leak_bytes = self.LEAK_BYTES if step.startswith("with") else 0
        found = soak.soak(self.MINUTES, leak_bytes=leak_bytes)
        return {"grown": found.grown, **found.as_json()}

    def result(self, found: Found) -> tuple[bool, str]:
        told, good = [], True
        for step, each in found.items():
            leaks = step.startswith("with")
            found_it = [name.startswith(self.LEAKS) for name in each["grown"]]
            good = (
                good and not each["restarted"] and each["heard"] and all(found_it) and bool(found_it) == leaks
            )
            grown = ", ".join(each["grown"]) or "nothing"
            calls = each["calls"]
            told.append(
                f"{step}: of {len(each['gauges'])} gauges {grown} grows, {calls['calls']} calls, "
                f"{calls['answers']} of {calls['asked']} turns answered"
            )
        return good, "; ".join(told)


class Faults(Plain):
    """Each fault of docs/faults.md is made to happen, with whole gateways where the table says so."""

    what = "what a caller and an operator notice of each fault, and that it passes"

    def steps(self) -> list[str]:
        return [row.step for row in fault_rows.all_rows()]

    def prove(self, step: str) -> Any:
        (row,) = [row for row in fault_rows.all_rows() if row.step == step]
        found = fault_rows.try_fault(row)
        click.echo(fault_rows.printed(row, found))
        return found

    def result(self, found: Found) -> tuple[bool, str]:
        passed = sum(each["passed"] for each in found.values())
        failed = [f"{step}: {name}" for step, each in found.items() for name in each["failed"]]
        told = f"{len(found)} faults, {passed} tests passed, {len(failed)} failed"
        return not failed, told + "".join(f"; {name}" for name in failed)


class Fuzz(Plain):
    """A million datagrams that were changed, in ten runs, to an edge that has a call up."""

    what = "no datagram ends the edge, stays in its memory, or disturbs a call"
    RUNS: Final = 10
    DATAGRAMS: Final = 100_000

    def steps(self) -> list[str]:
        return [f"{self.DATAGRAMS} datagrams, {seed}" for seed in range(self.RUNS)]

    def prove(self, step: str) -> Any:
        return edge_fuzz.fuzz(self.DATAGRAMS, seed=int(step.split()[-1])).as_json()

    def result(self, found: Found) -> tuple[bool, str]:
        datagrams, pings, holds = (
            sum(each[name] for each in found.values()) for name in ("datagrams", "pings", "holds")
        )
        fell = sorted({name for each in found.values() for name in each["fell"]})
        growth = max((each["growth"] for each in found.values()), default=0)
        told = (
            f"{datagrams:,} datagrams, {len(fell)} errors of ours, {pings:,} pings answered, {holds:,} "
            f"re-INVITEs of a call beside; at most {growth} objects more at rest after {self.DATAGRAMS:,}"
        )
        good = all(each["sound"] for each in found.values())
        return good, told + "".join(f"; {name}" for name in fell)


class _Suite(Plain, ABC):
    """Files of tests, each in a pytest of its own."""

    ROUNDS = 1
    marker = ""

    @abstractmethod
    def files(self) -> list[str]: ...

    def steps(self) -> list[str]:
        return [f"{file} #{n}" for n in range(1, self.ROUNDS + 1) for file in self.files()]

    def prove(self, step: str) -> Any:
        file = step.split()[0]
        words = ["-m", "pytest", file, "-q", *(["-m", self.marker] if self.marker else [])]
        done = subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True)
        failed = re.findall(r"^(?:FAILED|ERROR) (\S+)", done.stdout, re.MULTILINE)
        counts = {name: int(n) for n, name in re.findall(r"(\d+) (passed|skipped)", done.stdout[-300:])}
        if done.returncode not in (0, 5) and not failed:
            failed = [f"{file}: pytest ended with {done.returncode}"]
        return {"passed": counts.get("passed", 0), "skipped": counts.get("skipped", 0), "failed": failed}

    def result(self, found: Found) -> tuple[bool, str]:
        passed, skipped = (sum(each[name] for each in found.values()) for name in ("passed", "skipped"))
        failed = [name for each in found.values() for name in each["failed"]]
        told = f"{passed} passed, {len(failed)} failed" + (f", {skipped} skipped" if skipped else "")
        return not failed, told + "".join(f"; {name}" for name in failed)


class Steady(_Suite):
    """The whole suite three times while as many busy loops run as there are processors."""

    what = "the suite holds still on a busy machine"
    ROUNDS = 3

    def __init__(self) -> None:
        self._loops: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        loop = f"import os\nwhile os.getppid() == {os.getpid()}: pass"
        self._loops = [subprocess.Popen([sys.executable, "-c", loop]) for _ in range(os.cpu_count() or 1)]
        return self

    def __exit__(self, *_: object) -> None:
        for loop in self._loops:
            loop.kill()
            loop.wait()

    def files(self) -> list[str]:
        found = sorted((ROOT / "tests").rglob("test_*.py"))
        return [str(path.relative_to(ROOT)) for path in found if "prove" not in path.parts]


class Wheel(_Suite):
    """The wheel, installed where no file of the checkout can be seen."""

    what = "an installed wheel starts and takes a call"
    marker = "prove"

    def files(self) -> list[str]:
        return ["tests/prove/test_wheel_runs.py"]


class Api(_Suite):
    """Two minutes of requests that nobody would make, to a whole gateway."""

    what = "whatever is asked of the API, it answers as its description says, and with no 500"
    marker = "prove"

    def files(self) -> list[str]:
        return ["tests/prove/test_api_fuzz.py"]


class Browsers(_Suite):
    """JsSIP and SIP.js, a TURN server behind a NAT, and a change of networks; all with whole gateways."""

    what = "browsers' SIP libraries call, TURN passes a NAT that stops UDP, a changed network keeps the call"
    marker = "prove"

    def files(self) -> list[str]:
        return [f"tests/e2e/test_{name}.py" for name in ("sip_in_browsers", "turn", "network_change")]


class Peers(_Suite):
    """Kamailio as a trunk and before us, rtpengine, and telephones' SRTP; all with whole gateways."""

    what = "a Kamailio is our trunk and our edge, rtpengine our relay; of an encrypted call nothing is read"
    marker = "prove or not prove"

    def files(self) -> list[str]:
        names = ("trunks", "trunk_capture", "behind_kamailio", "rtpengine", "gcm", "srtp")
        return [f"tests/e2e/test_{name}.py" for name in names]


PROOFS: Final[dict[str, LongProof]] = {
    "null": Null(),
    "null-halves": Halves(),
    "detector": Detector(),
    "wheel": Wheel(),
    "api": Api(),
    "steady": Steady(),
    "soak": Soak(),
    "faults": Faults(),
    "fuzz": Fuzz(),
    "browsers": Browsers(),
    "peers": Peers(),
}
