"""Notes what lines say of calls' sound: how it came and went, and that it comes from elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from gateway.errors import RpcError
from gateway.hall.calls.call import Call
from gateway.hall.parts.call_quality import CallQuality
from gateway.hall.parts.clocks import Clocks
from gateway.ipc.envelope import Tell
from gateway.ipc.line_messages import LineQuality, RtpMoved
from gateway.ipc.rpc import Peer
from gateway.store.call_record import OF_TARGET
from gateway.store.sessions import Sessions


class QualityDesk:
    """One hall's."""

    def __init__(
        self,
        calls: Mapping[str, Call],
        sessions: Sessions,
        tell_front: Callable[[Tell], None],
        clocks: Clocks,
    ) -> None:
        self._calls = calls
        self._sessions = sessions
        self._tell_front = tell_front
        self._clocks = clocks

    async def moved(self, _: Peer, moved: RtpMoved) -> None:
        """Sound comes from elsewhere all at once: a phone that moved, or somebody else's."""
        call = self._calls.get(moved.call_id)
        if call is None:
            raise RpcError(f"no call {moved.call_id} here")
        what: dict[str, str | None] = {"was": moved.was, "now": moved.now, "way": moved.way}
        what |= {"was_ssrc": moved.was_ssrc, "now_ssrc": moved.now_ssrc}
        note = call.log.warning if moved.way == "followed" else call.log.info
        note("rtp.moved", **what)
        call.session.event("rtp_moved", **what)
        self._tell_front(moved)

    async def told(self, line: Peer, told: LineQuality) -> None:
        """Notes how a call sounds; the last word may come when the call is over here already."""
        call = self._calls.get(told.call_id)
        if call is None and not told.last:
            return
        if told.target is not None:
            self._of_target(line, call, told, told.target)
            return
        note = (CallQuality() if call is None else call.line.quality).take(told, self._clocks.monotonic())
        session = self._sessions.session(told.call_id)
        session.note(**note.facts)
        if call is not None and note.stretch is not None:
            call.keep_point("quality", note.stretch)
        if note.event is not None:
            session.event("line_quality" if told.last else "quality", line=line.name, **note.event)
        if note.rated is not None:
            self._tell_front(note.rated)
        if call is not None and note.turned and note.event is not None:
            call.log.warning("call.poor" if call.line.quality.poor else "call.not_poor", **note.event)

    def _of_target(self, line: Peer, call: Call | None, told: LineQuality, target: str) -> None:
        """The same of a target: its figures stand beside the caller's, and it makes no call a poor one."""
        rating = CallQuality() if call is None else call.line.target_quality(target)
        note = rating.take(told, self._clocks.monotonic())
        session = self._sessions.session(told.call_id)
        session.note(**{f"{OF_TARGET}{name}": value for name, value in note.facts.items()})
        if note.event is not None:
            session.event("target_quality", line=line.name, target=target, **note.event)
        if note.rated is not None:
            self._tell_front(note.rated)
