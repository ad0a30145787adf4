"""Server-sent events as bytes that arrive (WHATWG HTML §9.2.6), of which a chat server needs the data.

A line ends with LF, CR or CRLF; a blank line ends an event; lines of `data` are joined by LF; comments and
other fields mean nothing here. What is not UTF-8 is replaced (U+FFFD), as the rule has it. An event that the
end of the stream cuts off is none.
"""

from __future__ import annotations

import re
from typing import Final

from model.errors import ChatServerError

MOST_BYTES: Final = 1 << 18
"""Of one line, and of one event's data (256 kB)."""
_BOM: Final = b"\xef\xbb\xbf"
_LINE_END: Final = re.compile(rb"\r\n|\n|\r")


class EventStream:
    """One response's body."""

    def __init__(self) -> None:
        self._line = bytearray()
        self._data: list[str] = []
        self._size = 0
        self._first = True
        self._after_cr = False

    def feed(self, chunk: bytes) -> list[str]:
        """The data of each event that `chunk` ends. Raises `ChatServerError` for one that is too large."""
        events: list[str] = []
        if self._after_cr:  # the LF of a CRLF whose CR was the end of a chunk
            chunk = chunk.removeprefix(b"\n")
        at = 0
        for end in _LINE_END.finditer(chunk):
            self._take(chunk[at : end.start()])
            self._over(events)
            at = end.end()
        self._take(chunk[at:])
        self._after_cr = chunk.endswith(b"\r") or (self._after_cr and not chunk)
        return events

    def _take(self, part: bytes) -> None:
        self._line += part
        if len(self._line) + self._size > MOST_BYTES:
            raise ChatServerError("too_large", f"an event of more than {MOST_BYTES >> 10} kB came")

    def _over(self, events: list[str]) -> None:
        """The line is whole."""
        line, self._line = bytes(self._line), bytearray()
        if self._first:
            self._first, line = False, line.removeprefix(_BOM)
        if not line:
            if self._data:
                events.append("\n".join(self._data))
            self._data, self._size = [], 0
            return
        name, _, value = line.partition(b":")
        if name == b"data":
            self._size += len(value) + 1
            self._data.append(value.removeprefix(b" ").decode("utf-8", "replace"))
