"""One outgoing call of a test phone: its script, step by step, and what is reported of it."""

from __future__ import annotations

import time
from collections import deque
from pathlib import Path
from typing import Any, Literal

import pjsua2 as pj

from gateway.phone.callback import guarded
from gateway.phone.phone_ear import SPAN_S, PhoneEar
from gateway.phone.phone_plan import CallPlan, EndedBy, PhoneOutcome, PhonePlan, ScriptStep, TurnReport
from gateway.phone.phone_wire import PhoneWires, WireEnd


class PhoneCall(pj.Call):  # type: ignore[misc]  # pjsua2 ships no types
    """pjsua2's callbacks run in its worker; all else runs in the phone's loop."""

    def __init__(
        self, phone: PhonePlan, wires: PhoneWires, account: pj.Account, plan: CallPlan, ear: PhoneEar
    ) -> None:
        super().__init__(account)
        self.phone, self.wires, self.plan, self.ear = phone, wires, plan, ear
        self.placed_at, self.placed_unix = time.monotonic(), time.time()
        self.dialled = False
        self.answered_at: float | None = None
        self.over = False
        self.ending = ""
        self.ended_by: EndedBy = "nobody"
        self.status, self.reason, self.codec, self.duration_s = 0, "", "", 0.0
        self.counts = dict.fromkeys(("packets", "packets_sent", "lost", "discarded"), 0)
        """of the streams that are over: a hold ends one and begins another"""
        self.jitter_ms = self.buffer_ms = 0.0
        self.end: WireEnd | None = None
        self.left = deque(plan.steps)
        self.begun_at: float | None = None
        """when the first step of those left was begun"""
        self.listened_at = 0.0
        self.said: list[tuple[Literal["speech", "digits"], float]] = []
        self.ends: list[float] = []

    def dial(self) -> None:
        """Sends the INVITE."""
        plan = self.plan
        self.dialled = True
        self.placed_at, self.placed_unix = time.monotonic(), time.time()
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

    # ── what pjsua2 tells ────────────────────────────────────────────────────────────────────────────────

    @guarded
    def onCallState(self, _: Any) -> None:
        info = self.getInfo()
        if info.state == pj.PJSIP_INV_STATE_CONFIRMED and self.answered_at is None:
            self.answered_at = self.listened_at = time.monotonic()
            self.status = 200
        elif info.state == pj.PJSIP_INV_STATE_DISCONNECTED and not self.over:
            self.over = True
            self.ear.open = False
            if self.answered_at is None:
                self.status, self.reason = int(info.lastStatusCode), str(info.lastReason)
                self.ending = self.ending or f"{self.status} {self.reason}"
            else:
                self.duration_s = time.monotonic() - self.answered_at
                failed = int(info.lastStatusCode) >= 300
                if not self.ending and not failed:
                    self.ended_by = "them"
                self.ending = self.ending or (
                    f"failed: {info.lastStatusCode} {info.lastReason}" if failed else "they hung up"
                )

    @guarded
    def onCreateMediaTransport(self, prm: Any) -> None:
        self.end = self.wires.connect(int(prm.mediaTp), self.plan.line, self.plan.number)

    @guarded
    def onCallMediaState(self, _: Any) -> None:
        info = self.getInfo()
        for media in info.media:
            if media.type == pj.PJMEDIA_TYPE_AUDIO and media.status == pj.PJSUA_CALL_MEDIA_ACTIVE:
                self.codec = str(self.getStreamInfo(media.index).codecName)
                stream = self.getAudioMedia(-1)
                stream.startTransmit(self.ear)
                self.ear.startTransmit(stream)
                self.ear.open = True

    @guarded
    def onStreamDestroyed(self, prm: Any) -> None:
        # the last moment at which the stream's counters can be read, and before its transport may go
        if self.end is not None:
            self.end.close()
        stat = self.getStreamStat(int(prm.streamIdx))
        received = stat.rtcp.rxStat
        self.counts["packets"] += int(received.pkt)
        self.counts["packets_sent"] += int(stat.rtcp.txStat.pkt)
        self.counts["lost"] += int(received.loss)
        self.counts["discarded"] += int(received.discard)
        self.jitter_ms = received.jitterUsec.mean / 1000
        self.buffer_ms = float(stat.jbuf.avgDelayMsec)

    # ── the script ───────────────────────────────────────────────────────────────────────────────────────

    def our_turn(self, now: float) -> bool:
        """The other side has spoken since we last did, and is quiet; or it has been quiet for too long."""
        since = max(self.listened_at, self.ends[-1] if self.ends else 0.0)
        if self.ear.onset_after(since, now) is not None:
            return self.ear.silent_frames() * SPAN_S >= self.phone.pause_s
        return now - since >= self.phone.patience_s

    def go_on(self, now: float) -> None:
        """Does what is due; every 20 ms. Raises `pj.Error` and `OSError` when a step cannot be done."""
        if not self.dialled or self.over or self.ending:
            return
        if self.answered_at is None:
            if now - self.placed_at > self.phone.answer_s:
                self.give_up(f"no answer within {self.phone.answer_s:g} s")
            return
        if self.ear.speaking:
            return
        if len(self.ends) < len(self.said):
            self.ends.append(self.ear.last_loud_end if self.said[-1][0] == "speech" else now)
        limit_s = self.plan.duration_s if self.plan.duration_s is not None else self.phone.longest_s
        if now - self.answered_at >= limit_s:
            self.give_up("we hung up")
            return
        while self.left:
            if self.begun_at is None:
                self.begun_at = now
                self.begin(self.left[0], now)
            if self.ending or not self.is_done(self.left[0], now):
                return
            self.left.popleft()
            self.begun_at = None
        if self.plan.duration_s is None and self.plan.steps and self.our_turn(now):
            self.give_up("we hung up")

    def begin(self, step: ScriptStep, now: float) -> None:
        if step.verb == "say":
            self.ear.last_loud_end = now
            self.ear.say(Path(step.pcm).read_bytes())
            self.said.append(("speech", now))
        elif step.verb == "press":
            self.dialDtmf(step.digits)
            self.said.append(("digits", now))
        elif step.verb == "hold":
            self.setHold(pj.CallOpParam(True))
        elif step.verb == "hang up":
            self.give_up("we hung up")

    def is_done(self, step: ScriptStep, now: float) -> bool:
        """Whether it is; ends a hold."""
        since = now if self.begun_at is None else self.begun_at
        if step.verb in ("say", "press"):
            return len(self.ends) == len(self.said)
        if step.verb == "listen":
            if not self.our_turn(now):
                return False
            self.listened_at = now
            return True
        if step.verb == "interrupt":
            began = self.ear.voice_since(self.phone.pause_s)
            if began is not None and now - began >= step.seconds:
                return True
            return now - since >= step.seconds + self.phone.patience_s
        if step.verb == "at":
            return self.answered_at is not None and now - self.answered_at >= step.seconds
        if now - since < step.seconds:
            return False
        if step.verb == "hold":
            param = pj.CallOpParam(True)
            param.opt.flag = pj.PJSUA_CALL_UNHOLD
            self.reinvite(param)
            self.listened_at = now
            if self.end is not None:
                self.end.arrivals.pause()
        return True

    def give_up(self, how: str) -> None:
        self.ending = how
        if self.answered_at is not None:
            self.ended_by = "us"
        try:
            self.hangup(pj.CallOpParam(True))
        except pj.Error:  # pjsua2 has no such call any more
            self.over = True

    def report(self) -> PhoneOutcome:
        at = self.answered_at
        told: dict[str, Any] = {
            "status": self.status,
            "reason": self.reason,
            "answered": at is not None,
            "placed_at": self.placed_unix,
            "ended": self.ending,
            "ended_by": self.ended_by,
            **self.counts,
        }
        if at is None:
            return PhoneOutcome(**told)
        first = self.ear.loud.find(1)
        if self.end is not None:
            arrivals = self.end.arrivals
            told |= {"gaps": arrivals.holes, "longest_hole_s": arrivals.longest_s}
            told["packets_dropped"] = self.end.dropped
        return PhoneOutcome(
            **told,
            answered_after_s=at - self.placed_at,
            first_audio_s=max(0.0, self.ear.times[first] - at) if first >= 0 else None,
            codec=self.codec,
            duration_s=self.duration_s,
            turns=tuple(self._turns(at)),
            jitter_ms=self.jitter_ms,
            buffer_ms=self.buffer_ms,
        )

    def _turns(self, answered_at: float) -> list[TurnReport]:
        turns = []
        ends = self.ends + [time.monotonic()] * (len(self.said) - len(self.ends))
        for n, ((kind, start), end) in enumerate(zip(self.said, ends, strict=True)):
            before = self.said[n + 1][1] if n + 1 < len(self.said) else float("inf")
            onset = self.ear.onset_after(end, before)
            latency_s = None if onset is None else onset - end
            turns.append(TurnReport(kind, start - answered_at, end - answered_at, latency_s))
        return turns
