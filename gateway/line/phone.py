"""The test phone's own process: up to four outgoing calls with pjsua2, one plan in, one report out.

    python -m gateway.line.phone < plan.json > report.json

`gateway.cli.testphone` is what people and tests use; it makes the plan and reads the report. The phone is a
process of its own, because pjsua2 allows one endpoint per process and must not live beside numpy.

The phone takes turns as a person does: a step begins when the other side has spoken and is silent, or has
been silent for too long. Everything is measured on the bridge's clock, as an ear would: after the jitter
buffer.
"""

from __future__ import annotations

import array
import gc
import json
import os
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import pjsua2 as pj

from gateway.errors import RpcError
from gateway.ipc import codec
from gateway.ipc.poll_loop import Loop
from gateway.line.bridge import FRAME_MS, PcmPort, check_frame_layout
from gateway.line.sipcall import guarded, reason_of

LOUD: Final = 300
"""Peak of a frame (of 32,768) from which it counts as sound: -41 dBFS, above a coded silence."""
ONSET_FRAMES: Final = 5
"""Frames of silence before a loud one, that it counts as a beginning: pauses inside words are shorter."""
SPAN_S: Final = FRAME_MS / 1000
Codec = Literal["pcmu", "pcma", "g722"]
CODEC_IDS: Final[dict[Codec, str]] = {"pcmu": "PCMU/8000/1", "pcma": "PCMA/8000/1", "g722": "G722/16000/1"}


@dataclass
class ScriptStep:
    """Something to do in the call: speak, or press keys."""

    pcm: str = ""
    """File of int16 mono at the plan's rate."""
    digits: str = ""
    at_s: float | None = None
    """Seconds after the answer; None: when it is our turn."""


@dataclass
class CallPlan:
    """One call to place."""

    uri: str
    steps: tuple[ScriptStep, ...] = ()
    record: str = ""
    """File for what was heard, int16 mono at the plan's rate."""
    duration_s: float | None = None
    """Hang up this long after the answer; None: when all is said and answered."""
    user: str = ""
    password: str = ""
    caller: str = "voicegate"
    headers: dict[str, str] = field(default_factory=dict)
    sip_call_id: str = ""
    after_s: float = 0.0
    """Dial so long after the phone has started."""


@dataclass
class PhonePlan:
    """What one phone process does."""

    calls: tuple[CallPlan, ...]
    rate_hz: int = 8000
    codecs: tuple[Codec, ...] = ("pcmu", "pcma")
    address: str = "127.0.0.1"
    """Local address to call from."""
    answer_s: float = 30.0
    """Longest wait for an answer."""
    pause_s: float = 0.7
    """Silence after which it is our turn."""
    patience_s: float = 4.0
    """Longest wait for the other side to say something."""
    longest_s: float = 120.0


@dataclass
class TurnReport:
    """One thing we said, and when it was answered."""

    kind: Literal["speech", "digits"]
    start_s: float
    end_s: float
    """End of our own sound, in seconds after the answer."""
    latency_s: float | None
    """From there to the first answering sound; None: nothing came before our next turn."""


@dataclass
class PhoneOutcome:
    """What became of a call. Times are seconds; after the answer unless said."""

    status: int = 0
    reason: str = ""
    answered: bool = False
    answered_after_s: float | None = None
    """From the INVITE to the 200 OK."""
    first_audio_s: float | None = None
    """From the 200 OK to the first sound."""
    codec: str = ""
    duration_s: float = 0.0
    ended: str = ""
    turns: list[TurnReport] = field(default_factory=list)
    packets: int = 0
    packets_sent: int = 0
    lost: int = 0
    discarded: int = 0
    jitter_ms: float = 0.0


def is_loud(pcm: bytes) -> bool:
    samples = array.array("h", pcm)
    return max(samples) >= LOUD or min(samples) <= -LOUD


class PhoneEar(PcmPort):
    """What a call hears and says, frame by frame; `loud[n]` and `times[n]` belong to the n-th 20 ms."""

    def __init__(self, name: str, rate_hz: int) -> None:
        super().__init__(name, rate_hz)
        self.heard = bytearray()
        self.loud = bytearray()
        self.times = array.array("d")
        self.open = False
        self.speech = b""
        self.spoken = 0
        self.last_loud_end = 0.0

    def say(self, pcm: bytes) -> None:
        self.spoken, self.speech = 0, pcm

    @property
    def speaking(self) -> bool:
        return self.spoken < len(self.speech)

    def pull(self) -> bytes | None:
        if not self.speaking:
            return None
        frame = self.speech[self.spoken : self.spoken + self.frame_bytes].ljust(self.frame_bytes, b"\0")
        self.spoken += self.frame_bytes
        if is_loud(frame):
            self.last_loud_end = time.monotonic() + SPAN_S
        return frame

    def push(self, pcm: bytes | None) -> None:
        if self.open:
            self.times.append(time.monotonic())
            self.loud.append(pcm is not None and is_loud(pcm))
            self.heard += pcm if pcm is not None else bytes(self.frame_bytes)

    def silent_frames(self) -> int:
        return len(self.loud) - 1 - self.loud.rfind(1)

    def onset_after(self, at: float, before: float) -> float | None:
        """When the first sound after `at` began; a sound that was already going on does not count."""
        quiet = 0
        for loud, when in zip(self.loud, self.times, strict=False):
            if loud and quiet >= ONSET_FRAMES and at <= when < before:
                return when
            quiet = 0 if loud else quiet + 1
        return None


class PhoneCall(pj.Call):  # type: ignore[misc]  # pjsua2 ships no types
    """One outgoing call and its script."""

    def __init__(self, phone: Softphone, account: pj.Account, plan: CallPlan, ear: PhoneEar) -> None:
        super().__init__(account)
        self.phone, self.plan, self.ear = phone, plan, ear
        self.outcome = PhoneOutcome()
        self.placed_at = time.monotonic()
        self.answered_at: float | None = None
        self.over = False
        self.ending = ""
        self.left = list(plan.steps)
        self.said: list[tuple[Literal["speech", "digits"], float]] = []
        self.ends: list[float] = []

    def dial(self) -> None:
        """Sends the INVITE; in the loop's thread."""
        plan = self.plan
        self.placed_at = time.monotonic()
        try:
            param = pj.CallOpParam(True)
            param.opt.audioCount, param.opt.videoCount = 1, 0
            param.opt.customCallId = plan.sip_call_id
            for name, value in plan.headers.items():
                header = pj.SipHeader()
                header.hName, header.hValue = name, value
                param.txOption.headers.append(header)
            self.makeCall(plan.uri, param)
        except pj.Error as error:
            self.over, self.ending = True, f"cannot call {plan.uri}: {error.reason}"

    @guarded
    def onCallState(self, _: Any) -> None:
        info = self.getInfo()
        if info.state == pj.PJSIP_INV_STATE_CONFIRMED and self.answered_at is None:
            self.answered_at = time.monotonic()
            self.outcome.answered = True
            self.outcome.answered_after_s = self.answered_at - self.placed_at
            self.outcome.status = 200
        elif info.state == pj.PJSIP_INV_STATE_DISCONNECTED and not self.over:
            self.over = True
            self.ear.open = False
            if self.answered_at is None:
                self.outcome.status, self.outcome.reason = int(info.lastStatusCode), str(info.lastReason)
                self.ending = self.ending or f"{self.outcome.status} {self.outcome.reason}"
            else:
                self.outcome.duration_s = time.monotonic() - self.answered_at
                failed = int(info.lastStatusCode) >= 300
                self.ending = self.ending or (
                    f"failed: {info.lastStatusCode} {info.lastReason}" if failed else "they hung up"
                )

    @guarded
    def onCallMediaState(self, _: Any) -> None:
        info = self.getInfo()
        for media in info.media:
            if media.type == pj.PJMEDIA_TYPE_AUDIO and media.status == pj.PJSUA_CALL_MEDIA_ACTIVE:
                self.outcome.codec = str(self.getStreamInfo(media.index).codecName)
                stream = self.getAudioMedia(-1)
                stream.startTransmit(self.ear)
                self.ear.startTransmit(stream)
                self.ear.open = True

    @guarded
    def onStreamDestroyed(self, prm: Any) -> None:
        # the last moment at which the stream's counters can be read
        rtcp = self.getStreamStat(int(prm.streamIdx)).rtcp
        self.outcome.packets, self.outcome.packets_sent = int(rtcp.rxStat.pkt), int(rtcp.txStat.pkt)
        self.outcome.lost, self.outcome.discarded = int(rtcp.rxStat.loss), int(rtcp.rxStat.discard)
        self.outcome.jitter_ms = rtcp.rxStat.jitterUsec.mean / 1000

    def our_turn(self, now: float) -> bool:
        assert self.answered_at is not None  # noqa: S101  # for mypy: `go_on` asks once the call is answered
        since = self.ends[-1] if self.ends else self.answered_at
        answered = self.ear.onset_after(since, now) is not None
        if answered:
            return self.ear.silent_frames() * SPAN_S >= self.phone.plan.pause_s
        return now - since >= self.phone.plan.patience_s

    def go_on(self, now: float) -> None:
        """Does what is due; every 20 ms, in the loop's thread."""
        if self.over or self.ending:
            return
        if self.answered_at is None:
            if now - self.placed_at > self.phone.plan.answer_s:
                self.give_up(f"no answer within {self.phone.plan.answer_s:g} s")
            return
        if self.ear.speaking:
            return
        if len(self.ends) < len(self.said):
            self.ends.append(self.ear.last_loud_end if self.said[-1][0] == "speech" else now)
        elapsed = now - self.answered_at
        limit_s = self.plan.duration_s if self.plan.duration_s is not None else self.phone.plan.longest_s
        if elapsed >= limit_s:
            self.give_up("we hung up")
        elif self.left:
            step = self.left[0]
            if elapsed >= step.at_s if step.at_s is not None else self.our_turn(now):
                self.begin(self.left.pop(0), now)
        elif self.plan.duration_s is None and self.plan.steps and self.our_turn(now):
            self.give_up("we hung up")

    def begin(self, step: ScriptStep, now: float) -> None:
        if step.pcm:
            self.ear.last_loud_end = now
            self.ear.say(Path(step.pcm).read_bytes())
            self.said.append(("speech", now))
        else:
            self.dialDtmf(step.digits)
            self.said.append(("digits", now))

    def give_up(self, how: str) -> None:
        self.ending = how
        try:
            self.hangup(pj.CallOpParam(True))
        except pj.Error:  # pjsua2 has no such call any more
            self.over = True

    def report(self) -> PhoneOutcome:
        outcome, at = self.outcome, self.answered_at
        outcome.ended = self.ending
        if at is None:
            return outcome
        first = self.ear.loud.find(1)
        outcome.first_audio_s = max(0.0, self.ear.times[first] - at) if first >= 0 else None
        ends = self.ends + [time.monotonic()] * (len(self.said) - len(self.ends))
        for n, ((kind, start), end) in enumerate(zip(self.said, ends, strict=True)):
            before = self.said[n + 1][1] if n + 1 < len(self.said) else float("inf")
            onset = self.ear.onset_after(end, before)
            latency_s = None if onset is None else onset - end
            outcome.turns.append(TurnReport(kind, start - at, end - at, latency_s))
        return outcome


class Softphone:
    """The process's endpoint and its calls."""

    def __init__(self, plan: PhonePlan) -> None:
        self.plan = plan
        self.loop = Loop()
        self.calls: list[PhoneCall] = []
        self._endpoint = pj.Endpoint()
        self._accounts: list[pj.Account] = []
        self._start_library()
        check_frame_layout()

    def _start_library(self) -> None:
        endpoint, plan = self._endpoint, self.plan
        endpoint.libCreate()
        config = pj.EpConfig()
        config.logConfig.level = config.logConfig.consoleLevel = 0
        agent, media = config.uaConfig, config.medConfig
        agent.maxCalls, agent.threadCnt, agent.mainThreadOnly = 4, 1, False
        agent.userAgent = "voicegate call"
        media.clockRate = media.sndClockRate = plan.rate_hz
        media.channelCount, media.quality, media.noVad, media.ecTailLen = 1, 8, True, 0
        media.audioFramePtime = media.ptime = FRAME_MS
        media.jbInit, media.jbMinPre, media.jbMaxPre, media.jbMax = 20, 20, 60, 200
        endpoint.libInit(config)
        endpoint.audDevManager().setNullDev()
        for known in endpoint.codecEnum2():
            endpoint.codecSetPriority(known.codecId, 0)
        for rank, name in enumerate(plan.codecs):
            endpoint.codecSetPriority(CODEC_IDS[name], 250 - rank)
        transport = pj.TransportConfig()
        transport.boundAddress = plan.address
        for kind in (pj.PJSIP_TRANSPORT_UDP, pj.PJSIP_TRANSPORT_TCP):
            endpoint.transportCreate(kind, transport)
        endpoint.libStart()

    def _account(self, plan: CallPlan) -> pj.Account:
        config = pj.AccountConfig()
        host = plan.uri.split("@")[-1].split(";")[0].split(":")[0].rstrip(">")
        config.idUri = f"sip:{plan.user or plan.caller}@{host}"
        if plan.user:
            config.sipConfig.authCreds.append(pj.AuthCredInfo("digest", "*", plan.user, 0, plan.password))
        config.mediaConfig.transportConfig.boundAddress = self.plan.address
        config.mediaConfig.transportConfig.port = 20000
        config.mediaConfig.transportConfig.portRange = 20000
        config.mediaConfig.transportConfig.randomizePort = True
        account = pj.Account()
        account.create(config)
        self._accounts.append(account)
        return account

    def run(self) -> list[PhoneOutcome]:
        ears = [PhoneEar(f"ear-{n}", self.plan.rate_hz) for n in range(len(self.plan.calls))]
        for plan, ear in zip(self.plan.calls, ears, strict=True):
            call = PhoneCall(self, self._account(plan), plan, ear)
            self.calls.append(call)
            self.loop.later(plan.after_s, call.dial)
        self._turn()
        self.loop.run()
        return [call.report() for call in self.calls]

    def _turn(self) -> None:
        now = time.monotonic()
        for call in self.calls:
            try:
                call.go_on(now)
            except (pj.Error, OSError) as error:
                call.give_up(f"failed: {reason_of(error)}")
        if all(call.over for call in self.calls):
            self.loop.later(0.1, self.loop.stop)
        else:
            self.loop.later(SPAN_S, self._turn)


def main() -> None:
    report = os.dup(1)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)  # pjlib chats there before it can be told not to
    gc.disable()  # a Call freed in the wrong thread hangs up somebody else's
    sys.setswitchinterval(0.0005)
    answer: dict[str, Any]
    try:
        phone = Softphone(codec.from_json(PhonePlan, codec.unpacked(sys.stdin.buffer.read()), "the plan"))
        answer = {"outcomes": [asdict(outcome) for outcome in phone.run()]}
        for call in phone.calls:
            if call.plan.record:
                Path(call.plan.record).write_bytes(call.ear.heard)
    except (RpcError, OSError) as error:
        answer = {"error": str(error)}
    except pj.Error as error:
        answer = {"error": reason_of(error)}
    with os.fdopen(report, "w") as file:
        json.dump(answer, file)
    os._exit(0)  # no pj object may outlive its library: no destructor runs


if __name__ == "__main__":
    main()
