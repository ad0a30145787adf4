"""A whole gateway with a chat server: a telephone asks it something, is answered, and says goodbye."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gateway.cli.caller.testphone import place_call
from tests.e2e.gateway_process import House
from tests.model.cascade.chat_script import ChatScript, Script, chat_script, says

pytestmark = pytest.mark.e2e


@contextlib.contextmanager
def chat_server(*scripts: Script) -> Iterator[ChatScript]:
    """A scripted server in a thread of its own."""
    ready, over = threading.Event(), threading.Event()
    found: list[ChatScript] = []

    async def serve() -> None:
        async with chat_script(*scripts) as script:
            found.append(script)
            ready.set()
            await asyncio.to_thread(over.wait)

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    ready.wait()
    try:
        yield found[0]
    finally:
        over.set()
        thread.join()


@pytest.mark.long("a conversation in real time")
def test_a_caller_talks_with_a_chat_server(
    own_house: Callable[..., House], say: Callable[[str], Path]
) -> None:
    answers = (
        says("We are open **from nine to five**. Is there anything else?"),
        says("Goodbye, and thank you.", tools=[("hang_up", "{}")]),
    )
    with chat_server(*answers) as server:
        house = own_house(
            engine="cascade", llm_url=server.url, llm_model="m", llm_filler_s=9, llm_give_up_s=30
        )
        outcome = place_call(house.uri, script=[say("when are you open"), say("no thank you goodbye")])
        assert outcome.answered
        told = shown(house)
    assert "bot: We are open from nine to five. Is there anything else?" in told
    assert "bot: Goodbye, and thank you." in told
    assert "hung up" in told
    first, second = (asked.messages for asked in server.asked)
    assert [message["role"] for message in first] == ["system", "user", "assistant", "user"]
    assert "open" in first[-1]["content"].lower()
    assert second[-2] == {
        "role": "assistant", "content": "We are open from nine to five. Is there anything else?",
    }  # fmt: skip
    assert "bicycle" in first[0]["content"]
    words = first[-1]["content"]
    assert not [line for line in house.log_path.read_text().splitlines() if words in line]


def shown(house: House) -> str:
    """What `voicegate calls show` prints of the one call that there was, once it is over."""
    house.wait_for("the end of the call", lambda: ended(house))
    return calls(house, "show", ended(house)[0]["call_id"])


def ended(house: House) -> list[dict[str, str]]:
    return list(json.loads(calls(house, "--state", "ended", "--json"))["calls"])


def calls(house: House, *argv: str) -> str:
    command = [sys.executable, "-m", "gateway.cli", "calls", *argv]
    return subprocess.run(command, env=house.environ, capture_output=True, text=True, check=True).stdout
