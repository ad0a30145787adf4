"""The SIP lines: the zygote is asked to fork each, and a line that dies is forked again."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Mapping
from typing import Final, Literal

import structlog

from gateway.config.runtime import Runtime
from gateway.config.settings import Settings
from gateway.errors import LineError, RpcError, RpcTimeout
from gateway.ipc import rpc
from gateway.ipc.hello import Hello
from gateway.ipc.rpc import Peer
from gateway.line.line_plan import RTP_STRIDE, LinePlan
from gateway.line.zygote_messages import ForkLine, LineDied
from gateway.run.child import Child

log = structlog.get_logger("supervisor")

FORK_WITHIN_S: Final = 10.0
FORK_PAUSE_S: Final = 0.2
"""Between a line's death and the next fork, at least."""
REFUSED_PAUSE_S: Final = 1.0
"""Before a line is asked for again that the zygote could not fork."""


def plans(settings: Settings, runtime: Runtime, token: str) -> dict[str, LinePlan]:
    """The lines that the settings name, by their names."""
    lines: list[tuple[str, Literal["narrow", "wide"]]] = []
    lines += [(f"n{k}", "narrow") for k in range(settings.narrow_lines)]
    lines += [(f"w{k}", "wide") for k in range(settings.wide_lines)]
    media = settings.host if settings.host not in ("0.0.0.0", "::") else ""  # noqa: S104 - compared only
    return {
        name: LinePlan(
            name=name,
            kind=kind,
            hall=f"hall{at % settings.halls}",
            runtime=runtime,
            token=token,
            media_address=media,
            rtp_timeout_s=settings.rtp_timeout_s,
            rtp_port=settings.rtp_port + at * RTP_STRIDE if settings.rtp_port else 0,
        )
        for at, (name, kind) in enumerate(lines)
    }


class SipLines:
    """The lines by name, as the zygote told of them. `changed` is called when one came or went."""

    def __init__(self, wanted: Mapping[str, LinePlan], token: str, changed: Callable[[], None]) -> None:
        self.lines = {name: Child(name, plan.runtime.failure(name)) for name, plan in wanted.items()}
        self._wanted = wanted
        self._token = token
        self._changed = changed
        self._stopping = False
        self._control: socket.socket | None = None

    def open(self) -> socket.socket:
        """The zygote's end of a new connection, for it to inherit."""
        if self._control is not None:
            self._control.close()
        self._control, theirs = socket.socketpair()
        return theirs

    async def lead(self) -> None:
        """Talks with the zygote that has the other end, until it is gone, and its lines with it."""
        if self._control is None:
            raise LineError("lead() comes after open()")
        hello = Hello("supervisor", "supervisor", self._token)
        handlers = [LineDied.handled_by(self._died)]
        zygote = await rpc.connect_by(self._control, "zygote", hello, handlers)
        await asyncio.gather(*(self._fork(zygote, name) for name in self._wanted))
        await zygote.closed.wait()
        for line in self.lines.values():
            line.pid = 0

    def stop(self) -> None:
        """From now on a line that dies was told to, and is not forked again."""
        self._stopping = True

    async def _fork(self, zygote: Peer, name: str) -> None:
        """Has it forked, again and again while the zygote refuses: no memory now, too many processes now."""
        while True:
            try:
                self.lines[name].born(await zygote.ask(ForkLine(self._wanted[name]), FORK_WITHIN_S))
                break
            except RpcError as error:
                log.error("line.not_forked", line=name, error=str(error))
                self.lines[name].error = f"it was not forked: {error}"
                if zygote.closed.is_set() or self._stopping or isinstance(error, RpcTimeout):
                    break  # it goes with the zygote, or it may be there: it says so itself
            await asyncio.sleep(REFUSED_PAUSE_S)
        self._changed()

    async def _died(self, zygote: Peer, told: LineDied) -> None:
        line = self.lines[told.name]
        if self._stopping:
            line.pid = 0
            return
        pause_s = line.died(told.status)
        self._changed()
        await asyncio.sleep(max(pause_s, FORK_PAUSE_S))
        await self._fork(zygote, told.name)
