"""Candidates that come later, and another network: what a WHIP client PATCHes (RFC 8840, RFC 9725 §4.3).

An ICE restart keeps our sockets, and with them DTLS and sound: aioice's agent gets new names and passwords,
and answers the browser's checks from wherever they come then.
"""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass, field
from typing import Any, Final

import aioice.ice
from aioice.candidate import Candidate

from gateway.line import ice

_WORD: Final = re.compile(r"[A-Za-z0-9+/]{4,256}")
_LINE: Final = re.compile(r"a=(ice-ufrag|ice-pwd|candidate):(.*)")
MAX_LINES: Final = 500
LEAST_PASSWORD: Final = 22
"""Characters (RFC 8839 §5.4)."""


@dataclass(slots=True)
class Fragment:
    """What a fragment says."""

    ufrag: str = ""
    password: str = ""
    candidates: list[Candidate] = field(default_factory=list)

    @classmethod
    def read(cls, text: str) -> Fragment:
        """Raises `ValueError`. Of candidates those are left out that are worth no check."""
        found = cls()
        lines = ice.offered(text).split("\r\n")
        if len(lines) > MAX_LINES:
            raise ValueError("the fragment has too many lines")
        for line in lines:
            said = _LINE.fullmatch(line)
            if said is None:
                continue
            if said[1] == "candidate":
                found.candidates.append(Candidate.from_sdp(said[2]))
            elif _WORD.fullmatch(said[2]) is None:
                raise ValueError(f"its {said[1]} cannot be read")
            elif said[1] == "ice-ufrag":
                found.ufrag = said[2]
            else:
                found.password = said[2]
        if bool(found.ufrag) != bool(found.password) or (
            found.ufrag and len(found.password) < LEAST_PASSWORD
        ):
            raise ValueError("a fragment has both ice-ufrag and ice-pwd, or neither")
        return found


def agent_of(connection: Any) -> aioice.ice.Connection:
    """The ICE agent of an aiortc connection whose sections are bundled."""
    agent: aioice.ice.Connection = connection.getTransceivers()[0].receiver.transport.transport._connection
    return agent


def etag_of(agent: aioice.ice.Connection) -> str:
    """Names an ICE session: another one after each restart."""
    return f'"{agent.local_username}"'


def restart(agent: aioice.ice.Connection, ufrag: str, password: str) -> None:
    """From now on checks need these names and passwords (RFC 8445 §9), and new ones of ours."""
    agent._local_username = secrets.token_hex(4)
    agent._local_password = secrets.token_hex(16)
    agent.remote_username, agent.remote_password = ufrag, password


async def add(agent: aioice.ice.Connection, candidates: list[Candidate]) -> None:
    """Sends checks to these too; a browser has few."""
    for candidate in candidates:
        if len(agent.remote_candidates) < 2 * ice.MOST_CANDIDATES:
            await agent.add_remote_candidate(candidate)


def answer(agent: aioice.ice.Connection, mid: str, public_address: str | None) -> str:
    """Our side after a restart, as a fragment."""
    lines = [
        f"a=ice-ufrag:{agent.local_username}",
        f"a=ice-pwd:{agent.local_password}",
        "m=audio 9 UDP/TLS/RTP/SAVPF 0",
        f"a=mid:{mid}",
        *(f"a=candidate:{candidate.to_sdp()}" for candidate in agent.local_candidates),
        "a=end-of-candidates",
        "",
    ]
    return ice.answered("\r\n".join(lines), public_address)
