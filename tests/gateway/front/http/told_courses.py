"""Courses of calls as the front tells them, for tests of the page of one call."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path
from typing import Any

from gateway.store.call_cause import judged
from gateway.store.sound_track import FLAGS

Course = dict[str, Any]
KEPT = json.loads((Path(__file__).parents[2] / "store" / "kept_calls.json").read_text())
BEGAN = 1_700_000_000.0
INVITE = (
    "INVITE sip:demo@example.com SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bK1\r\n"
    "From: <sip:caller@example.com>;tag=1\r\nTo: <sip:demo@example.com>\r\nCall-ID: a@192.0.2.1\r\n"
    "CSeq: 1 INVITE\r\nAuthorization: (blanked)\r\n\r\nv=0\r\na=crypto:1 (blanked)\r\n"
)


def course_of(
    call: dict[str, Any],
    *,
    ladder: list[dict[str, Any]] | None = None,
    log: list[dict[str, Any]] | None = None,
    sound: dict[str, Any] | None = None,
) -> Course:
    """The course of a call that is told so."""
    track = sound or {"step_s": 0.1, "flag_names": dict(FLAGS), "parts": [], "ended_early": False}
    told = {"call": call, **judged(call), "sound": track}
    return {**told, "ladder": ladder or [], "log": log or []}


def kept_call(name: str = "asked", call_id: str = "c1") -> dict[str, Any]:
    """A call that was placed to a gateway once."""
    told = copy.deepcopy({**KEPT[name]["facts"], "events": KEPT[name]["events"]})
    return {**told, "call_id": call_id, "plan": "1a2b3c4d", "dialplan": "10-demo.toml"}


def sound_of(seconds: float, turns: list[dict[str, Any]]) -> dict[str, Any]:
    """The levels of a call whose turns are these: each loud while somebody speaks."""
    steps = round(seconds * 10)
    caller, voice, flags = [-58] * steps, [-96] * steps, [0] * steps
    for turn in turns:
        data = turn["data"]
        is_caller = data["who"] == "caller"
        length = data.get("duration_s" if is_caller else "heard_s", 1.0)
        first = max(0, round((turn["at"] - BEGAN) * 10))
        for n in range(first, min(steps, first + round(length * 10))):
            (caller if is_caller else voice)[n] = round(-22 + 7 * math.sin(n * 1.3))
            flags[n] |= FLAGS["speech"] if is_caller else FLAGS["playing"]
    part = {"began_at": BEGAN, "caller": caller, "voice": voice, "flags": flags}
    return {"step_s": 0.1, "flag_names": dict(FLAGS), "parts": [part], "ended_early": False}


def message(at: float, sender: str, to: str, first: str, text: str = "") -> dict[str, Any]:
    """A message of the ladder."""
    return {"at": at, "from": sender, "to": to, "protocol": "udp", "first": first, "text": text or first}


def line(at: float, event: str, level: str = "info", **fields: Any) -> dict[str, Any]:
    """A line of the log."""
    return {"at": at, "process": "hall0", "level": level, "event": event, "fields": fields}


def whole_course(call: dict[str, Any] | None = None) -> Course:
    """A call with all that can be known of it."""
    call = call or kept_call()
    turns = [one for one in call["events"] if one["kind"] == "turn"]
    ladder = [
        message(BEGAN - 0.02, "caller", "us", "INVITE sip:demo@example.com SIP/2.0", INVITE),
        message(BEGAN - 0.01, "us", "caller", "SIP/2.0 100 Trying"),
        message(BEGAN + 0.07, "us", "caller", "SIP/2.0 200 OK"),
        message(BEGAN + 0.09, "caller", "us", "ACK sip:demo@example.com SIP/2.0"),
        message(BEGAN + 24.0, "caller", "us", "BYE sip:demo@example.com SIP/2.0"),
        message(BEGAN + 24.01, "us", "caller", "SIP/2.0 200 OK"),
    ]
    log = [
        line(BEGAN, "call.offered", caller="sip:caller@example.com"),
        line(BEGAN + 0.07, "call.answered", codec="PCMU"),
        line(BEGAN + 12.8, "turn.answered", whole_ms=457.1),
        line(BEGAN + 24.02, "call.ended", how="caller hung up"),
    ]
    return course_of(call, ladder=ladder, log=log, sound=sound_of(24.0, turns))


def long_course(seconds: float = 3600.0, events: int = 2000) -> Course:
    """An hour with many turns."""
    call = kept_call()
    ended = BEGAN + seconds
    call["events"] = [one for one in call["events"] if one["at"] < BEGAN + 1]
    every = seconds / events
    for n in range(events):
        at = BEGAN + 2 + n * every
        who = {"who": "caller", "text": f"question {n}", "duration_s": every / 2}
        bot = {
            "who": "bot",
            "text": f"answer {n}",
            "heard_s": every / 2,
            "latency_ms": {"engine": 200.0, "whole": 400.0},
        }
        call["events"].append({"at": round(at, 3), "kind": "turn", "data": bot if n % 2 else who})
    call["events"].append({"at": ended, "kind": "ended", "data": {"how": "caller hung up"}})
    call["ended_at"] = ended
    turns = [one for one in call["events"] if one["kind"] == "turn"]
    return course_of(call, sound=sound_of(seconds, turns), log=[line(BEGAN + n, "tick") for n in range(200)])
