"""The line of one call."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from gateway.errors import RpcError
from gateway.hall.parts.call_line import CallLine
from gateway.hall.parts.playout import Item
from gateway.ipc.ending import CallEnding, End
from gateway.ipc.envelope import Message
from gateway.ipc.line_messages import (
    AnswerCall,
    BridgeTarget,
    CallTarget,
    CloseBridge,
    DropCall,
    JoinBridge,
    OpenBridge,
    ShowCaller,
    ShownState,
    ShownWords,
)
from gateway.ipc.rpc import Peer


class LinePeer:
    """What a call uses of `Peer`."""

    def __init__(self) -> None:
        self.closed = asyncio.Event()
        self.asked: list[Message] = []
        self.told: list[Message] = []
        self.refuses = False
        self.port = 0
        """what it answers"""

    async def ask(self, message: Message) -> Any:
        self.asked.append(message)
        if self.refuses:
            raise RpcError("not now")
        return self.port

    def tell(self, message: Message) -> None:
        self.told.append(message)


@pytest.fixture
async def peer() -> LinePeer:
    return LinePeer()


def started(peer: LinePeer, *, page: bool = False) -> CallLine:
    line = CallLine("c1", page=page)
    line.start(cast(Peer, peer), 16_000)
    return line


async def test_a_call_on_no_line_asks_nobody() -> None:
    line = CallLine("c1", page=True)
    with pytest.raises(RpcError, match="no line"):
        await line.ask(AnswerCall("c1"))
    await line.hang_up(CallEnding(End.LIMIT))
    line.show(ShownState("listening"))
    assert line.rate_hz == 0
    assert not line.started.is_set()


async def test_a_line_that_has_the_call_is_asked(peer: LinePeer) -> None:
    line = started(peer)
    await line.ask(AnswerCall("c1"))
    assert peer.asked == [AnswerCall("c1")]
    assert line.started.is_set()
    assert line.rate_hz == 16_000
    assert line.is_on(cast(Peer, peer))
    assert not line.is_on(cast(Peer, LinePeer()))


async def test_a_line_that_will_not_hang_up_or_is_gone_is_left_alone(peer: LinePeer) -> None:
    line = started(peer)
    peer.refuses = True
    await line.hang_up(CallEnding(End.LIMIT))
    peer.closed.set()
    await line.hang_up(CallEnding(End.LIMIT))
    assert peer.asked == [DropCall("c1", how=CallEnding(End.LIMIT))], "once, while it was there"


async def test_only_a_caller_with_a_page_is_shown_something(peer: LinePeer) -> None:
    item = Item("item-1", text="good morning")
    started(peer).show_words(item, final=True)
    assert peer.told == []
    started(peer, page=True).show_words(item, final=True)
    assert peer.told == [ShowCaller("c1", ShownWords("item-1", "good morning", True))]


async def test_a_telephones_line_calls_its_callers_target_itself(peer: LinePeer) -> None:
    line = started(peer)
    await line.call_target("office", 30.0)
    assert peer.asked == [CallTarget("c1", "office", 30.0)]


async def test_a_browsers_callers_target_is_called_by_the_first_line_for_telephones_that_takes_it(
    peer: LinePeer,
) -> None:
    full, free = LinePeer(), LinePeer()
    full.refuses, peer.port, free.port = True, 5, 7
    line = CallLine("c1", page=True, telephones=lambda: cast(list[Peer], [full, free]))
    line.start(cast(Peer, peer), 48_000, browser=True)
    await line.call_target("office", 30.0)
    assert full.asked == free.asked == [BridgeTarget("c1", "office", 30.0, 5)]
    assert peer.asked == [OpenBridge("c1"), JoinBridge("c1", 7)]
    await line.hang_up(CallEnding(End.LIMIT))
    assert free.asked[1:] == peer.asked[2:] == [DropCall("c1", how=CallEnding(End.LIMIT))]


async def test_a_browsers_caller_for_whom_no_line_has_room_stays(peer: LinePeer) -> None:
    full = LinePeer()
    full.refuses = True
    line = CallLine("c1", page=True, telephones=lambda: cast(list[Peer], [full]))
    line.start(cast(Peer, peer), 48_000, browser=True)
    with pytest.raises(RpcError, match="not now"):
        await line.call_target("office", 30.0)
    assert peer.asked == [OpenBridge("c1"), CloseBridge("c1")]
    await line.press("5")
    assert len(full.asked) == 1
