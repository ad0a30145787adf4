"""A SIP message: its headers as text, and what the edge reads in them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, Final, TypeVar

from gateway.edge.grammar.header import BLANK, Address, CSeq, Via, addresses, number, split
from gateway.edge.grammar.uri import URI

T = TypeVar("T")
UNTAGGED: Final = "(none)"
"""The From tag of a client from before RFC 3261, which has none; no client can write this one."""


class Headers:
    """Headers in the order of their first line, by name in any case; several lines may have one name."""

    __slots__ = ("_named",)

    def __init__(self) -> None:
        self._named: dict[str, tuple[str, list[str]]] = {}

    def add(self, name: str, value: str) -> None:
        """One more line."""
        key = name.lower()
        found = self._named.get(key)
        if found is None:
            self._named[key] = (name, [value])
        else:
            found[1].append(value)

    def set(self, name: str, value: str) -> None:
        """This line instead of all that have the name."""
        self.setlist(name, [value])

    def setlist(self, name: str, values: list[str]) -> None:
        """These lines instead of all that have the name."""
        key = name.lower()
        found = self._named.get(key)
        self._named[key] = (name if found is None else found[0], values)

    def get(self, name: str) -> str | None:
        """Its first line."""
        found = self._named.get(name.lower())
        return None if found is None else found[1][0]

    def getlist(self, name: str) -> list[str]:
        """All its lines."""
        found = self._named.get(name.lower())
        return [] if found is None else found[1]

    def keys(self) -> list[str]:
        """The names, each once."""
        return [name for name, _ in self._named.values()]

    def __getitem__(self, name: str) -> str:
        """Its first line. Raises `KeyError`."""
        found = self._named.get(name.lower())
        if found is None:
            raise KeyError(name)
        return found[1][0]

    def __str__(self) -> str:
        return "".join(f"{name}: {v}\r\n" for name, values in self._named.values() for v in values) + "\r\n"


class SipMessage:
    """A `Request` or a `Response`. What it says is read when it is asked for, and once."""

    __slots__ = ("_kept", "body", "headers")

    def __init__(self, body: bytes = b"") -> None:
        self.body = body
        self.headers = Headers()
        self._kept: dict[str, tuple[object, Any]] = {}

    def _once(self, name: str, text: object, read: Callable[[], T]) -> T:
        kept = self._kept.get(name)
        if kept is None or kept[0] != text:
            kept = self._kept[name] = (text, read())
        value: T = kept[1]
        return value

    @property
    def top_via(self) -> Via:
        """The last hop's. Raises `ValueError`, as all of these do before `read` has seen the message."""
        text = self.headers["Via"]
        return self._once("via", text, lambda: Via.read(split(text, ",")[0]))

    @property
    def via(self) -> list[Via]:
        """From the topmost down to the first that cannot be read: those are other people's business."""
        found: list[Via] = []
        try:
            for text in self.headers.getlist("Via"):
                for via in split(text, ","):
                    found.append(Via.read(via))  # those before one that cannot be read stay
        except ValueError:
            return found
        return found

    @via.setter
    def via(self, vias: Iterable[Via]) -> None:
        self.headers.setlist("Via", [str(via) for via in vias])

    @property
    def from_address(self) -> Address:
        """With the tag `UNTAGGED` where it has none."""
        text = self.headers["From"]
        return self._once("from", text, lambda: _tagged(Address.read(text)))

    @property
    def to_address(self) -> Address:
        text = self.headers["To"]
        return self._once("to", text, lambda: Address.read(text))

    @property
    def contact(self) -> list[Address]:
        """Raises `ValueError` for a `*` too."""
        texts = self.headers.getlist("Contact")
        return self._once("contact", tuple(texts), lambda: addresses(texts))

    @property
    def cseq(self) -> CSeq:
        text = self.headers["CSeq"]
        return self._once("cseq", text, lambda: CSeq.read(text))

    @cseq.setter
    def cseq(self, value: CSeq) -> None:
        self.headers.set("CSeq", str(value))

    @property
    def call_id(self) -> str:
        return self.headers["Call-ID"]

    @call_id.setter
    def call_id(self, value: str) -> None:
        self.headers.set("Call-ID", value)

    @property
    def max_forwards(self) -> int | None:
        text = self.headers.get("Max-Forwards")
        return None if text is None else number(text)

    @max_forwards.setter
    def max_forwards(self, hops: int) -> None:
        self.headers.set("Max-Forwards", str(hops))

    @property
    def content_length(self) -> int | None:
        text = self.headers.get("Content-Length")
        return None if text is None else number(text)

    @property
    def user_agent(self) -> str | None:
        return self.headers.get("User-Agent")

    @property
    def require(self) -> list[str]:
        return self._words("Require")

    @property
    def proxy_require(self) -> list[str]:
        return self._words("Proxy-Require")

    @property
    def supported(self) -> list[str]:
        return self._words("Supported")

    def _words(self, name: str) -> list[str]:
        words = (word.strip(BLANK) for text in self.headers.getlist(name) for word in text.split(","))
        return [word for word in words if word]


def _tagged(address: Address) -> Address:
    if "tag" in address.parameters:
        return address
    return replace(address, parameters={**address.parameters, "tag": UNTAGGED})


class Request(SipMessage):
    """What a peer asks."""

    __slots__ = ("method", "uri")

    def __init__(self, method: str, uri: URI, body: bytes = b"") -> None:
        super().__init__(body)
        self.method = method
        self.uri = uri

    def __bytes__(self) -> bytes:
        return f"{self.method} {self.uri} SIP/2.0\r\n{self.headers}".encode() + self.body


class Response(SipMessage):
    """What a peer answers."""

    __slots__ = ("code", "phrase")

    def __init__(self, code: int, phrase: str, body: bytes = b"") -> None:
        super().__init__(body)
        self.code = code
        self.phrase = phrase

    def __bytes__(self) -> bytes:
        return f"SIP/2.0 {self.code} {self.phrase}\r\n{self.headers}".encode() + self.body
