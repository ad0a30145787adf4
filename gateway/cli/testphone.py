"""The test phone: calls that follow a script, for operators (`voicegate call`), tests and benches.

`place_call` and `place_calls`. The calls themselves run in processes of their own (`gateway.line.phone`), up
to four in each; this side makes sounds and plans of scripts, and reports of what the processes say.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Final

import numpy as np
import soxr

from gateway.cli.call_reports import CallReport
from gateway.cli.call_script import CallerAct, in_turn
from gateway.cli.caller_sound import (
    SPOKEN_HZ,
    active_level_db,
    background,
    check_writable,
    read_wav,
    spoken,
    write_wav,
)
from gateway.cli.doorbell import Doorbell, local_address
from gateway.errors import CallerError, RpcError
from gateway.ipc.codec import from_json, packed, to_json
from gateway.line.phone_plan import CODEC_IDS, CallPlan, PhoneOutcome, PhonePlan, ScriptStep, Verb
from gateway.line.rough_line import RoughLine
from watermark.detect import detect_recording
from watermark.errors import KeyFileError, SoundError
from watermark.keys import KeyRing
from watermark.pcm import Floats, bytes_from_float, float_from_bytes
from watermark.sound import Recording

CALLS_PER_PHONE: Final = 4
CODECS: Final = tuple(CODEC_IDS)


@dataclass(frozen=True, slots=True)
class Behind:
    """What is heard behind a caller: a wav file, or pink noise, `snr_db` below what the caller says."""

    snr_db: float
    sound: Path | None = None
    seed: int = 1


@dataclass(frozen=True, slots=True)
class CallRequest:
    """A call to place."""

    uri: str
    script: Sequence[Path | str | CallerAct] = ()
    """What is done, one after the other; wav files are said and digits (0-9, *, #, A-D) pressed in turn, that
    is when the other side is quiet (`in_turn`)."""
    record: Path | None = None
    """wav of what was heard, from the answer on: mono, 8 kHz, or 16 kHz with G.722; holds left out."""
    duration_s: float | None = None
    """Hang up this long after the answer; None: when everything is said and answered."""
    at_s: float | None = None
    """Say the first thing this long after the answer, whoever is speaking; None: in turn."""
    after_s: float = 0.0
    """Dial this long after the others that are placed with it."""
    user: str | None = None
    password: str | None = None
    caller: str = "voicegate"
    """User part of From, when there is no `user`."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Added to the INVITE."""
    sip_call_id: str = ""
    """SIP Call-ID to use; empty: a random one."""
    codec: str | None = None
    """One of `CODECS`, offered alone; None: PCMU and PCMA."""
    behind: Behind | None = None
    line: RoughLine = field(default_factory=RoughLine)
    mark_keys: Path | None = None
    """Keys by which the mark is sought in what was heard."""

    @property
    def rate_hz(self) -> int:
        """Of its sound."""
        return 16_000 if self.codec == "g722" else 8_000


def arrivals(request: CallRequest, count: int, over_s: float) -> list[CallRequest]:
    """So many calls like this one, of which one is dialled every `over_s / count`."""
    return [replace(request, after_s=request.after_s + over_s * n / count) for n in range(count)]


# ── plans ────────────────────────────────────────────────────────────────────────────────────────────────


class _Sounds:
    """The sounds of calls at one rate, each made once. Raises `CallerError` with the script's line."""

    def __init__(self, folder: Path, rate_hz: int) -> None:
        self._folder, self._rate_hz = folder, rate_hz
        self._said: dict[Path | str, tuple[str, Floats]] = {}
        self._behind: dict[tuple[Behind, float], str] = {}
        folder.mkdir()

    def said(self, act: CallerAct) -> tuple[str, Floats]:
        """(file, sound) of what is said."""
        key = act.sound or act.words
        if key not in self._said:
            try:
                raw = self._made(act)
            except CallerError as error:
                raise CallerError(f"{act.where}: {error}" if act.where else str(error)) from None
            self._said[key] = self._keep(raw), float_from_bytes(raw)
        return self._said[key]

    def behind(self, asked: Behind | None, said: list[Floats]) -> str:
        """The file of what is behind a caller who says that; empty: nothing."""
        if asked is None:
            return ""
        level_db = active_level_db(said, self._rate_hz)
        if (asked, level_db) not in self._behind:
            noise = background(asked.sound, asked.snr_db, level_db, asked.seed, self._rate_hz)
            self._behind[asked, level_db] = self._keep(bytes_from_float(noise))
        return self._behind[asked, level_db]

    def _made(self, act: CallerAct) -> bytes:
        if act.sound is not None:
            return read_wav(act.sound, self._rate_hz).tobytes()
        sound = spoken(act.words)
        if self._rate_hz != SPOKEN_HZ:
            sound = np.asarray(soxr.resample(sound, SPOKEN_HZ, self._rate_hz), np.float32)
        return bytes_from_float(sound)

    def _keep(self, raw: bytes) -> str:
        path = self._folder / f"sound-{len(self._said) + len(self._behind)}"
        path.write_bytes(raw)
        return str(path)


def _plan(request: CallRequest, sounds: _Sounds, number: int, record: Path, due_s: float) -> CallPlan:
    """Raises `CallerError`."""
    acts = list(in_turn(request.script))
    if acts and request.at_s is not None:
        first = CallerAct("at", seconds=request.at_s)
        acts[:1] = [first] if acts[0].act == "listen" else [first, acts[0]]
    steps, said = [], []
    for act in acts:
        if act.act in ("play", "say"):
            path, sound = sounds.said(act)
            steps.append(ScriptStep("say", path))
            said.append(sound)
        else:
            verb: Verb = act.act  # type: ignore[assignment]  # all but the two above
            steps.append(ScriptStep(verb, digits=act.keys, seconds=act.seconds))
    return CallPlan(
        uri=request.uri,
        steps=tuple(steps),
        record=str(record),
        duration_s=request.duration_s,
        user=request.user or "",
        password=request.password or "",
        caller=request.caller,
        headers=dict(request.headers),
        sip_call_id=request.sip_call_id,
        after_s=request.after_s - due_s,
        background=sounds.behind(request.behind, said),
        line=request.line,
        number=number,
    )


# ── phones ───────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class _Group:
    """The calls of one phone process, by their place among all."""

    requests: Mapping[int, CallRequest]
    folder: Path

    @property
    def first(self) -> CallRequest:
        return next(iter(self.requests.values()))

    @property
    def due_s(self) -> float:
        """When its first call is dialled."""
        return min(request.after_s for request in self.requests.values())

    def plan(self, sounds: _Sounds) -> PhonePlan:
        """Raises `CallerError`."""
        first = self.first
        offered = tuple(known for known in CODEC_IDS if first.codec in (None, known))
        return PhonePlan(
            calls=tuple(
                _plan(request, sounds, number, self.folder / f"heard-{number}", self.due_s)
                for number, request in self.requests.items()
            ),
            rate_hz=first.rate_hz,
            codecs=offered if first.codec else ("pcmu", "pcma"),
            address=local_address(first.uri),
        )


def _groups(requests: Sequence[CallRequest], folder: Path) -> list[_Group]:
    """Calls that begin one after the other share a phone, unless they have other codecs."""
    groups: list[_Group] = []
    by_time = sorted(enumerate(requests), key=lambda one: one[1].after_s)
    for codec in dict.fromkeys(request.codec for request in requests):
        alike = [(number, request) for number, request in by_time if request.codec == codec]
        for at in range(0, len(alike), CALLS_PER_PHONE):
            own = folder / f"phone-{len(groups)}"
            own.mkdir()
            groups.append(_Group(dict(alike[at : at + CALLS_PER_PHONE]), own))
    return groups


def _start(plan: PhonePlan) -> subprocess.Popen[bytes]:
    phone = subprocess.Popen(
        [sys.executable, "-m", "gateway.line.phone"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert phone.stdin is not None  # noqa: S101  # for mypy: stdin=PIPE above
    phone.stdin.write(packed(to_json(PhonePlan, plan)))
    phone.stdin.close()
    return phone


def _outcomes(phone: subprocess.Popen[bytes], said: bytes) -> list[PhoneOutcome]:
    if phone.wait() or not said:
        raise CallerError(f"the phone's process died with status {phone.returncode}")
    answer = json.loads(said)
    if "error" in answer:
        raise CallerError(f"the phone cannot start: {answer['error']}")
    try:
        return [from_json(PhoneOutcome, outcome, "the phone's report") for outcome in answer["outcomes"]]
    except RpcError as error:
        raise CallerError(str(error)) from None


def _report(request: CallRequest, outcome: PhoneOutcome, heard: Path) -> CallReport:
    report = CallReport(
        **{each.name: getattr(outcome, each.name) for each in fields(PhoneOutcome)}, uri=request.uri
    )
    if not report.answered:
        return report
    sound = heard.read_bytes()
    heard.unlink()  # an hour of calls is a lot of sound
    if request.record is not None:
        write_wav(request.record, sound, request.rate_hz)
        report = replace(report, record=str(request.record))
    if request.mark_keys is not None:
        marked, payload = _mark(sound, request.rate_hz, request.mark_keys)
        report = replace(report, marked=marked, payload=payload)
    return report


def _keys(path: Path) -> KeyRing:
    try:
        return KeyRing.load(path)
    except KeyFileError as error:
        raise CallerError(str(error)) from None


def _mark(sound: bytes, rate_hz: int, keys: Path) -> tuple[bool, str | None]:
    """Whether the keys find their mark in a call's sound, and what it says."""
    try:
        found = detect_recording(Recording(float_from_bytes(sound)[np.newaxis], rate_hz), _keys(keys))
    except SoundError:  # too short to tell
        return False, None
    return found.detected, None if found.payload is None else f"{found.payload:016x}"


class _Phones:
    """The processes that run now; when one fails, all are ended."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[bytes]] = set()
        self._over = threading.Event()

    def call(self, group: _Group, plan: PhonePlan) -> dict[int, CallReport]:
        """Waits until the group is due, then until its calls are over; their reports by their number."""
        if self._over.wait(group.due_s):
            return {}
        with self._lock:
            if self._over.is_set():
                return {}
            bell, phone = Doorbell(group.first.uri), _start(plan)
            self._running.add(phone)
        try:
            outcomes = _outcomes(phone, bell.wait_for(phone))
        finally:
            bell.close()
            with self._lock:
                self._running.discard(phone)
                _end(phone)
        return {
            number: _report(request, outcome, group.folder / f"heard-{number}")
            for (number, request), outcome in zip(group.requests.items(), outcomes, strict=True)
        }

    def stop(self) -> None:
        """Ends those that run, and lets none begin."""
        self._over.set()
        with self._lock:
            for phone in self._running:
                _end(phone)


def _end(phone: subprocess.Popen[bytes]) -> None:
    if phone.poll() is None:
        phone.kill()
        phone.wait()


def place_calls(
    requests: Sequence[CallRequest],
    *,
    codec: str | None = None,
    told: Callable[[CallReport], None] | None = None,
) -> list[CallReport]:
    """Places all calls, each when it is due (`after_s`), and waits until they are over.

    `codec` is for those requests that name none. `told` is told of each call once its phone is done.
    Blocking; use a thread beside asyncio. Raises `CallerError` for what cannot be tried, before anybody is
    called where that can be known; a call that is refused is a report, no error.
    """
    if codec is not None:
        requests = [request if request.codec else replace(request, codec=codec) for request in requests]
        _check_codec(codec)
    for request in requests:
        if request.codec is not None:
            _check_codec(request.codec)
        if request.record is not None:
            check_writable(request.record)
        if request.mark_keys is not None:
            _keys(request.mark_keys)
    reports: dict[int, CallReport] = {}
    with tempfile.TemporaryDirectory(prefix="voicegate-call-") as name:
        groups = _groups(requests, Path(name))
        sounds = {
            rate_hz: _Sounds(Path(name, f"{rate_hz}"), rate_hz)
            for rate_hz in {request.rate_hz for request in requests}
        }
        plans = [group.plan(sounds[group.first.rate_hz]) for group in groups]
        phones = _Phones()
        with ThreadPoolExecutor(max(1, len(groups)), thread_name_prefix="phone") as pool:
            waiting = [pool.submit(phones.call, *one) for one in zip(groups, plans, strict=True)]
            try:
                for done in as_completed(waiting):
                    reports |= done.result()
                    if told is not None:
                        for report in done.result().values():
                            told(report)
            finally:
                phones.stop()
    return [reports[number] for number in range(len(requests))]


def _check_codec(codec: str) -> None:
    if codec not in CODECS:
        raise CallerError(f"{codec!r} is not a codec of the phone: {', '.join(CODECS)}")


def place_call(
    uri: str,
    *,
    script: Sequence[Path | str | CallerAct] = (),
    record: Path | None = None,
    duration_s: float | None = None,
    user: str | None = None,
    password: str | None = None,
    codec: str | None = None,
    at_s: float | None = None,
) -> CallReport:
    """Places one call and waits until it is over; see `CallRequest` and `place_calls`."""
    request = CallRequest(uri, script, record, duration_s, at_s, user=user, password=password, codec=codec)
    return place_calls([request])[0]
