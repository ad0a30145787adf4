"""Where engines redeem grants: one grant opens one connection, whichever engine and host it comes to."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final

from consent.errors import GrantRefused
from consent.grants.grant import GrantVerifier
from gateway.errors import RpcError
from gateway.ipc.front_messages import RedeemGrant
from gateway.ipc.rpc import Peer
from gateway.store.redeemed_grants import RedeemedGrants
from gateway.store.registry import RegistryError

CONNECTION_CHARS: Final = 64


class GrantDoor:
    """Without the database it opens to nobody: a grant that may be in use elsewhere is refused."""

    def __init__(self, redeemed: RedeemedGrants, public_keys: Path) -> None:
        self._redeemed = redeemed
        self._public_keys = public_keys

    async def asked(self, _: Peer, asked: RedeemGrant) -> bool:
        """The engine of this host asks."""
        return await self.redeem(asked.token, asked.connection, asked.give_back)

    async def redeem(self, token: str, connection: str, give_back: bool) -> bool:
        """Whether the grant is this connection's. Raises `RpcError` for no valid grant, or without SQL."""
        if not 0 < len(connection) <= CONNECTION_CHARS:
            raise RpcError(f"a connection's id has 1 to {CONNECTION_CHARS} characters")
        try:
            return await asyncio.to_thread(self._redeem, token, connection, give_back)
        except (GrantRefused, RegistryError) as error:
            raise RpcError(str(error)) from None

    def _redeem(self, token: str, connection: str, give_back: bool) -> bool:
        grant = GrantVerifier.load(self._public_keys).verify(token)
        if give_back:
            self._redeemed.give_back(grant.jti, connection)
            return False
        return self._redeemed.redeem(grant.jti, connection)
