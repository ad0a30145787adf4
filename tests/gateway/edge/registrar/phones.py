"""Telephones that register, on real sockets, and a shelf that keeps what it is told."""

from __future__ import annotations

import asyncio
import hashlib
import re
import time
from collections.abc import Sequence
from typing import Any, Final

from gateway.errors import BindingsNotKept
from gateway.ipc.binding import Binding
from tests.gateway.edge.conftest import Exchange
from tests.gateway.edge.peers import Caller, Said

WITHIN_S: Final = 10.0
USERS: Final = {"alice": "correct-horse", "bob": "battery-staple"}


def ha1(name: str, algorithm: str = "MD5") -> str | None:
    password = USERS.get(name)
    return None if password is None else md5(f"{name}:voicegate:{password}")


def md5(text: str) -> str:
    return hashlib.md5(text.encode()).hexdigest()


class Nowhere:
    """A UDP socket; it says what leaves by it."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []

    def is_closing(self) -> bool:
        return False

    def get_write_buffer_size(self) -> int:
        return 0

    def sendto(self, data: bytes, where: object) -> None:
        self.sent.append(data)


class Shelf:
    """Bindings by user and key, as the front would find them again."""

    def __init__(self) -> None:
        self.kept: dict[tuple[str, str], Binding] = {}
        self.away = False
        self._changed = asyncio.Event()

    async def keep(self, put: Sequence[Binding], gone: Sequence[Binding]) -> None:
        if self.away:
            raise BindingsNotKept("the database is away")
        for one in gone:
            self.kept.pop((one.user, one.key), None)
        self.kept.update({(one.user, one.key): one for one in put})
        self._changed.set()

    async def forget_expired(self) -> None:
        if self.away:
            raise BindingsNotKept("the database is away")
        self.kept = {key: one for key, one in self.kept.items() if one.expires_at > time.time()}

    async def loses(self) -> None:
        """Waits until a connection of somebody's is told to be lost."""
        async with asyncio.timeout(WITHIN_S):
            while not any(one.lost_at for one in self.kept.values()):
                self._changed.clear()
                await self._changed.wait()


class Phones:
    """An edge where users may register, and their telephones."""

    def __init__(self, exchange: Exchange) -> None:
        self.exchange = exchange
        self.shelf = exchange.shelf = Shelf()

    async def open(self, **rules: Any) -> Phones:
        self.edge = await self.exchange.edge(phones=ha1, **rules)
        assert self.edge.registrar is not None
        self.registrar = self.edge.registrar
        return self

    async def phone(self, transport: str = "udp") -> Caller:
        return await self.exchange.caller(transport)

    async def ask(
        self, phone: Caller, *extra: str, user: str = "alice", to: str = "", password: str = "", **more: Any
    ) -> Said:
        """The final answer to a REGISTER, with the password once it is asked for."""
        words = {"to": f"<sip:{to or user or 'alice'}@127.0.0.1>", "uri": "sip:127.0.0.1", **more}
        phone.send("REGISTER", "", *extra, **words)
        challenge = await answer(phone)
        if challenge.status != 401 or not user:
            return challenge
        login = credentials(challenge, user, password or USERS.get(user, "none"), "REGISTER", "sip:127.0.0.1")
        phone.send("REGISTER", "", login, *extra, **words)
        return await answer(phone)

    def reached(self, user: str = "alice") -> list[str]:
        return [one.contact.text for one in self.registrar.reach(user)]


def credentials(challenge: Said, user: str, password: str, method: str, uri: str) -> str:
    found = re.search(r'nonce="([^"]+)"', challenge["www-authenticate"])
    assert found is not None
    nonce = found[1]
    inner = f"{md5(f'{user}:voicegate:{password}')}:{nonce}:00000001:c0ffee:auth:{md5(f'{method}:{uri}')}"
    return (
        f'Authorization: Digest username="{user}", realm="voicegate", nonce="{nonce}", uri="{uri}", '
        f'response="{md5(inner)}", cnonce="c0ffee", nc=00000001, qop=auth, algorithm=MD5'
    )


async def answer(phone: Caller) -> Said:
    """The next final answer to a REGISTER, whatever it is."""
    async with asyncio.timeout(WITHIN_S):
        while True:
            for said in phone.kept:
                if said.status >= 200 and said.method == "REGISTER":
                    phone.kept.remove(said)
                    return said
            phone._came.clear()
            await phone._came.wait()
