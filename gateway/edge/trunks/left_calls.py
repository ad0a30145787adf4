"""The calls that left, and which of them a message belongs to: by its INVITE, or by its dialog."""

from __future__ import annotations

from collections.abc import Iterator

from gateway.edge.dialogs.transaction import Served
from gateway.edge.grammar.message import from_tag, to_tag
from gateway.edge.grammar.sip_message import Request
from gateway.edge.trunks.out_call import OutCall


class LeftCalls:
    """Those that are not over."""

    def __init__(self) -> None:
        self._by_dialog: dict[tuple[str, str], OutCall] = {}
        self._by_invite: dict[Served, OutCall] = {}

    def __len__(self) -> int:
        return len(self._by_dialog)

    def __iter__(self) -> Iterator[OutCall]:
        return iter(list(self._by_dialog.values()))

    def begin(self, call: OutCall) -> None:
        """One more."""
        self._by_dialog[call.id] = self._by_invite[call.served] = call
        call.begin()

    def over(self, call: OutCall) -> None:
        """No more, if it was one."""
        self._by_dialog.pop(call.id, None)
        self._by_invite.pop(call.served, None)

    def cancel(self, invite: Served) -> bool:
        """By the CANCEL of whoever had it leave; False: the INVITE is not one that left."""
        call = self._by_invite.get(invite)
        if call is not None:
            call.cancel()
        return call is not None

    def asked(self, request: Request) -> OutCall | None:
        """That of a request of whoever had it leave, within its dialog."""
        return self._by_dialog.get((request.call_id, from_tag(request)))

    def told(self, request: Request) -> OutCall | None:
        """That of a request of who is called, within its dialog."""
        call = self._by_dialog.get((request.call_id, to_tag(request)))
        return call if call is not None and call.names(request) else None
