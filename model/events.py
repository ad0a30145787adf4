"""The contract's events as they travel: OpenAI Realtime's names and shapes, ours in `voicegate` objects.

`parse` checks a client's event strictly: an unknown type or field is a `ProtocolError` that names it. Server
events are built here too, so that every name of the protocol stands in this file once.

Binary frames, when a session asked for them: PCM16 little-endian mono 24 kHz, 100 ms at most. From the client
they are `input_audio_buffer.append`; from the server each begins with the u32 number of its response, as told
in `response.created`.
"""

from __future__ import annotations

import base64
import binascii
import json
import secrets
import struct
from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from model.api import RATE_HZ, Floats, Limits, Understood
from model.errors import ProtocolError

Event = dict[str, Any]

BINARY_HEAD: Final = struct.Struct("<I")
MAX_APPEND_S: Final = 15.0
"""Sound in one append event; the hall sends 100 ms, other clients may send more."""

_ANY: Final = None
CLIENT_FIELDS: Final[Mapping[str, Mapping[str, Any]]] = {
    "session.update": {
        "session": {
            "type": _ANY, "model": _ANY, "instructions": _ANY, "tools": _ANY, "tool_choice": _ANY,
            "output_modalities": _ANY, "audio": _ANY, "max_output_tokens": _ANY,
            "voicegate": {
                "binary": _ANY, "grant": _ANY, "lead_s": _ANY,
                "answers": _ANY, "facts": _ANY, "phrases": _ANY,
            },
        }
    },
    "input_audio_buffer.append": {"audio": _ANY},
    "input_audio_buffer.commit": {},
    "input_audio_buffer.clear": {},
    "conversation.item.create": {"item": _ANY, "previous_item_id": _ANY},
    "conversation.item.truncate": {"item_id": _ANY, "content_index": _ANY, "audio_end_ms": _ANY},
    "response.create": {
        "response": {
            "instructions": _ANY, "output_modalities": _ANY, "metadata": _ANY, "conversation": _ANY,
            "voicegate": {"say": _ANY},
        }
    },
    "response.cancel": {"response_id": _ANY},
    "voicegate.playout": {"item_id": _ANY, "played_ms": _ANY},
}  # fmt: skip


def parse(message: str | bytes) -> Event:
    """A client's event. Raises `ProtocolError` naming what is not of the contract."""
    try:
        event = json.loads(message)
    except ValueError as error:
        raise ProtocolError(f"not JSON: {error}", "type") from None
    if not isinstance(event, dict) or not isinstance(event.get("type"), str):
        raise ProtocolError("an event is a JSON object with a type", "type")
    fields = CLIENT_FIELDS.get(event["type"])
    if fields is None:
        raise ProtocolError(f"unknown event {event['type']!r}", "type")
    _check(event, {"type": _ANY, "event_id": _ANY, **fields}, "")
    return event


def _check(value: Mapping[str, Any], known: Mapping[str, Any], path: str) -> None:
    for key, inner in value.items():
        if key not in known:
            raise ProtocolError(f"unknown field {path}{key!r}", f"{path}{key}")
        if known[key] is not None and inner is not None:
            if not isinstance(inner, dict):
                raise ProtocolError(f"{path}{key} must be an object", f"{path}{key}")
            _check(inner, known[key], f"{path}{key}.")


def pcm_from_base64(audio: object) -> Floats:
    """`(n,)` float32. Raises `ProtocolError`."""
    try:
        return pcm_from_bytes(base64.b64decode(str(audio), validate=True))
    except binascii.Error as error:
        raise ProtocolError(f"audio is not base64: {error}", "audio") from None


def pcm_from_bytes(raw: bytes) -> Floats:
    if len(raw) % 2 or len(raw) > 2 * RATE_HZ * MAX_APPEND_S:
        raise ProtocolError(f"audio must be PCM16 of at most {MAX_APPEND_S:g} s", "audio")
    return np.frombuffer(raw, "<i2").astype(np.float32) * np.float32(1 / 32768)


def pcm_to_bytes(pcm: Floats) -> bytes:
    scaled: Floats = np.clip(np.rint(pcm * np.float32(32767)), -32768, 32767)
    return scaled.astype("<i2").tobytes()


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
    kind: str, session_id: str, instructions: str, voice: str, limits: Limits, lead_s: float
) -> Event:
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
                "limits": {
                    "conversations": limits.conversations,
                    "utterance_s": limits.utterance_s,
                    "reply_s": limits.reply_s,
                    "transcribes": limits.transcribes,
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


def transcription(item_id: str, understood: Understood) -> Event:
    """What a transcribing engine understood of an utterance."""
    return server(
        "conversation.item.input_audio_transcription.completed",
        item_id=item_id,
        content_index=0,
        transcript=understood.text or "",
        usage={"type": "duration", "seconds": understood.duration_s},
        voicegate={"confidence": understood.confidence, "duration_s": understood.duration_s},
    )
