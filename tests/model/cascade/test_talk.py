"""A caller talks with a chat server: who says what in which role, in what order, and how much of it stays."""

from __future__ import annotations

from tests.model.cascade.chat_script import says
from tests.model.cascade.conftest import calling


async def test_a_question_is_answered_in_the_servers_words() -> None:
    async with calling(says("We open at nine. Anything else?")) as caller:
        got = await caller.asks("when do you open")
        assert got.text == "We open at nine. Anything else?"
        assert got.seconds == 1.5
        (asked,) = caller.script.asked
        assert asked.path == "/v1/chat/completions"
        assert [message["role"] for message in asked.messages] == ["system", "user"]
        assert asked.messages[1]["content"] == "when do you open"
