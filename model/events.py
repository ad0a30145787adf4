"""The contract's events as they travel: OpenAI Realtime's names and shapes, ours in `voicegate` objects
(docs/contract.md says what they mean).

`parse` checks a client's event strictly: an unknown type or field, or a value that would not be honoured, is
a `ProtocolError` that names it. Server events are built here too, so that every name of the protocol stands
in this file once.

Binary frames are PCM16 little-endian mono 24 kHz. From a client they are `input_audio_buffer.append`, at most
`MAX_APPEND_S` long. The server sends them when the session asked for them, a model frame (80 ms) at most;
each begins with the u32 number of its response, as told in `response.created`.
"""

from __future__ import annotations

import base64
import json
import secrets
import struct
from collections.abc import Mapping
from typing import Any, Final

from model.api import RATE_HZ, EarlyHearing, Floats, Limits, Understood
from model.errors import ProtocolError
from watermark.pcm import float_from_bytes

Event = dict[str, Any]

BINARY_HEAD: Final = struct.Struct("<I")
MAX_APPEND_S: Final = 15.0
"""Sound in one append event; the hall sends 100 ms, other clients may send more."""

Shape = Any
"""What a field may hold: a type, a tuple of the values that are honoured, `[shape]` for a list,
`{name: shape}` for an object, `{...: shape}` for one with free names. `null` always means: not there."""

_FORMAT: Final = {"type": ("audio/pcm",), "rate": (RATE_HZ,)}
_NONE: Final = ()
"""Known to OpenAI's clients, and only `null` is honoured here."""
CLIENT_FIELDS: Final[Mapping[str, Mapping[str, Shape]]] = {
    "session.update": {
        "session": {
            "type": ("realtime",), "model": str, "instructions": str, "tools": [dict],
            "tool_choice": ("auto",), "output_modalities": [("audio",)], "max_output_tokens": ("inf",),
            "audio": {
                "input": {
                    "format": _FORMAT, "turn_detection": _NONE, "noise_reduction": _NONE,
                    "transcription": _NONE,
                },
                "output": {"format": _FORMAT, "voice": str, "speed": (1,)},
            },
            "voicegate": {
                "binary": bool, "hearing": bool, "grant": str, "lead_s": float, "timezone": str,
                "answers": [dict], "facts": {...: str}, "phrases": dict,
            },
        }
    },
    "input_audio_buffer.append": {"audio": str},
    "input_audio_buffer.commit": {},
    "input_audio_buffer.clear": {},
    "conversation.item.create": {
        "item": {
            "id": str, "type": ("message", "function_call", "function_call_output"), "object": str,
            "status": str, "role": ("user", "assistant", "system"),
            "content": [
                {
                    "type": ("input_text", "output_text", "text", "input_audio", "output_audio"),
                    "text": str, "audio": str, "transcript": str,
                }
            ],
            "call_id": str, "name": str, "arguments": str, "output": str,
        },
        "previous_item_id": _NONE,
    },
    "conversation.item.truncate": {"item_id": str, "content_index": (0,), "audio_end_ms": float},
    "response.create": {
        "response": {
            "output_modalities": [("audio",)], "metadata": {...: str}, "conversation": ("auto",),
            "voicegate": {"say": str},
        }
    },
    "response.cancel": {"response_id": str},
    "voicegate.playout": {"item_id": str, "played_ms": float},
}  # fmt: skip
REQUIRED: Final[Mapping[str, tuple[str, ...]]] = {
    "session.update": ("session",),
    "input_audio_buffer.append": ("audio",),
    "conversation.item.create": ("item",),
    "conversation.item.truncate": ("item_id", "audio_end_ms"),
    "voicegate.playout": ("item_id", "played_ms"),
}
MAX_NUMBER: Final = 1e9


def parse(message: str | bytes) -> Event:
    """A client's event, without what is `null`. Raises `ProtocolError` naming what is not of the contract."""
    try:
        event = json.loads(message)
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"not JSON: {error}", "type") from None
    if not isinstance(event, dict) or not isinstance(event.get("type"), str):
        raise ProtocolError("an event is a JSON object with a type", "type")
    event_id, kind = event.get("event_id"), event["type"]
    try:
        fields = CLIENT_FIELDS.get(kind)
        if fields is None:
            raise ProtocolError(f"unknown event {kind!r}", "type")
        checked: Event = _checked(event, {"type": str, "event_id": str, **fields}, "")
        for name in REQUIRED.get(kind, ()):
            if name not in checked:
                raise ProtocolError(f"{kind} needs {name}", name, code="invalid_value")
    except ProtocolError as error:
        error.event_id = event_id if isinstance(event_id, str) else None
        raise
    return checked


def _checked(value: Any, shape: Shape, path: str) -> Any:
    """`value` if it has that shape; raises `ProtocolError` naming the field that has not."""
    if isinstance(shape, dict):
        _expect(isinstance(value, dict), path, "an object")
        checked = {}
        for key, inner in value.items():
            if key not in shape and ... not in shape:
                raise ProtocolError(f"unknown field {_join(path, key)}", _join(path, key))
            if inner is not None:
                checked[key] = _checked(inner, shape.get(key, shape.get(...)), _join(path, key))
        return checked
    if isinstance(shape, list):
        _expect(isinstance(value, list), path, "a list")
        return [_checked(inner, shape[0], f"{path}[{k}]") for k, inner in enumerate(value)]
    if isinstance(shape, tuple):
        allowed = " or ".join(json.dumps(one) for one in shape) or "null"
        _expect(not isinstance(value, bool | dict | list) and value in shape, path, allowed)
    elif shape is float:
        number = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < MAX_NUMBER
        _expect(number, path, "a number of 0 or more")
    else:
        _expect(
            isinstance(value, shape), path, {str: "a string", bool: "true or false"}.get(shape, "an object")
        )
    return value


def _expect(true: bool, path: str, what: str) -> None:
    if not true:
        raise ProtocolError(f"{path} must be {what}", path, code="invalid_value")


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def pcm_from_base64(audio: str) -> Floats:
    """`(n,)` float32. Raises `ProtocolError`."""
    try:
        return pcm_from_bytes(base64.b64decode(audio, validate=True))
    except ValueError as error:
        raise ProtocolError(f"audio is not base64: {error}", "audio", code="invalid_value") from None


def pcm_from_bytes(raw: bytes) -> Floats:
    if len(raw) % 2 or len(raw) > 2 * RATE_HZ * MAX_APPEND_S:
        raise ProtocolError(
            f"audio must be PCM16 of at most {MAX_APPEND_S:g} s", "audio", code="invalid_value"
        )
    return float_from_bytes(raw)


def dump(event: Event) -> str:
    """As it travels."""
    return json.dumps(event, separators=(",", ":"))


def new_id(kind: str) -> str:
    return f"{kind}_{secrets.token_hex(8)}"


def server(kind: str, **fields: Any) -> Event:
    """A server event with a fresh `event_id`."""
    return {"type": kind, "event_id": new_id("event"), **fields}


def error(message: str, code: str, *, param: str | None = None, event_id: str | None = None) -> Event:
    kind = "invalid_request_error" if code in ("unknown_parameter", "invalid_value") else "server_error"
    body = {"type": kind, "code": code, "message": message, "param": param, "event_id": event_id}
    return server("error", error=body)


def session(
    kind: str,
    session_id: str,
    instructions: str,
    voice: str,
    limits: Limits,
    lead_s: float,
    *,
    hearing: bool = False,
    asides: bool = False,
) -> Event:
    """`session.created` and `session.updated`. `hearing`: `voicegate.hearing` events will come; `asides`: and
    they tell asides."""
    audio = {"format": {"type": "audio/pcm", "rate": RATE_HZ}}
    return server(
        kind,
        session={
            "type": "realtime",
            "id": session_id,
            "object": "realtime.session",
            "model": "voicegate",
            "instructions": instructions,
            "output_modalities": ["audio"],
            "audio": {"input": {**audio, "turn_detection": None}, "output": {**audio, "voice": voice}},
            "voicegate": {
                "lead_s": lead_s,
                "hearing": hearing,
                "asides": asides,
                "limits": {
                    "conversations": limits.conversations,
                    "utterance_s": limits.utterance_s,
                    "reply_s": limits.reply_s,
                    "transcribes": limits.transcribes,
                    "recalls": limits.recalls,
                },
            },
        },
    )


def response(kind: str, response_id: str, item_id: str, status: str, number: int, **more: Any) -> Event:
    """`response.created` and `response.done`."""
    body = {
        "id": response_id,
        "object": "realtime.response",
        "status": status,
        "output": more.pop("output", []),
        "metadata": more.pop("metadata", None),
        "voicegate": {"item_id": item_id, "number": number, **more},
    }
    return server(kind, response=body)


def assistant_item(item_id: str, text: str, status: str) -> Event:
    return {
        "id": item_id,
        "object": "realtime.item",
        "type": "message",
        "role": "assistant",
        "status": status,
        "content": [{"type": "output_audio", "transcript": text}],
    }


def user_item(item_id: str, text: str | None) -> Event:
    return {
        "id": item_id,
        "object": "realtime.item",
        "type": "message",
        "role": "user",
        "status": "completed",
        "content": [{"type": "input_audio", "transcript": text}],
    }


def item_added(item: Event) -> Event:
    return server("conversation.item.added", item=item, previous_item_id=None)


def transcription(item_id: str, understood: Understood) -> Event:
    """What a transcribing engine understood of an utterance."""
    return server(
        "conversation.item.input_audio_transcription.completed",
        item_id=item_id,
        content_index=0,
        transcript=understood.text or "",
        usage={"type": "duration", "seconds": understood.duration_s},
        voicegate={
            "confidence": understood.confidence,
            "duration_s": understood.duration_s,
            **({} if understood.intent is None else {"intent": understood.intent}),
            **({"slots": dict(understood.slots)} if understood.slots else {}),
        },
    )


def hearing(utterance: int, early: EarlyHearing) -> Event:
    """What a pause of the present utterance was understood as. `utterance`: the number of commits and clears
    that the client sent before it."""
    return server(
        "voicegate.hearing",
        utterance=utterance,
        heard_ms=round(early.heard_s * 1000),
        state=early.state,
        aside=early.aside,
    )
