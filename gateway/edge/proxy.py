from __future__ import annotations
from dataclasses import dataclass
from typing import Any, Protocol
@dataclass
class LineInfo:
    name: str; kind: str; sip_port: int; capacity: int; calls: tuple[str, ...] = ()
@dataclass
class Accept:
    call_id: str; line: str | None
@dataclass
class Refuse:
    status: int; reason: str; retry_after_s: int | None = None
@dataclass
class IncomingCall:
    caller: str; called: str; display: str; source: str; transport: str; user: str | None
class Edge:
    async def start(self) -> None: ...
    async def stop(self) -> None: ...
    def line_up(self, line: LineInfo) -> None: ...
    def line_down(self, name: str) -> None: ...
    def slot_free(self, line: str, call_id: str) -> None: ...
    def drain(self) -> None: ...
    def stats(self) -> dict[str, Any]: return {}
