"""Which INFO a call can take, on whatever kind of line it is."""

from __future__ import annotations

from gateway.edge.grammar.dtmf_info import DTMF_TYPES, media_type, pressed
from gateway.edge.grammar.responses import Turned
from gateway.edge.grammar.sip_message import Request


def unfit_info(request: Request) -> Turned | None:
    """Keys go to the line, nothing said is nothing to do, and what else there is we do not know."""
    if not request.body:
        package = request.headers.get("Info-Package")
        return Turned(469, extra={"Recv-Info": ""}) if package else None  # RFC 6086 §4.2.2
    kind = media_type(request.headers.get("Content-Type"))
    if kind not in DTMF_TYPES:
        return Turned(415, extra={"Accept": ", ".join(DTMF_TYPES)})
    try:
        pressed(kind, request.body)
    except ValueError as error:
        return Turned(400, str(error))
    return None
