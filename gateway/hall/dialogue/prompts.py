"""Sentences rendered in advance, for when there is no engine to speak them: the farewell, the filler, "busy".

Kept as plain sound; each call marks them with its own payload when it plays them, like everything else.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Awaitable, Callable
from typing import Final

import numpy as np
import structlog

from consent.errors import GrantRefused
from gateway.errors import RpcError
from gateway.hall.media.audio import Floats
from model import client
from model.client import EngineClient, EngineSession
from model.errors import EngineError

log = structlog.get_logger("hall")

RETRY_S: Final = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
"""Pauses while the engine loads, each within a grant's life; the last again and again."""

RENDER_WITHIN_S: Final = 60.0
"""All prompts of the dialplan, at an engine that has just started."""


class Prompts:
    """Text -> float32 24 kHz sound, in the stock voice."""

    def __init__(self) -> None:
        self._sound: dict[str, Floats] = {}

    def missing(self, texts: list[str]) -> list[str]:
        return [text for text in dict.fromkeys(texts) if text and text not in self._sound]

    def keep(self, text: str, pieces: list[Floats]) -> None:
        self._sound[text] = np.concatenate(pieces)

    def sound(self, text: str) -> Floats | None:
        """None when it was never rendered."""
        return self._sound.get(text)


async def render(engine: EngineClient, grant: str, texts: list[str], prompts: Prompts) -> None:
    """Has the engine say `texts` into `prompts`. Raises `EngineError`."""
    session = await engine.connect(grant)
    try:
        async with asyncio.timeout(RENDER_WITHIN_S):
            await session.update(binary=True, lead_s=10.0)
            for text in texts:
                await session.respond(say=text)
                prompts.keep(text, await _sound_of_reply(session))
    except TimeoutError:
        raise EngineError(f"the engine renders no prompts within {RENDER_WITHIN_S:g} s") from None
    finally:
        await session.aclose()


async def render_all(
    engine: EngineClient,
    grant: str,
    texts: list[str],
    prompts: Prompts,
    renew: Callable[[str], Awaitable[str]],
) -> None:
    """Renders `texts` as soon as there is an engine, however long that takes to load.

    `renew` makes another grant of the one before.
    """
    for tries in itertools.count():
        missing = prompts.missing(texts)
        if not missing:
            return
        try:
            await render(engine, grant, missing, prompts)
        except EngineError as error:
            log.info("prompts.waiting", error=str(error), missing=len(missing))
            if tries == len(RETRY_S):
                log.error("prompts.missing", missing=len(missing), error=str(error))
            await asyncio.sleep(RETRY_S[min(tries, len(RETRY_S) - 1)])
            with contextlib.suppress(RpcError, GrantRefused):  # the one may have opened a session
                grant = await renew(grant)


async def _sound_of_reply(session: EngineSession) -> list[Floats]:
    """The next reply's sound. Raises `EngineError` when there is none."""
    pieces: list[Floats] = []
    async for event in session:
        if isinstance(event, client.Audio):
            pieces.append(event.pcm)
        elif isinstance(event, client.Failure):
            raise EngineError(event.message)
        elif isinstance(event, client.Done):
            break
    if not pieces:
        raise EngineError("the engine said nothing")
    return pieces
