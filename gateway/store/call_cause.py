"""Why a call was a bad one: its causes, the first first, by nothing but what is kept of it.

`causes` is a function of one call's JSON, as `CallRecord.to_json(events=True)`, the API and
`voicegate calls show --json` have it. A *fault* is what went wrong; a *symptom* is what a caller noticed.
A symptom that a fault explains is left out: who is not heard is asked whether he is still there, and that
is not why the call was bad. What a stranger wrote there is left out, too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

from gateway.ipc.ending import End
from gateway.store import cause_texts, sound_causes
from gateway.store.sound_causes import MUTE_S
from gateway.store.told_call import CallCause, Found, ToldCall, cause, finite

LATE_MS: Final = 3000.0
"""From the end of what the caller said to the first sound of the answer."""
AWAY_S: Final = 1.0
"""An engine that comes back sooner is not missed."""
WAITED_S: Final = 8.0
"""An engine that says nothing was waited for so long (`gateway.hall.dialogue.speech`)."""
CUTS: Final = 3
CUT_S: Final = 1.0
"""So many answers of which so little was heard before something cut them."""
RANG_S: Final = 10.0
MISHEARD: Final = 2
EXPLAINS_LATER_S: Final = 20.0
"""A fault may be noted this much later than what it did: an engine is waited for first."""


def causes(call: Mapping[str, Any]) -> list[CallCause]:
    """What was wrong with a call, the first cause first; empty: nothing was, as far as is known.

    `call`: its JSON, or `{"refused": …}` of a call that was not taken. Never raises for what it says.
    """
    refused = call.get("refused")
    if isinstance(refused, Mapping):
        return [_refused(refused)]
    told = ToldCall(call)
    found = [one for detect in DETECTORS for one in detect(told)]
    left = [one for one in found if not any(_explains(other, one) for other in found)]
    return sorted(left, key=lambda one: one.since)


def judged(call: Mapping[str, Any]) -> dict[str, Any]:
    """What was wrong with a call as programs are told it; the first cause is the first one."""
    told = [cause.to_json() for cause in causes(call)]
    return {"wrong": bool(told), "causes": told, "not_known": not_known(call)}


def not_known(call: Mapping[str, Any]) -> list[str]:
    """What nobody can say of a call, though somebody may ask."""
    told = ToldCall(call)
    missing = []
    if not told.events and "refused" not in call:
        missing.append("what happened in it: Redis has forgotten it, or does not answer")
    elif told.talk_s > MUTE_S and told.number("far_sent") is None and "refused" not in call:
        missing.append("whether our sound came to the caller: the caller's telephone reported nothing (RTCP)")
    return missing


def _explains(fault: CallCause, symptom: CallCause) -> bool:
    explained = SYMPTOMS.get(symptom.name)
    return (
        explained is not None and fault.name in explained and fault.since <= symptom.since + EXPLAINS_LATER_S
    )


SILENT_ENGINE: Final = frozenset(
    {"engine away", "engine lost", "engine busy", "engine refused", "answer late"}
)
DEAF: Final = frozenset({"no sound from the caller", "sound stopped", "poor sound from the caller"})
MUTED: Final = frozenset({"consent withdrawn", "mark not found"})
DEATHS: Final = frozenset({"line died", "hall died", "process taken over"})

SYMPTOMS: Final[Mapping[str, frozenset[str]]] = {
    "nothing heard": DEAF,
    "not understood": DEAF,
    "cut off": frozenset({"poor sound from the caller"}),
    "answer late": SILENT_ENGINE - {"answer late"} | DEATHS | MUTED,
    "no answer": SILENT_ENGINE | DEATHS | MUTED,
    "nothing said": SILENT_ENGINE | DEATHS | MUTED | {"no sound to the caller"},
    "hung up at once": DEAF | SILENT_ENGINE | DEATHS | MUTED | {"no sound to the caller", "nothing said"},
    "engine away": frozenset({"engine lost", "engine busy", "engine refused"}),
    "ended by us: voice": MUTED | {"consent refused"},
    "ended by us: engine": frozenset({"engine lost", "engine busy", "engine refused"}),
    "sound stopped": frozenset({"no sound from the caller"}),
    "underruns": DEATHS,
}
"""Which faults explain which symptoms."""


# ── before there was a sound ─────────────────────────────────────────────────────────────────────────────


def _refused(call: Mapping[str, Any]) -> CallCause:
    status, at = call.get("status"), finite(call.get("started_at")) or 0.0
    return CallCause(
        name="refused", since=at, at=at, event="call.refused",
        number=f"{status} {call.get('reason', '')}".strip(), what="the call was not taken",
        remedy=cause_texts.of_status(status if isinstance(status, int) else 0),
    )  # fmt: skip


def _given_up(told: ToldCall) -> Found:
    if told.how is not None and told.how.end is End.CANCELLED:
        yield cause("given up", told.until, "ended", f"{told.until - told.began:.1f} s after it came")


def _consent(told: ToldCall) -> Found:
    for at, data in told.of("opened"):
        if data.get("grant_refused"):
            yield cause("consent refused", at, "opened", str(data["grant_refused"]))
            return
    for at, data in told.of("voice_refused"):
        yield cause("consent refused", at, "voice_refused", str(data.get("reason", "")))
        return


def _muted(told: ToldCall) -> Found:
    for at, data in told.of("muted"):
        yield cause("consent withdrawn", at, "muted", str(data.get("reason", "")))
        return


def _mark(told: ToldCall) -> Found:
    for at, _ in told.of("mark_not_found"):
        yield cause("mark not found", at, "mark_not_found", f"{at - told.began:.1f} s after the call came")
        break
    failed = list(told.of("mark_failed"))
    if failed:
        error = failed[0][1].get("error", "")
        yield cause("not marked", failed[0][0], "mark_failed", f"{len(failed)} frames; {error}".rstrip("; "))


# ── sound ────────────────────────────────────────────────────────────────────────────────────────────────


# ── the conversation ─────────────────────────────────────────────────────────────────────────────────────


def _engine(told: ToldCall) -> Found:
    refused = next(told.of("engine_refused"), None)
    gone = [at for at, _ in told.of("engine_away")]
    if refused is not None:
        code = str(refused[1].get("code", ""))
        name = f"engine {code}" if code in ("lost", "busy") else "engine refused"
        since = refused[0]
        if name == "engine lost":
            since = gone[-1] if gone else max(told.began, since - WAITED_S)
        said = str(refused[1].get("message") or code)[:120]
        yield cause(name, since, "engine_refused", said, refused[0])
    for at in gone:
        back = next((then for then, _ in told.of("engine_back") if then >= at), None)
        away_s = (told.until if back is None else back) - at
        if away_s >= AWAY_S:
            yield cause("engine away", at, "engine_away", f"for {away_s:.1f} s")
            return


def _late(told: ToldCall) -> Found:
    turns = list(told.of("turn"))
    asked = [
        at + (finite(data.get("duration_s")) or 0.0) for at, data in turns if data.get("who") == "caller"
    ]
    for at, data in turns:
        stages = data.get("latency_ms")
        if data.get("who") == "caller":
            continue
        since = max((one for one in asked if one <= at), default=at)
        whole = finite(stages.get("whole")) if isinstance(stages, Mapping) else None
        if whole is not None and isinstance(stages, Mapping) and whole > LATE_MS:
            known = {str(k): ms for k, v in stages.items() if k != "whole" and (ms := finite(v)) is not None}
            stage = max(known, key=lambda one: known[one], default="whole")
            took = (
                f"{whole / 1000:.1f} s, of them {known.get(stage, whole) / 1000:.1f} s in the stage {stage}"
            )
            late = cause("answer late", since, "turn", took, at)
            yield replace(late, remedy=cause_texts.LATE.get(stage, late.remedy))
            return
        if whole is None and not finite(data.get("heard_s")) and told.until - since > LATE_MS / 1000:
            if data.get("interrupted") and at - since < LATE_MS / 1000:
                continue
            yield cause("no answer", since, "turn", f"nothing within {max(at, told.until) - since:.1f} s")
            return


def _misheard(told: ToldCall) -> Found:
    """Turns without words, where words of others are kept: the recogniser made nothing of them."""
    heard = [(at, bool(data.get("text"))) for at, data in told.of("turn") if data.get("who") == "caller"]
    wordless = [at for at, worded in heard if not worded]
    if MISHEARD <= len(wordless) < len(heard) and 2 * len(wordless) >= len(heard):
        yield cause("not understood", wordless[0], "turn", f"{len(wordless)} of {len(heard)} turns")


def _unspoken(told: ToldCall) -> Found:
    """Sound came, and nobody spoke in it as far as we heard."""
    silences = [at for at, _ in told.of("silence")]
    goodbyes = [at for at, data in told.of("goodbye") if data.get("why") == "silence"]
    spoke = any(data.get("who") == "caller" for _, data in told.of("turn"))
    if goodbyes or (len(silences) >= 2 and not spoke):
        packets = told.number("packets") or 0.0
        asked = f"asked {len(silences)} times; {packets:.0f} packets came"
        yield cause("nothing heard", (silences + goodbyes)[0], "silence", asked)


def _cut(told: ToldCall) -> Found:
    cuts = []
    for at, data in told.of("barge_in"):
        heard = data.get("heard_s")
        seconds = [s for s in map(finite, heard) if s is not None] if isinstance(heard, list) else []
        if seconds and max(seconds) < CUT_S:
            cuts.append((at, max(seconds)))
    if len(cuts) >= CUTS:
        echo = next(told.of("echo"), None)
        late = f"; our own voice comes back after {echo[1].get('delay_s')} s" if echo is not None else ""
        longest = max(seconds for _, seconds in cuts)
        yield cause(
            "cut off", cuts[0][0], "barge_in", f"{len(cuts)} times after {longest:.1f} s at most{late}"
        )


def _unsaid(told: ToldCall) -> Found:
    """The whole call long, none of our voice was sent."""
    if told.answered is None or told.ended is None or told.talk_s < MUTE_S or told.number("spoken_s") != 0:
        return
    if not told.has("disclosed", "played", "transfer", "recorded", "target_quality"):
        yield cause("nothing said", told.answered, "ended", f"0 s of our voice in {told.talk_s:.0f} s")


# ── what it was for, and its end ─────────────────────────────────────────────────────────────────────────


def _transfer(told: ToldCall) -> Found:
    for at, data in told.of("transfer_failed"):
        status, why = data.get("status"), data.get("why", "")
        remedy = cause_texts.of_target(status if isinstance(status, int) else 0)
        yield replace(
            cause("transfer failed", at, "transfer_failed", f"{status} {why}".strip()), remedy=remedy
        )
        return
    begun = [at for at, _ in told.of("transfer")]
    went = any(data.get("state") == "transferred" for _, data in told.of("state"))
    gone = told.how is not None and told.how.end is End.CALLER
    if begun and gone and not went and told.until - begun[-1] >= RANG_S:
        yield cause("transfer not answered", begun[-1], "transfer", f"for {told.until - begun[-1]:.0f} s")
    for at, data in told.of("transfer_refused"):
        yield cause("transfer refused", at, "transfer_refused", str(data.get("target", "")))
        return


def _not_kept(told: ToldCall) -> Found:
    for at, data in told.of("not_played"):
        yield cause("not played", at, "not_played", str(data.get("why", "")))
        return
    for at, data in told.of("recorded"):
        if data.get("error"):
            yield cause("not recorded", at, "recorded", str(data["error"]))
            return


def _taken_over(told: ToldCall) -> Found:
    lines = [at for at, _ in told.of("line")]
    if len(lines) > 1:
        yield cause("process taken over", lines[1], "line", f"{len(lines) - 1} times")


def _over(told: ToldCall) -> Found:
    """How it ended, where that alone says what was wrong."""
    if told.how is None or told.how.end is None:
        return
    name = cause_texts.OF_END.get(told.how.end)
    number = str(told.how) if told.answered is None else f"{told.how}, {told.talk_s:.1f} s after the answer"
    if name is not None:
        yield cause(name, told.until, "ended", number)
    elif told.how.end is End.CALLER and told.answered is not None and told.talk_s < MUTE_S:
        yield cause("hung up at once", told.until, "ended", number)
    for at, data in told.of("goodbye"):
        if data.get("why") == "time limit":
            yield cause("longest duration", at, "goodbye", f"{at - told.began:.0f} s after it came")


DETECTORS: Final[tuple[Callable[[ToldCall], Found], ...]] = (
    _given_up, _consent, _muted, _mark, sound_causes.deaf, sound_causes.stopped, sound_causes.unheard,
    sound_causes.poor, sound_causes.moved, _engine, _taken_over, _late, _misheard, _unspoken, _cut, _unsaid,
    _not_kept, _transfer, _over, sound_causes.underruns,
)  # fmt: skip
"""Of what began at the same time, the first one here is the first cause."""
