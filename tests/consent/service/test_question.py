"""A question to the office, as it arrives."""

from __future__ import annotations

import json

from consent.service.front_questions import NoteUsage
from consent.service.question import understood


def test_no_text_of_a_question_stays_in_the_process() -> None:
    """pydantic would keep the last 16,384 short ones, a caller's PIN among them."""
    body = json.dumps({"jti": "a-jti", "call_id": "a-call", "seconds": 1.0, "dialplan": "a-plan"}).encode()
    first, second = (understood(NoteUsage, body, []) for _ in range(2))
    assert first == second
    for name in ("jti", "call_id", "dialplan"):
        assert getattr(first, name) is not getattr(second, name), "both would be the text that is kept"
