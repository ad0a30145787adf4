"""What a page is shown, and what it may say."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from gateway.ipc.line_messages import ShownState
from gateway.line import page_channel
from gateway.line.page_channel import BUFFERED, EVENTS_WAITING, MAX_MESSAGE, PageChannel


class Channel:
    """A data channel without a browser."""

    def __init__(self) -> None:
        self.readyState = "open"
        self.bufferedAmount = 0
        self.sent: list[str] = []
        self.on_event: dict[str, Callable[..., None]] = {}
        self.watched = asyncio.Event()

    def on(self, event: str, handler: Callable[..., None]) -> None:
        self.on_event[event] = handler
        if event == "bufferedamountlow":
            self.watched.set()

    def send(self, text: str) -> None:
        self.sent.append(text)


class Page(PageChannel):
    """Notes what the page said."""

    def __init__(self) -> None:
        self.said: list[str] = []
        super().__init__(self.said.append, lambda: self.said.append("bye"))


def states(channel: Channel) -> list[Any]:
    return [json.loads(text)["state"] for text in channel.sent]


def test_events_wait_for_the_channel_and_the_oldest_are_dropped() -> None:
    page, channel = Page(), Channel()
    for _ in range(EVENTS_WAITING):
        page.show(ShownState("ringing"))
    page.show(ShownState("listening"))
    page.opened(channel)
    assert states(channel) == ["ringing"] * (EVENTS_WAITING - 1) + ["listening"]
    page.opened(Channel())
    page.show(ShownState("speaking"))
    assert states(channel)[-1] == "speaking", "the first channel is the page's"


def test_a_page_that_reads_nothing_is_sent_no_more() -> None:
    page, channel = Page(), Channel()
    page.opened(channel)
    channel.bufferedAmount = BUFFERED
    page.show(ShownState("speaking"))
    channel.bufferedAmount, channel.readyState = 0, "closing"
    page.show(ShownState("speaking"))
    assert channel.sent == []


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ('{"dtmf": "5"}', ["5"]),
        ('{"dtmf": "d"}', ["D"]),
        (b'{"bye": true}', ["bye"]),
        ('{"dtmf": "55"}', []),
        ('{"dtmf": 5}', []),
        ('{"bye": 1}', []),
        ("[]", []),
        ("{", []),
        ('{"dtmf": "5"}' + " " * MAX_MESSAGE, []),
    ],
)
def test_a_page_says_keys_and_goodbye_and_nothing_else(message: str | bytes, said: list[str]) -> None:
    page, channel = Page(), Channel()
    page.opened(channel)
    channel.on_event["message"](message)
    assert page.said == said


async def test_the_last_event_has_time_to_leave(monkeypatch: pytest.MonkeyPatch) -> None:
    page, channel = Page(), Channel()
    flushing = asyncio.create_task(page.flush(comes=True))
    await asyncio.sleep(0)
    channel.bufferedAmount = 10
    page.opened(channel)
    await asyncio.wait_for(channel.watched.wait(), 10)
    assert not flushing.done()
    channel.on_event["bufferedamountlow"]()
    await asyncio.wait_for(flushing, 10)
    monkeypatch.setattr(page_channel, "FLUSH_WITHIN_S", 0.01)
    await asyncio.wait_for(page.flush(comes=True), 10)  # a page that never reads holds nobody up
    await asyncio.wait_for(Page().flush(comes=True), 10)
