"""A real model on a real server: SmolLM2 on llama.cpp's. What it says is of little use; that it says it, when
it stops and what it was told is what is tried here."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest

from model.api import HistoryItem, SessionConfig, Sound, Text
from model.cascade.chat_server import ChatServer
from model.cascade.chat_settings import ChatSettings
from model.cascade.talk import FAREWELL, CascadeConversation
from model.embedded.dialogue import FILLER
from tests.model.cascade.chat_script import ChatScript
from tests.model.cascade.conftest import TOOLS, Answered, Caller, EvenMouth, ToldEar
from tests.needs import HANGS_S, need_model, need_package

INSTRUCTIONS = "You answer the telephone of a bicycle workshop. It is open from nine to five."


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """Where the server listens; it answers."""
    need_package("xllamacpp")
    file = need_model("smollm2") / "smollm2.gguf"
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    argv = [sys.executable, "-m", "tests.model.cascade.small_model", str(file), str(port)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL) as server:
        try:
            until = time.monotonic() + HANGS_S
            while time.monotonic() < until:
                with contextlib.suppress(httpx.HTTPError):
                    if httpx.get(f"http://127.0.0.1:{port}/health", trust_env=False).status_code == 200:
                        break
                assert server.poll() is None, "the server did not start"
                time.sleep(0.1)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            server.kill()


@contextlib.asynccontextmanager
async def calling(url: str, **settings: Any) -> AsyncIterator[Caller]:
    """A caller of the real server, who has all the time that a busy machine takes."""
    given = {"tokens": 24, "context": 2048, "filler_s": HANGS_S / 2, "give_up_s": HANGS_S, **settings}
    server, ear, mouth = ChatServer(ChatSettings(url, "smollm2", **given)), ToldEar(), EvenMouth()
    conversation = CascadeConversation(server, mouth, ear.listen, "call-1")
    await conversation.configure(SessionConfig(instructions=INSTRUCTIONS, tools=TOOLS))
    try:
        yield Caller(ChatScript([]), server, conversation, ear, mouth)
    finally:
        await conversation.close()
        await server.close()


async def test_it_answers_and_knows_what_was_said_before(url: str) -> None:
    async with calling(url) as caller:
        for item in (
            HistoryItem("assistant", text="Hello. What is your name?"),
            HistoryItem("user", text="My name is Alice and I have a red bicycle."),
            HistoryItem("assistant", text="Thank you, Alice."),
        ):
            await caller.conversation.restore(item)
        got = await caller.asks("What is my name?")
        assert got.text
        assert got.seconds > 0
        *told, answer = caller.conversation._history.messages()
        assert answer == {"role": "assistant", "content": got.text}
        assert [message["role"] for message in told] == [
            "system",
            "user",
            "assistant",
            "user",
            "assistant",
            "user",
        ]
        cached, fresh = await prompt_read_anew(url, told)
        assert fresh <= 4 < 100 < cached, "the server has read these messages, in this order"
        cached, fresh = await prompt_read_anew(url, [told[0], told[-1]])
        assert fresh > 4, "and not others"
        assert (await caller.asks("Thank you.")).text
        assert caller.count("errors_total", kind="cut") == 0
        assert caller.count("first_token_seconds_count") == 2
        assert 2 <= caller.count("tokens_total") <= 48


async def prompt_read_anew(url: str, messages: list[dict[str, str]]) -> tuple[int, int]:
    """How many tokens of these messages the server has read before, and how many it reads now."""
    async with httpx.AsyncClient(trust_env=False, timeout=HANGS_S) as client:
        asked = {"messages": messages, "max_tokens": 1, "model": "smollm2"}
        timings = (await client.post(url + "/chat/completions", json=asked)).json()["timings"]
    return timings["cache_n"], timings["prompt_n"]


async def test_the_first_sentence_is_there_before_the_answer_is(url: str) -> None:
    async with calling(url, tokens=120) as caller:
        await caller.says("Tell me all about bicycles, in many sentences.")
        outputs = caller.conversation.respond("item1")
        first = await anext(outputs)
        assert isinstance(first, Text)
        early = caller.count("tokens_total")
        assert early == 0, "the answer is not over, and yet its first sentence is said"
        rest = [output async for output in outputs]
        assert len([output for output in rest if isinstance(output, Text)]) >= 1
        assert caller.count("tokens_total") > 20


async def test_an_aborted_answer_frees_the_servers_only_slot(url: str) -> None:
    async with calling(url, tokens=400) as caller, calling(url, tokens=4) as other:
        await caller.says("Tell me a very long story about a bicycle.")
        outputs = caller.conversation.respond("item1")
        async for output in outputs:
            if isinstance(output, Sound):
                break
        await outputs.aclose()  # type: ignore[attr-defined]
        busy = await slot_works(url)
        kept = await caller.conversation.truncate("item1", 0.5)
        assert len(kept.split()) == 2
        assert (await other.asks("Hello")).text
        assert not busy


async def slot_works(url: str) -> bool:
    """Whether the server still makes an answer, once it had a moment to notice that nobody listens."""
    async with httpx.AsyncClient(trust_env=False) as client:
        for _ in range(100):
            slots = (await client.get(url.removesuffix("/v1") + "/slots")).json()
            if not any(slot["is_processing"] for slot in slots):
                return False
            await asyncio.sleep(0.05)
    return True


async def test_who_waits_for_another_callers_answer_hears_a_filler(url: str) -> None:
    async with calling(url, tokens=120) as first, calling(url, tokens=8, filler_s=0.01) as second:
        await first.says("Tell me all about bicycles, in many sentences.")
        await second.says("Hello")
        one, other = await asyncio.gather(first.hears(), second.hears())
        assert one.text
        assert other.text.startswith(FILLER)
        assert not other.text.endswith(FAREWELL)


async def test_a_caller_does_not_wait_for_ever(url: str) -> None:
    async with calling(url, tokens=400) as first, calling(url, filler_s=0.01, give_up_s=0.02) as second:
        await first.says("Tell me a very long story about a bicycle.")
        outputs = first.conversation.respond("item1")
        assert isinstance(await anext(outputs), Text)
        got: Answered = await second.asks("Hello")
        await outputs.aclose()  # type: ignore[attr-defined]
        assert got.text.endswith(FAREWELL)
        assert [tool.name for tool in got.tools] == ["hang_up"]
