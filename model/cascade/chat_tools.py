"""What a model may ask for: the session's tools as a chat server wants them, and calls that come in pieces.

Only a tool that the session names is ever used, and no word of a caller's reaches their descriptions.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from model.api import Tool
from model.cascade.chat_server import ToolPart
from model.errors import ProtocolError

DESCRIPTIONS: Final = {
    "hang_up": "Ends the call. Use it once the caller has said goodbye, or wants nothing more.",
    "transfer": "Puts the caller through to a person. Use it when the caller asks for one, and only then.",
}
"""For tools that the session names without one."""
MOST_TOOLS: Final = 16
MOST_CALLS: Final = 8
LONGEST_ARGUMENTS: Final = 4096
_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")
_NOTHING: Final[Mapping[str, Any]] = {"type": "object", "properties": {}}


def chat_tools(tools: Iterable[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """The session's tools by name, in the shape of chat completions. Raises `ProtocolError`."""
    found: dict[str, Mapping[str, Any]] = {}
    for k, tool in enumerate(tools):
        path = f"session.tools[{k}]"
        name, description = tool.get("name"), tool.get("description")
        parameters = tool.get("parameters") or _NOTHING
        if not isinstance(name, str) or _NAME.fullmatch(name) is None:
            raise _invalid(f"{path}.name", "must be a tool's name")
        if not isinstance(description or "", str):
            raise _invalid(f"{path}.description", "must be a string")
        if not isinstance(parameters, Mapping):
            raise _invalid(f"{path}.parameters", "must be a JSON schema")
        if k >= MOST_TOOLS:
            raise _invalid(path, f"is one too many: a session has {MOST_TOOLS} tools at most")
        described = description or DESCRIPTIONS.get(name, "")
        found[name] = {
            "type": "function",
            "function": {"name": name, "description": described, "parameters": parameters},
        }
    return found


def _invalid(param: str, what: str) -> ProtocolError:
    return ProtocolError(f"{param} {what}", param, code="invalid_value")


class ToolCalls:
    """The calls of one answer, put together from their pieces."""

    def __init__(self) -> None:
        self._calls: dict[int, list[str]] = {}
        """index -> [name, arguments]"""

    def add(self, part: ToolPart) -> None:
        """Another piece; what is too much of it is dropped."""
        if part.index not in self._calls and len(self._calls) >= MOST_CALLS:
            return
        call = self._calls.setdefault(part.index, ["", ""])
        call[0] = (call[0] + part.name)[:80]
        call[1] = (call[1] + part.arguments)[: LONGEST_ARGUMENTS + 1]

    def __bool__(self) -> bool:
        return bool(self._calls)

    def first(self, known: Mapping[str, Any]) -> Tool | None:
        """The first call of a tool that is `known`, its arguments an object; one call is done per answer."""
        for _, (name, arguments) in sorted(self._calls.items()):
            if name in known:
                return Tool(name, _object(arguments))
        return None


def _object(arguments: str) -> dict[str, Any]:
    """The arguments; nothing where they are not an object, since none of the house's tools needs any."""
    if len(arguments) > LONGEST_ARGUMENTS:
        return {}
    try:
        found = json.loads(arguments or "{}")
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
