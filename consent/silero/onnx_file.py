"""The numbers in an ONNX file, without the 20 MB of a library that runs one.

The file is a message in the encoding of Protocol Buffers; the field numbers are those of ONNX's `onnx.proto`.
Only files whose hash is known are read, so what is malformed ends in an error and no more is done about it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

from consent.errors import ModelFileError

_GRAPH: Final = 7  # of ModelProto
_NODE: Final = 1  # of GraphProto
_OUTPUT, _ATTRIBUTE = 2, 5  # of NodeProto
_TENSOR, _SUBGRAPH = 5, 6  # of AttributeProto
_DIMS, _DATA_TYPE, _RAW_DATA = 1, 2, 9  # of TensorProto
_FLOAT: Final = 1

Tensor = NDArray[np.float32]


def constants(content: bytes) -> dict[str, Tensor]:
    """The float32 constants of a model and of its branches, by the names of their nodes' outputs.

    Raises `ModelFileError` when the content is not such a file.
    """
    try:
        found: dict[str, Tensor] = {}
        for number, value in _fields(memoryview(content)):
            if number == _GRAPH and isinstance(value, memoryview):
                found.update(_of_graph(value))
    except (IndexError, ValueError) as error:
        raise ModelFileError(f"this is not an ONNX file: {error}") from None
    return found


def _of_graph(graph: memoryview) -> Iterator[tuple[str, Tensor]]:
    for number, node in _fields(graph):
        if number != _NODE or not isinstance(node, memoryview):
            continue
        name = ""
        for at, value in _fields(node):
            if not isinstance(value, memoryview):
                continue
            if at == _OUTPUT:
                name = bytes(value).decode()
            elif at == _ATTRIBUTE:
                for kind, part in _fields(value):
                    if kind == _SUBGRAPH and isinstance(part, memoryview):
                        yield from _of_graph(part)
                    elif kind == _TENSOR and isinstance(part, memoryview):
                        tensor = _tensor(part)
                        if tensor is not None:
                            yield name, tensor


def _tensor(message: memoryview) -> Tensor | None:
    """None for what is not float32."""
    shape: list[int] = []
    data, kind = memoryview(b""), 0
    for number, value in _fields(message):
        if number == _DIMS:
            shape += [value] if isinstance(value, int) else _packed(value)
        elif number == _DATA_TYPE and isinstance(value, int):
            kind = value
        elif number == _RAW_DATA and isinstance(value, memoryview):
            data = value
    return np.frombuffer(data, "<f4").reshape(shape) if kind == _FLOAT and len(data) else None


def _packed(data: memoryview) -> list[int]:
    numbers, at = [], 0
    while at < len(data):
        number, at = _varint(data, at)
        numbers.append(number)
    return numbers


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Number and value of each field: an int, or what is in it."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        kind = tag & 7
        if kind == 0:
            value, at = _varint(message, at)
            yield tag >> 3, value
        elif kind == 2:
            size, at = _varint(message, at)
            if at + size > len(message):
                raise ValueError("it is cut short")
            yield tag >> 3, message[at : at + size]
            at += size
        elif kind in (1, 5):
            at += 8 if kind == 1 else 4
        else:
            raise ValueError(f"a field of kind {kind}")


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError("a number of more than 64 bits")
