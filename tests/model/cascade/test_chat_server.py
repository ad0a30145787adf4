"""Servers that misbehave, and what a caller hears of it. Time is the house's: 30 s of stall take none."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator

import pytest
from structlog.testing import capture_logs

from model.cascade.talk import FAREWELL, LOST, STILL
from model.embedded.dialogue import FILLER
from tests.model.cascade.chat_script import (
    STREAM,
    Script,
    Write,
    answers,
    chat_script,
    event,
    says,
    sends,
)
from tests.model.cascade.conftest import calling

HOUSE_TIME = True
SECRET = "my card is four one one one"


@pytest.fixture(autouse=True)
def logged() -> Iterator[list[dict[str, object]]]:
    """No test of this module may find the caller's words in the log."""
    with capture_logs() as lines:
        yield lines  # type: ignore[misc]
    assert "four one" not in json.dumps(lines, default=repr)
    assert "sk-secret" not in json.dumps(lines, default=repr)


def now() -> float:
    return asyncio.get_running_loop().time()


def unfilled(text: str) -> str:
    """What was said without what filled the wait."""
    return " ".join(text.replace(FILLER, "").replace(STILL, "").split())


async def endless(write: Write) -> None:
    await write(STREAM)
    while True:
        await write(event({"content": " and so on"}))


async def endless_nothing(write: Write) -> None:
    await write(STREAM)
    while True:
        await write(event({"content": ""}) * 100)


async def pings(write: Write) -> None:
    await write(STREAM)
    while True:
        await write(b": ping\n\n")
        await asyncio.sleep(0.5)


async def hundred_megabytes(write: Write) -> None:
    await write(STREAM + b"data: ")
    for _ in range(1600):
        await write(b"x" * 65_536)
    await write(b"\n\n")


async def bomb(write: Write) -> None:
    await write(
        STREAM.replace(b"\r\n\r\n", b"\r\nContent-Encoding: gzip\r\n\r\n") + b"\x1f\x8b" + bytes(1000)
    )


def stalls(*parts: bytes) -> Script:
    return sends(*parts, 30.0, event({"content": "Too late."}))


GONE = [
    (answers("401 Unauthorized", b'{"error": {"code": "invalid_api_key"}}'), "key"),
    (answers("403 Forbidden"), "key"),
    (answers("404 Not Found"), "not_found"),
    (answers("400 Bad Request", json.dumps({"error": {"message": SECRET}}).encode()), "request"),
    (answers("302 Found", Location="http://127.0.0.2:9/v1/chat/completions"), "redirect"),
    (answers("307 Temporary Redirect", Location="https://evil.example/v1"), "redirect"),
    (answers("500 Internal Server Error", SECRET.encode()), "server"),
    (answers("503 Service Unavailable", b"", Retry_After="120"), "server"),
    (answers("429 Too Many Requests", b"", Retry_After="60"), "busy"),
    (answers("429 Too Many Requests", b"", Retry_After="Fri, 31 Dec 2999 23:59:59 GMT"), "busy"),
    (answers("200 OK", b"<html>hello</html>", Content_Type="text/html"), "garbage"),
    (answers("200 OK", b"{}", Content_Type="application/json"), "garbage"),
    (sends(b"data: {nonsense\n\n"), "garbage"),
    (sends(b"data: [1, 2]\n\n"), "garbage"),
    (sends(b'data: {"choices": 7}\n\n'), "garbage"),
    (sends(b'data: {"choices": [{"delta": {"content": 7}}]}\n\n'), "garbage"),
    (sends(b'data: {"choices": [{"delta": {"tool_calls": [{"index": []}]}}]}\n\n'), "garbage"),
    (sends(b"data: " + b"[" * 100_000 + b"\n\n"), "garbage"),
    (sends(b'data: {"error": {"message": "four one", "code": "overloaded"}}\n\n'), "server"),
    (sends(b""), "cut"),
    (sends(b"\xff\xfe\x00garbage\xff\n\n" * 3), "cut"),
    (hundred_megabytes, "too_large"),
    (bomb, "garbage"),
    (endless_nothing, "too_large"),
    (stalls(), "late"),
    (stalls(event({"content": None})), "late"),
    (stalls(event({"content": "Half a"})), "late"),
    (pings, "late"),
]


@pytest.mark.parametrize(("script", "kind"), GONE)
async def test_a_server_that_is_no_use_ends_the_call_in_good_order(script: Script, kind: str) -> None:
    async with calling(script, key="sk-secret") as caller:
        began = now()
        got = await caller.asks(SECRET)
        assert now() - began <= 7.1
        assert unfilled(got.text) == FAREWELL
        assert [tool.name for tool in got.tools] == ["hang_up"]
        assert caller.count("errors_total", kind=kind) >= 1
        assert caller.count("instead_total", what="farewell") == 1


async def test_nobody_listens_there() -> None:
    async with calling(says("x")) as caller:
        caller.script.server.close()
        got = await caller.asks("hello")
        assert got.text.endswith(FAREWELL)
        assert caller.count("errors_total", kind="unreachable") > 3, "it may come back in a moment"


async def test_a_redirect_is_not_followed() -> None:
    async with chat_script(says("Stolen.")) as other:
        leads = answers("307 Temporary Redirect", Location=f"{other.url}/chat/completions")
        async with calling(leads) as caller:
            await caller.asks(SECRET)
            assert other.asked == []
            assert len(caller.script.asked) == 1


async def test_a_slow_server_is_filled_and_waited_for() -> None:
    async def slow(write: Write) -> None:
        await asyncio.sleep(2.5)
        await says("We open at nine.")(write)

    async with calling(slow) as caller:
        began = now()
        got = await caller.asks("when do you open")
        assert 2.5 <= now() - began < 2.6
        assert got.text == f"{FILLER} We open at nine."
        assert caller.count("instead_total", what="filler") == 1
        assert await caller.conversation.truncate("item1", 60.0) == "We open at nine."
        await caller.asks("and then")
        assert [m["content"] for m in caller.script.asked[-1].messages[1:]] == [
            "when do you open", "We open at nine.", "and then",
        ]  # fmt: skip


async def test_the_filler_comes_when_it_was_promised_and_again() -> None:
    async with calling(stalls(), give_up_s=20.0) as caller:
        began, at = now(), []
        await caller.says("hello")
        async for output in caller.conversation.respond("item1"):
            if type(output).__name__ == "Text":
                at.append(round(now() - began, 1))
        assert at == [1.0, 6.0, 6.0, 11.0, 11.0, 16.0, 16.0, 20.0, 20.0, 20.0]


async def test_a_first_sentence_is_spoken_while_the_rest_is_on_its_way() -> None:
    async with calling(
        sends(event({"content": "Yes. We"}), 3.0, event({"content": " do."}, "stop"))
    ) as caller:
        began = now()
        await caller.says("do you open")
        outputs = caller.conversation.respond("item1")
        first = await anext(outputs)
        assert (first.delta, now() - began < 0.1) == ("Yes.", True)  # type: ignore[union-attr]
        await outputs.aclose()  # type: ignore[attr-defined]
        await asyncio.wait_for(caller.script.left.wait(), 1.0)


@pytest.mark.parametrize(
    "broken",
    [
        sends(event({"content": "We open at nine. And we"})),
        sends(event({"content": "We open at nine. And we"}), b"data: {nonsense\n\n"),
        stalls(event({"content": "We open at nine. And we"})),
    ],
)
async def test_an_answer_that_breaks_off_is_asked_for_again_and_the_second_time_ends_the_call(
    broken: Script,
) -> None:
    async with calling(broken, broken, says("Five."), broken, broken) as caller:
        first = await caller.asks("when")
        assert unfilled(first.text) == f"We open at nine. {LOST}"
        assert first.tools == []
        second = await caller.asks("when")
        assert unfilled(second.text) == f"We open at nine. {FAREWELL}"
        assert [tool.name for tool in second.tools] == ["hang_up"]
        assert (await caller.asks("when")).text == "Five."
        assert (await caller.asks("when")).tools == [], "one that was well in between"


async def test_an_endless_answer_has_an_end() -> None:
    async with calling(endless, tokens=50) as caller:
        got = await caller.asks("tell me everything")
        assert 100 < len(got.text) < 50 * 12
        assert got.tools == []
        assert caller.count("instead_total", what="farewell") == 0
        assert caller.count("tokens_total") <= 50 + 17
        await asyncio.wait_for(caller.script.left.wait(), 5.0)


async def test_what_is_cut_by_its_limit_ends_with_a_whole_sentence() -> None:
    script = sends(event({"content": "One. Two. And thr"}), event({}, "length"), b"data: [DONE]\n\n")
    async with calling(script) as caller:
        assert (await caller.asks("count")).text == "One. Two."


async def test_a_busy_server_is_asked_again_when_it_says() -> None:
    busy = answers("429 Too Many Requests", b"", Retry_After="2")
    async with calling(busy, says("Here I am.")) as caller:
        began = now()
        got = await caller.asks("hello")
        assert got.text == f"{FILLER} Here I am."
        assert 2.0 <= now() - began < 2.2
        assert caller.count("errors_total", kind="busy") == 1


async def test_a_server_that_failed_once_is_asked_again() -> None:
    failed = answers("500 Internal Server Error")
    async with calling(failed, sends(b"data: {x\n\n"), says("Here I am.")) as caller:
        assert (await caller.asks("hello")).text == "Here I am."


async def test_an_answer_of_nothing_is_asked_about() -> None:
    async with calling(says("*** \U0001f600")) as caller:
        assert (await caller.asks("hello")).text.endswith(LOST)


async def test_invalid_utf_8_costs_a_letter() -> None:
    script = sends(event({"content": "Caf?."}, "stop").replace(b"?", b"\xe9"), b"data: [DONE]\n\n")
    async with calling(script) as caller:
        assert (await caller.asks("what is it")).text == "Caf."


async def test_a_stream_may_end_without_its_last_word() -> None:
    async with calling(sends(event({"content": "Fine."}, "stop"))) as caller:
        assert (await caller.asks("how are you")).text == "Fine."


async def test_a_server_that_takes_no_tools_is_asked_without() -> None:
    refused = answers(
        "400 Bad Request", b'{"error": {"message": "\\"auto\\" tool choice requires a parser"}}'
    )
    async with calling(refused, says("Hello.")) as caller:
        assert (await caller.asks("hello")).text == "Hello."
        assert ["tools" in asked.body for asked in caller.script.asked] == [True, False]


async def test_a_limit_may_have_another_name() -> None:
    refused = answers("400 Bad Request", b'{"error": {"message": "use max_completion_tokens instead"}}')
    async with calling(refused, says("Hello.")) as caller:
        assert (await caller.asks("hello")).text == "Hello."
        limits = [
            (asked.body.get("max_tokens"), asked.body.get("max_completion_tokens"))
            for asked in caller.script.asked
        ]
        assert limits == [(300, None), (None, 300)]


async def test_the_key_goes_to_the_server_alone() -> None:
    async with calling(says("Hello."), key="sk-secret") as caller:
        await caller.asks("hello")
        assert caller.script.asked[0].headers["authorization"] == "bearer sk-secret"  # the script lowers it
        assert "sk-secret" not in caller.server.meters.text()


async def test_no_proxy_of_the_environment_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    async with chat_script(says("From the proxy.")) as proxy:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        async with calling(says("From the server.")) as caller:
            assert (await caller.asks("hello")).text == "From the server."
        assert proxy.asked == []


async def test_what_it_counts_can_be_read() -> None:
    async with calling(says("We open at nine. Bye.")) as caller:
        await caller.asks("hello")
        text = caller.server.meters.text()
        assert text.endswith("\n")
        assert caller.count("first_token_seconds_count") == 1
        assert caller.count("first_sentence_seconds_count") == 1
        assert caller.count("tokens_total") == 5
        assert caller.count("questions_total") == 1
