"""The line of one call: which it is, what it told of the call, and what it is asked for it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable

from gateway.errors import RpcError
from gateway.hall.parts.call_quality import CallQuality
from gateway.hall.parts.playout import Item
from gateway.ipc.ending import CallEnding
from gateway.ipc.envelope import A, Ask
from gateway.ipc.line_messages import (
    BridgeTarget,
    CallTarget,
    CloseBridge,
    DialDigits,
    DropCall,
    JoinBridge,
    OpenBridge,
    ShowCaller,
    Shown,
    ShownWords,
)
from gateway.ipc.rpc import Peer


class CallLine:
    """Begins on no line. `page`: the caller looks at a page that shows what happens."""

    def __init__(self, call_id: str, *, page: bool, telephones: Callable[[], Iterable[Peer]] = list) -> None:
        """`telephones`: the lines of the hall that could call somebody for a browser's caller."""
        self._call_id = call_id
        self._telephones = telephones
        self._bridge: Peer | None = None
        """which of these has a target of the call"""
        self._browser = False
        self._page = page
        self._peer: Peer | None = None
        self.rate_hz = 0
        """of the caller's sound; 0 until a line has the call"""
        self.handed_over = False
        self.started = asyncio.Event()
        """a line has the call"""
        self.confirmed = asyncio.Event()
        """the caller has acknowledged the answer"""
        self.quality = CallQuality()
        """how the call sounds, as the line tells it"""
        self._target_quality: tuple[str, CallQuality] | None = None

    # ── what it told ─────────────────────────────────────────────────────────────────────────────────

    def start(self, peer: Peer, rate_hz: int, *, handed_over: bool = False, browser: bool = False) -> None:
        """`peer` has the call, at its rate; told again after a hall's death. `handed_over`: a target has the
        caller by then. `browser`: it is a line for browsers."""
        self.handed_over = handed_over
        self._peer = peer
        self._browser = browser
        self.rate_hz = rate_hz
        self.started.set()

    def hand_over(self) -> None:
        """A target has the caller."""
        self.handed_over = True

    def confirm(self) -> None:
        self.confirmed.set()

    def is_on(self, peer: Peer) -> bool:
        return self._peer is peer

    def target_quality(self, target: str) -> CallQuality:
        """How that target sounds; one that comes after another begins anew."""
        if self._target_quality is None or self._target_quality[0] != target:
            self._target_quality = target, CallQuality()
        return self._target_quality[1]

    # ── what it is asked ─────────────────────────────────────────────────────────────────────────────

    async def ask(self, message: Ask[A]) -> A:
        """Raises `RpcError` when the line refuses or is gone, or when there is none."""
        if self._peer is None:
            raise RpcError("the call is on no line")
        return await self._peer.ask(message)

    async def call_target(self, target: str, within_s: float) -> None:
        """Has the target called; a browser's caller by a line for telephones. Raises `RpcError`."""
        if not self._browser:
            await self.ask(CallTarget(self._call_id, target, within_s))
            return
        port = await self.ask(OpenBridge(self._call_id))
        why = "this hall has no line for telephones at 16 kHz"
        for peer in self._telephones():
            try:
                there = await peer.ask(BridgeTarget(self._call_id, target, within_s, port))
            except RpcError as error:
                why = str(error)
                continue
            self._bridge = peer
            await self.ask(JoinBridge(self._call_id, there))
            return
        await self.leave_target()
        raise RpcError(why)

    async def leave_target(self) -> None:
        """Nothing came of it."""
        bridge, self._bridge = self._bridge, None
        with contextlib.suppress(RpcError):
            if bridge is not None:
                await bridge.ask(DropCall(self._call_id))
        with contextlib.suppress(RpcError):
            if self._browser:
                await self.ask(CloseBridge(self._call_id))

    async def press(self, digit: str) -> None:
        """A key of a browser's caller, for its target."""
        if self._bridge is not None and self.handed_over:
            with contextlib.suppress(RpcError):
                await self._bridge.ask(DialDigits(self._call_id, digit))

    async def hang_up(self, how: CallEnding) -> None:
        """Has the line end the call, if it is there, and say `how`; a target of a browser's caller too."""
        if self._bridge is not None and not self._bridge.closed.is_set():
            with contextlib.suppress(RpcError):
                await self._bridge.ask(DropCall(self._call_id, how=how))
        if self._peer is not None and not self._peer.closed.is_set():
            with contextlib.suppress(RpcError):
                await self._peer.ask(DropCall(self._call_id, how=how))

    def show(self, event: Shown) -> None:
        """Tells the caller's page, when there is one."""
        if self._peer is not None and self._page:
            self._peer.tell(ShowCaller(self._call_id, event))

    def show_words(self, item: Item, final: bool) -> None:
        """`item` has more words; `final`: these are all."""
        self.show(ShownWords(item.id, item.text, final))
