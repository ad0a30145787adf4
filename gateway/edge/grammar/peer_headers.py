"""What a peer says of a call in headers of its own: who calls, whom they called first, what a PBX adds.

Anybody can write them, so only a trusted peer's are asked for; and trusted peers pass on what strangers
wrote, so each is printable and short, and there are few.
"""

from __future__ import annotations

import re
from typing import Final

from gateway.edge.grammar.sip_message import Request

NAMED: Final[tuple[str, ...]] = (
    "p-asserted-identity", "p-preferred-identity", "remote-party-id", "diversion", "history-info",
    "user-to-user", "privacy",
)  # fmt: skip
"""RFC 3325, RFC 3325, an expired draft that everybody speaks, RFC 5806, RFC 7044, RFC 7433, RFC 3323."""
MOST: Final = 16
LONGEST: Final = 128
_OTHER: Final = re.compile(r"x-(?!vg-)[a-z0-9-]{1,40}")
"""`X-VG-…` is what the edge tells a line."""


def peer_headers(request: Request) -> dict[str, str]:
    """Those of a request, by name in small letters; several lines of one are one, with commas."""
    there = [name.lower() for name in request.headers.keys()]  # noqa: SIM118 - not a dict
    wanted = [name for name in NAMED if name in there]
    wanted += [name for name in there if _OTHER.fullmatch(name) is not None]
    found = {name: _shown(", ".join(request.headers.getlist(name))) for name in wanted[:MOST]}
    return {name: value for name, value in found.items() if value}


def _shown(value: str) -> str:
    return "".join(c if c.isprintable() else " " for c in value).strip()[:LONGEST].rstrip()
