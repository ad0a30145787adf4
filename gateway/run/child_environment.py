"""What the house's processes are told by their environment.

That is what may be a secret, and what the engine reads, which knows no settings file.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from gateway.config.settings import Settings
from model import json_log
from model.ears import ONE_THREAD, SOCKET_VARIABLE
from model.log_ear import EAR_VARIABLE

LEAN: Final = {**ONE_THREAD, "MALLOC_ARENA_MAX": "1"}  # glibc's heap per thread costs the hall 10 MB


def environment(settings: Settings, token: str, ears: Path | None, log: Path | None = None) -> dict[str, str]:
    """Our own, and the house's. `token` is this boot's; `ears` the socket of who hears words, if anyone.

    `log`: the socket of who keeps lines of calls' logs.
    """
    return {
        **os.environ,
        "VOICEGATE_DATA_DIR": str(settings.data_dir),
        "VOICEGATE_BOOT_TOKEN": token,
        # by the environment: it may hold a password, and the engine reads no settings file
        **({"VOICEGATE_REDIS_URL": settings.redis_url} if settings.redis_url else {}),
        **({} if settings.models is None else {"VOICEGATE_MODELS": str(settings.models)}),
        **({} if ears is None else {SOCKET_VARIABLE: str(ears)}),
        **_chroma(settings),
        **settings.llm_variables,
        json_log.LEVEL_VARIABLE: settings.log_level,
        **({} if log is None else {EAR_VARIABLE: str(log)}),
        **LEAN,
    }


def _chroma(settings: Settings) -> dict[str, str]:
    """The engine's settings as it reads them, whether they came from a file or a variable."""
    given = {
        "VOICEGATE_ENGINE_CALLS": str(settings.engine_calls),
        "VOICEGATE_CHROMA_DEVICE": settings.chroma_device,
        "VOICEGATE_CHROMA_DTYPE": settings.chroma_dtype,
        "VOICEGATE_CHROMA_WEIGHTS": settings.chroma_weights,
        "VOICEGATE_CHROMA_KV": settings.chroma_kv,
        "VOICEGATE_CHROMA_CONTEXT": str(settings.chroma_context),
        "VOICEGATE_CHROMA_PROMISED": str(settings.chroma_promised),
        "VOICEGATE_CHROMA_REPLY_S": str(settings.chroma_reply_s),
        "VOICEGATE_CHROMA_LEAD_S": str(settings.chroma_lead_s),
    }
    return given if settings.chroma is None else {**given, "VOICEGATE_CHROMA": settings.chroma}
