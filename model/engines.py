"""The engines there are, each loaded as its variables say."""

from __future__ import annotations

import os

from model.api import Engine
from model.errors import EngineError


async def embedded() -> Engine:
    from model.embedded.engine import EmbeddedEngine

    return await EmbeddedEngine.load(conversations=int(os.environ.get("VOICEGATE_ENGINE_CALLS") or 64))


async def cascade() -> Engine:
    """Raises `EngineError` for settings that cannot be used."""
    from model.cascade.chat_settings import ChatSettings
    from model.cascade.engine import CascadeEngine

    settings = ChatSettings.from_environ(os.environ)
    return await CascadeEngine.load(
        settings, conversations=int(os.environ.get("VOICEGATE_ENGINE_CALLS") or 64)
    )


async def chroma() -> Engine:
    """Raises `EngineError` saying what is missing."""
    source = os.environ.get("VOICEGATE_CHROMA")
    if not source:
        raise EngineError("VOICEGATE_CHROMA names no checkpoint: a directory, or FlashLabs/Chroma-4B")
    try:
        from model.chroma.serving.engine import ChromaEngine, EngineSettings
    except ModuleNotFoundError as error:
        raise EngineError(
            f"the Chroma engine needs {error.name}, which is not installed: install voicegate with its extra "
            "`chroma` (`voicegate doctor` says how)"
        ) from None
    return await ChromaEngine.load(source, EngineSettings.from_environ(os.environ))
