"""What a gateway that runs says of itself, for commands beside it."""

from __future__ import annotations

import asyncio

from gateway.config.runtime import Runtime, runtime_for
from gateway.config.settings import Settings
from gateway.errors import RpcError
from gateway.ipc.front_messages import AskState, HouseState, TrunkState
from gateway.ipc.hello import Hello


def house_state(runtime: Runtime) -> HouseState:
    """Raises `RpcError` when its front does not answer."""

    async def ask() -> HouseState:
        from gateway.ipc import rpc

        peer = await rpc.connect(runtime.front, Hello("doctor", "doctor", runtime.token()))
        try:
            return await peer.ask(AskState())
        finally:
            peer.close()

    return asyncio.run(ask())


def trunk_states(settings: Settings) -> tuple[TrunkState, ...]:
    """How its trunks are; empty where no gateway runs, or its front does not answer."""
    runtime = runtime_for(settings.data_dir)
    if not runtime.held():
        return ()
    try:
        return house_state(runtime).trunks
    except RpcError:
        return ()
