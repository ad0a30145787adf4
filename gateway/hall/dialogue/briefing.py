"""What the engine is told of a conversation before it begins; see the contract's `session.update`."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import Any, Final

from gateway.dialplan.disclosure import INTENT, Disclosure, asked_again
from gateway.dialplan.plan_facts import fill
from gateway.dialplan.verbs import Converse

DISCLOSE_AGAIN: Final = {
    "type": "function",
    "name": INTENT,
    "description": "Tells the caller in fixed words that this is a machine and for whom it speaks. Use it "
    "whenever the caller asks who or what they are talking to, and say nothing of it yourself.",
}
"""The house says it, not the engine."""


def briefing(
    verb: Converse, now: datetime, zone: str | None, disclosed: Disclosure | None, hold: str = ""
) -> dict[str, Any]:
    """The fields of `session.update` for `verb`. `zone`: the route's, if any.

    `disclosed`: what a caller hears again who asks whether this is a machine. `hold`: what an engine that
    needs a moment says.
    """
    house = () if disclosed is None else (DISCLOSE_AGAIN,)
    answers = () if disclosed is None else (asked_again(disclosed.language),)
    return {
        "instructions": fill(verb.instructions, verb.facts, now),
        "tools": [*({"type": "function", "name": name} for name in ("hang_up", "transfer")), *house],
        "answers": [*(asdict(reply) for reply in verb.answers), *answers],
        "facts": dict(verb.facts),
        "phrases": {
            "unsure": verb.unsure,
            "which": verb.which,
            "not_understood": list(verb.not_understood),
            "engine_lost": fill(verb.engine_lost, verb.facts, now),
            **({"hold": hold} if hold else {}),
        },
        **({"timezone": zone} if zone is not None else {}),
    }
