"""What a question to the office is: a frozen dataclass that knows its answer's type, and who may ask it.

pydantic checks every field where a question arrives: another type, a missing or an unknown field refuse it.
A `Blob` travels beside the JSON, not in it.
"""

from __future__ import annotations

from functools import cache
from typing import Annotated, Any, ClassVar, Final, Generic, Literal, TypeVar, cast, get_args, get_origin

from pydantic import ConfigDict, PlainSerializer, PlainValidator, TypeAdapter, ValidationError, ValidationInfo
from pydantic_core import PydanticSerializationError, SchemaValidator
from pydantic_core.core_schema import CoreConfig, SerializationInfo

from consent.service.parcel import Malformed, Sizes

Given = TypeVar("Given", covariant=True)

BODY: Final = 256 << 10
ANSWER: Final = Sizes(body=256 << 20, blobs=256 << 20)
"""What a client takes of the office, which may have a ledger of a million rows to show."""

Whose = Literal["gateway", "office", "anyone"]
"""Who may ask: the gateway that calls run in; the user that the office itself runs as (and root); whoever may
open the socket. What an operator decides is open to anyone, and needs a signed act."""


def _lay_down(blob: bytes, info: SerializationInfo) -> int:
    blobs = cast("list[bytes]", info.context)
    blobs.append(blob)
    return len(blobs) - 1


def _pick_up(at: object, info: ValidationInfo) -> bytes:
    blobs = cast("list[bytes]", info.context)
    if type(at) is not int or not 0 <= at < len(blobs):
        raise ValueError("there is no such blob")
    return blobs[at]


Blob = Annotated[bytes, PlainSerializer(_lay_down), PlainValidator(_pick_up)]
"""Raw bytes."""


class Question(Generic[Given]):
    """A question whose answer is a `Given`."""

    __slots__ = ()
    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", strict=True)
    wire: ClassVar[str]
    """its name on the wire"""
    whose: ClassVar[Whose]
    again: ClassVar[bool] = False
    """it may be asked twice: the second time changes nothing more"""
    blob_bytes: ClassVar[int] = 0
    """how many bytes its blobs may have together"""
    slow: ClassVar[bool] = False
    """it takes seconds; few of these are worked on at once"""
    within_s: ClassVar[float] = 10.0
    """how long whoever asks waits for the answer"""

    @classmethod
    def limits(cls) -> Sizes:
        """How large one may be."""
        return Sizes(BODY, cls.blob_bytes)


@cache
def adapter(hint: Any) -> TypeAdapter[Any]:
    """How values of that type stand in JSON."""
    return TypeAdapter(hint)


@cache
def _reader(hint: Any) -> SchemaValidator:
    """What reads them, and keeps no text: pydantic would keep the last 16,384 short ones, PINs among them."""
    return SchemaValidator(adapter(hint).core_schema, CoreConfig(cache_strings="keys"))


def given_by(kind: type[Question[Any]]) -> Any:
    """The type of the answer to questions of that kind."""
    for base in kind.__orig_bases__:  # type: ignore[attr-defined]  # every subclass of a generic class has it
        if get_origin(base) is Question:
            return get_args(base)[0]
    raise TypeError(f"{kind.__name__} says no answer")


def written(hint: Any, value: object) -> tuple[bytes, list[bytes]]:
    """JSON and blobs of a value of the type `hint`. Raises `Malformed` when it is not of that type."""
    blobs: list[bytes] = []
    try:
        return adapter(hint).dump_json(value, context=blobs, warnings="error"), blobs
    except PydanticSerializationError as error:
        raise Malformed(f"it cannot be written: {error}") from None


def understood(hint: Any, body: bytes, blobs: list[bytes]) -> Any:
    """The value that `written` wrote. Raises `Malformed`, which tells nothing of what was in it."""
    try:
        return _reader(hint).validate_json(body, strict=True, extra="forbid", context=blobs)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False, include_context=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise Malformed(f"field {where}: {first['type']}" if where else str(first["type"])) from None
