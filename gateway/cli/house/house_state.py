"""What a gateway that runs says of itself, for commands beside it."""

from __future__ import annotations

import asyncio
from typing import TypeVar

from gateway.config.runtime import Runtime, runtime_for
from gateway.config.settings import Settings
from gateway.errors import RpcError
from gateway.ipc.envelope import Ask
from gateway.ipc.front_messages import AskState, AskTelephones, HouseState, TelephoneState, TrunkState
from gateway.ipc.hello import Hello

A = TypeVar("A")


def house_state(runtime: Runtime) -> HouseState:
    """Raises `RpcError` when its front does not answer."""
    return _asked(runtime, AskState())


def _asked(runtime: Runtime, question: Ask[A]) -> A:
    """Raises `RpcError`."""

    async def ask() -> A:
        from gateway.ipc import rpc

        peer = await rpc.connect(runtime.front, Hello("doctor", "doctor", runtime.token()))
        try:
            return await peer.ask(question)
        finally:
            peer.close()

    return asyncio.run(ask())


def telephone_states(settings: Settings) -> tuple[TelephoneState, ...]:
    """How registered telephones are; empty where no gateway runs, or its front does not answer."""
    runtime = runtime_for(settings.data_dir)
    if not runtime.held():
        return ()
    try:
        return _asked(runtime, AskTelephones()).all
    except RpcError:
        return ()


def trunk_states(settings: Settings) -> tuple[TrunkState, ...]:
    """How its trunks are; empty where no gateway runs, or its front does not answer."""
    runtime = runtime_for(settings.data_dir)
    if not runtime.held():
        return ()
    try:
        return house_state(runtime).trunks
    except RpcError:
        return ()
