"""The test phone: calls that follow a script, for operators (`voicegate call`), tests and benches.

`place_call` and `place_calls`. The calls themselves run in processes of their own (`gateway.phone.phone`), up
to four in each; this side makes sounds and plans of scripts, and reports of what the processes say.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Final

import numpy as np

from gateway.cli.caller.call_reports import CallReport
from gateway.cli.caller.call_request import CODECS, CallerSounds, CallRequest, planned
from gateway.cli.caller.call_script import CallerAct
from gateway.cli.caller.caller_sound import check_writable, write_wav
from gateway.cli.caller.doorbell import Doorbell, local_address
from gateway.errors import CallerError, RpcError
from gateway.ipc.codec import from_json, packed, to_json
from gateway.phone.phone_plan import CODEC_IDS, PhoneOutcome, PhonePlan
from watermark.detect import detect_recording
from watermark.errors import KeyFileError, SoundError
from watermark.keys import KeyRing
from watermark.pcm import float_from_bytes
from watermark.sound import Recording

CALLS_PER_PHONE: Final = 4


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

    def plan(self, sounds: CallerSounds) -> PhonePlan:
        """Raises `CallerError`."""
        first, booth = self.first, self.first.booth
        return PhonePlan(
            calls=tuple(
                planned(request, sounds, number, self.folder / f"heard-{number}", self.due_s)
                for number, request in self.requests.items()
            ),
            rate_hz=first.rate_hz,
            codecs=tuple(known for known in CODEC_IDS if known == first.codec) or ("pcmu", "pcma"),
            address=local_address(first.uri),
            sound_address="" if booth is None else booth.sound_address,
            srtp="off" if booth is None else booth.srtp,
            takes_one_codec=booth is not None,
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
        [sys.executable, "-m", "gateway.phone.phone"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
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
        self._over = False

    def call(self, group: _Group, plan: PhonePlan) -> dict[int, CallReport]:
        """Waits until the group's calls are over; their reports by their number."""
        with self._lock:
            if self._over:
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
        with self._lock:
            self._over = True
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
    with tempfile.TemporaryDirectory(prefix="voicegate-call-") as name:
        groups = _groups(requests, Path(name))
        sounds = {
            rate_hz: CallerSounds(Path(name, f"{rate_hz}"), rate_hz)
            for rate_hz in {request.rate_hz for request in requests}
        }
        plans = [group.plan(sounds[group.first.rate_hz]) for group in groups]
        reports = _placed(list(zip(groups, plans, strict=True)), told)
    return [reports[number] for number in range(len(requests))]


def _placed(
    groups: Sequence[tuple[_Group, PhonePlan]], told: Callable[[CallReport], None] | None
) -> dict[int, CallReport]:
    """Has each group's phone call when it is due. Raises the first error, once all phones have ended."""
    reports: dict[int, CallReport] = {}
    waiting: set[Future[dict[int, CallReport]]] = set()
    phones, began = _Phones(), time.monotonic()

    def collect(within_s: float | None) -> None:
        done, _ = wait(waiting, within_s, FIRST_COMPLETED)
        waiting.difference_update(done)
        for one in done:
            reports.update(one.result())
            if told is not None:
                for report in one.result().values():
                    told(report)

    with ThreadPoolExecutor(max(1, len(groups)), thread_name_prefix="phone") as pool:
        try:
            for group, plan in sorted(groups, key=lambda one: one[0].due_s):
                while (left_s := began + group.due_s - time.monotonic()) > 0:
                    if waiting:
                        collect(left_s)
                    else:
                        time.sleep(left_s)
                waiting.add(pool.submit(phones.call, group, plan))
            while waiting:
                collect(None)
        finally:
            phones.stop()
    return reports


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
