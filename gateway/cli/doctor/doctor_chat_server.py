"""What the doctor asks the cascade's chat server: which models it has. No words are sent."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from gateway.cli.doctor.diagnosis import Diagnosis, State, ok
from gateway.config.settings import Settings
from gateway.run.preflight import chat_settings
from model.cascade.chat_server import ChatServer
from model.cascade.chat_settings import ChatSettings
from model.errors import ChatServerError


def chat_server(settings: Settings) -> Iterator[Diagnosis]:
    """Looks at the chat server that the settings name, and at who may read its key."""
    if settings.engine != "cascade" and settings.llm_url is None:
        return
    what, given, key_file = "chat server", chat_settings(settings), settings.llm_key_file
    try:
        names = asyncio.run(_models(given))
    except ChatServerError as error:
        fix = "start it" if error.kind == "unreachable" else "look at VOICEGATE_LLM_URL, _MODEL and _KEY_FILE"
        state: State = "warn" if error.kind in ("not_found", "garbage") else "fail"  # some have no list
        yield Diagnosis(what, state, f"{given.url}: {error}", fix)
    else:
        if given.model in names or not names:
            yield ok(what, f"{given.url} has the model {given.model}")
        else:
            fix = f"set VOICEGATE_LLM_MODEL to one of: {', '.join(names[:8])}"
            yield Diagnosis(what, "warn", f"{given.url} lists no model {given.model}", fix)
    if key_file is not None and key_file.expanduser().stat().st_mode & 0o077:
        yield Diagnosis("chat server's key", "warn", f"others may read {key_file}", f"chmod 600 {key_file}")


async def _models(given: ChatSettings) -> list[str]:
    server = ChatServer(given)
    try:
        return await server.models()
    finally:
        await server.close()
