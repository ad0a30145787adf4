"""Who calls in a soak, what they dial, and when: the callers of `benchmarks.soak`."""

from __future__ import annotations

from typing import Any, Final

from gateway.cli.caller.call_request import Behind, CallRequest
from gateway.cli.caller.call_script import CallerAct
from gateway.phone.rough_line import RoughLine
from tests.e2e.gateway_process import House

MEAN_S: Final = 8.0
"""About what a call takes."""
WAVE: Final = 16
"""Calls that come one after the other; when the last one is over, the house is read."""
CROWD: Final = 24
"""Those of the first waves, which come as much closer: what a house keeps for as many calls as it had at a
time, it has by then."""
CROWDED: Final = 2

DIALPLAN: Final = """
[[route]]
name = "soak"
called = ["soak"]
voice = "heart"
language = "en"
purpose = "support"
keep = { transcript = true, caller_audio = true }
[[route.do]]
verb = "answer"
[[route.do]]
verb = "disclose"
principal = "Lindens"
language = "en"
text = "What you say is written down."
[[route.do]]
verb = "converse"
instructions = "Answer."
greeting = "How can I help?"
[[route.do.answers]]
intent = "hours"
ask = ["what are your opening hours", "when are you open"]
say = "We are open on weekdays from nine to six."

[[route]]
name = "keys"
called = ["keys"]
voice = "heart"
language = "en"
purpose = "support"
[[route.do]]
verb = "answer"
[[route.do]]
verb = "disclose"
principal = "Lindens"
language = "en"
[[route.do]]
verb = "gather"
prompt = "Press one to leave a message."
branches = { 1 = "message" }
[[route.do]]
verb = "hangup"

[[route]]
name = "message"
voice = "heart"
language = "en"
purpose = "support"
[[route.do]]
verb = "answer"
[[route.do]]
verb = "disclose"
principal = "Lindens"
language = "en"
[[route.do]]
verb = "record"
announce = "This is recorded."
max_s = 6.0
silence_s = 1.5
[[route.do]]
verb = "hangup"
say = "Thank you. Goodbye."
"""

LEAVES_MESSAGE: Final = "sip:keys@"
"""How the address begins that leads to a message."""
ASK: Final = CallerAct("say", words="what are your opening hours")
LISTEN, OVER, LEAVE = CallerAct("listen"), CallerAct("interrupt", seconds=1.0), CallerAct("hang up")
ROUGH: Final = RoughLine(loss_percent=5, jitter_ms=40, reorder_percent=2)

CALLERS: Final[tuple[dict[str, Any], ...]] = (
    {"dials": "soak", "script": (LISTEN, ASK, LISTEN, LEAVE)},
    {"dials": "soak", "script": (CallerAct("wait", seconds=1.0), LEAVE), "codec": "pcma"},
    {"dials": "keys", "script": (LISTEN, CallerAct("press", keys="1"), LISTEN, ASK, LISTEN), "line": ROUGH},
    {"dials": "soak", "script": (CallerAct("wait", seconds=0.5), LEAVE), "codec": "g722"},
    {
        "dials": "soak",
        "script": (LISTEN, ASK, OVER, ASK, CallerAct("interrupt", seconds=0.5), LEAVE),
        "codec": "g722",
    },
    {"dials": "soak", "script": (CallerAct("hold", seconds=1.5), LISTEN, LEAVE), "behind": Behind(15.0)},
    {"dials": "soak", "script": (CallerAct("wait", seconds=0.2), LEAVE), "line": ROUGH},
    {"dials": "nobody", "script": ()},
)
"""Who calls, one after the other; the last one has a wrong number. Whoever says something waits until the
answer has begun, so each thing that is said can be answered: a question, a key, a message (by the thanks)."""


def wave(house: House, at_once: int, number: int) -> list[CallRequest]:
    """The calls of a wave, about `at_once` of them at a time; of the first waves, more."""
    calls = CROWD if number < CROWDED else WAVE
    made = []
    for at in range(calls):
        caller = dict(CALLERS[at % len(CALLERS)])
        uri = house.uri.replace("demo", caller.pop("dials"))
        made.append(CallRequest(uri, after_s=at * MEAN_S / at_once * WAVE / calls, **caller))
    return made
