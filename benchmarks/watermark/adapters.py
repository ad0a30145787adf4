"""Marks that are compared: ours, and others by their own programs.

Who adds one writes a class with `SpeechMark`'s three methods and names it in `marks`, as
docs/watermark-benchmark.md says. A mark that cannot be had here says in the table why, and what to do.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np

from benchmarks.watermark.host_speech import RATE_HZ
from benchmarks.watermark.hosts import HostSpeech
from watermark import sound
from watermark.detect import detect
from watermark.keys import BOTH_LAYERS, CARRIER_ALONE, MarkKey
from watermark.mark import HOP, MarkerBank

GATEWAY: Final = 0xBE9C
REGISTRY: Final = 100_000
ROOT: Final = Path(__file__).parents[2]


@dataclass(frozen=True)
class Look:
    """What a detector said: `how` it was asked (`verify`, `blind`, `among` the registry's calls); `found`:
    whether it says that the recording is marked, or names the call where it was asked `among`; `wrong`:
    whether it names a call that it is not. `score` is the detector's own."""

    how: str
    found: bool
    score: float
    cpu_s: float
    wrong: bool = False
    by: str | None = None


class SpeechMark(Protocol):
    """What is compared: something that marks speech, and its detector."""

    @property
    def name(self) -> str:
        """What the table calls it."""

    @property
    def lengths_s(self) -> tuple[int, ...]:
        """How long the recordings are that are examined, in s."""

    def missing(self) -> str | None:
        """Why it cannot be tried here and what to do, or None."""

    def marked(self, host: HostSpeech) -> np.ndarray:
        """The host's speech with the mark, float32 `(n,)` at 24 kHz."""

    def looks(self, host: HostSpeech, samples: np.ndarray, rate_hz: int, among: bool) -> Iterator[Look]:
        """What its detector says about a recording of the beginning of `host`."""


@dataclass(frozen=True)
class Ours:
    """Our mark with one key. `depth_db` of the envelope layer, or None: the carrier alone, as old keys.
    Verification does not know where in 15 minutes the recording begins."""

    name: str
    depth_db: float | None
    lengths_s: tuple[int, ...]

    @cached_property
    def key(self) -> MarkKey:
        secret = bytes(range(32))
        if self.depth_db is None:
            return MarkKey("wm-be9c", GATEWAY, secret, CARRIER_ALONE)
        return MarkKey("wm-be9c", GATEWAY, secret, BOTH_LAYERS, self.depth_db)

    def missing(self) -> str | None:
        return None

    def call(self, host: HostSpeech) -> tuple[int, int]:
        """The payload of the host's call, and the hop at which the host begins."""
        rng = np.random.default_rng([14, host.number, *host.voice.encode()])
        return GATEWAY << 48 | int(rng.integers(1 << 48)), int(rng.integers(90_000))

    def marked(self, host: HostSpeech) -> np.ndarray:
        payload, hop = self.call(host)
        bank = MarkerBank(self.key, RATE_HZ)
        slots = np.array([bank.open(payload)], np.intp)
        bank.rest(slots, hop)
        speech = host.speech[None, : len(host.speech) // HOP * HOP]
        out = np.empty_like(speech)
        bank.mark_whole(slots, speech, out)
        return np.asarray(out[0])

    def looks(self, host: HostSpeech, samples: np.ndarray, rate_hz: int, among: bool) -> Iterator[Look]:
        payload, hop = self.call(host)
        window = (max(0.0, hop / 100 - 450), hop / 100 + 450)
        asked: list[tuple[str, dict[str, Any]]] = [
            ("verify", {"payloads": [payload], "call_s": window}),
            ("blind", {}),
        ]
        if among:
            others = np.random.default_rng(21).integers(1 << 48, size=REGISTRY - 1).tolist()
            asked.append(("among", {"payloads": [*(GATEWAY << 48 | each for each in others), payload]}))
        for how, given in asked:
            began = time.process_time()
            said = detect(samples, rate_hz, [self.key], **given)
            cpu_s = time.process_time() - began
            found = said.detected and (how != "among" or said.payload == payload)
            wrong = said.detected and said.payload not in (None, payload)
            yield Look(how, found, said.score, cpu_s, wrong, said.layer)


@dataclass
class OtherPython:
    """A mark that another Python holds: `worker` is a module of this room, spoken to by lines of JSON."""

    name: str
    variable: str
    worker: str
    remedy: str
    lengths_s: tuple[int, ...] = (10, 20)
    _process: subprocess.Popen[str] | None = field(default=None, repr=False)
    _folder: tempfile.TemporaryDirectory[str] | None = field(default=None, repr=False)

    def missing(self) -> str | None:
        if os.environ.get(self.variable):
            return None
        return f"{self.name} is not tried: {self.remedy}, and name its Python in {self.variable}"

    def _asked(self, do: str, samples: np.ndarray, rate_hz: int) -> dict[str, Any]:
        if self._process is None:
            self._folder = tempfile.TemporaryDirectory()
            command = [
                os.environ[self.variable],
                "-m",
                f"benchmarks.watermark.{self.worker}",
                self._folder.name,
            ]
            self._process = subprocess.Popen(
                command, cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
            )
        if self._folder is None or self._process.stdin is None or self._process.stdout is None:
            raise RuntimeError("the worker was started without pipes")
        np.save(Path(self._folder.name, "in.npy"), np.asarray(samples, np.float32))
        self._process.stdin.write(json.dumps({"do": do, "rate_hz": rate_hz}) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.name}: its worker ended; what it wrote above says why")
        return dict(json.loads(line))

    def marked(self, host: HostSpeech) -> np.ndarray:
        self._asked("mark", host.speech, RATE_HZ)
        return np.asarray(np.load(Path(self._folder.name if self._folder else "", "out.npy")), np.float32)

    def looks(self, host: HostSpeech, samples: np.ndarray, rate_hz: int, among: bool) -> Iterator[Look]:
        said = self._asked("look", samples, rate_hz)
        yield Look("blind", said["score"] > 0.5, said["score"], said["cpu_s"])


@dataclass
class AudioWmark:
    """Stefan Westerfeld's (GPL): a keyed message of 128 bits, found when it is read exactly."""

    name: str = "audiowmark"
    lengths_s: tuple[int, ...] = (10, 20)
    message: str = "0123456789abcdef0011223344556677"

    def missing(self) -> str | None:
        if shutil.which("audiowmark"):
            return None
        return "audiowmark is not tried: build it (github.com/swesterfeld/audiowmark) and put it on the PATH"

    @cached_property
    def _folder(self) -> Path:
        self._kept = tempfile.TemporaryDirectory()
        subprocess.run(["audiowmark", "gen-key", f"{self._kept.name}/key"], check=True, capture_output=True)
        return Path(self._kept.name)

    def _run(self, *arguments: str | Path) -> str:
        folder = self._folder
        command = ["audiowmark", arguments[0], "--key", folder / "key", *arguments[1:]]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout

    def marked(self, host: HostSpeech) -> np.ndarray:
        sound.write(self._folder / "in.wav", host.speech, RATE_HZ)
        self._run("add", self._folder / "in.wav", self._folder / "out.wav", self.message)
        return np.asarray(sound.read(self._folder / "out.wav").channels[0], np.float32)

    def looks(self, host: HostSpeech, samples: np.ndarray, rate_hz: int, among: bool) -> Iterator[Look]:
        sound.write(self._folder / "look.wav", samples, rate_hz)
        began = os.times()
        found = self.message in self._run("get", self._folder / "look.wav")
        ended = os.times()
        cpu_s = ended.children_user + ended.children_system - began.children_user - began.children_system
        yield Look("blind", found, float(found), cpu_s)


def marks() -> list[SpeechMark]:
    """All that are compared, ours first."""
    return [
        Ours("both layers, 2 dB", 2.0, (10, 20)),
        Ours("carrier alone", None, (10, 20)),
        Ours("both layers, 1.5 dB", 1.5, (16, 30)),
        OtherPython(
            "resemble-perth",
            "VOICEGATE_PERTH_PYTHON",
            "resemble_perth",
            "make an environment that has resemble-perth and torchaudio",
        ),
        OtherPython(
            "AudioSeal",
            "VOICEGATE_AUDIOSEAL_PYTHON",
            "audioseal_worker",
            "make an environment that has audioseal and soxr; its weights come from Hugging Face",
        ),
        AudioWmark(),
    ]
