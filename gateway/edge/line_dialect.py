"""What a line can read: pjsua2 drops a message without a word when one header of it is not to its taste.

What callers write goes on as it came where a line reads it, and is written anew where it does not. What a
line then says to the caller in its own words the edge replaces by the caller's.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Final
from urllib.parse import quote

from gateway.edge.header import Address, CSeq, addresses
from gateway.edge.sip_message import Request
from gateway.edge.uri import SIP, URI

_ATOM: Final = r"[A-Za-z0-9.!%*_+`'~-]++"
_VALUE: Final = rf'(?:{_ATOM}|"[^"\\\x00-\x1f\x7f]*+")'
_TAIL: Final = rf"(?:;{_ATOM}(?:={_VALUE})?+)*+"
_USER: Final = "-_.!~*'()&=+$,;?/"
_IN_PARAMETER: Final = "-_.!~*'()[]/:&+$"
_NAME_AND_URI: Final = (
    r'(?:"[^"\\\x00-\x1f\x7f]*+" ?)?+<sips?:'
    rf"(?:[A-Za-z0-9{re.escape(_USER)}%]++@)?+(?:[A-Za-z0-9._-]++|\[[0-9A-Fa-f:.]++\])(?::[0-9]{{1,5}})?+"
    rf"(?:;[A-Za-z0-9{re.escape(_IN_PARAMETER)}%]++(?:=[A-Za-z0-9{re.escape(_IN_PARAMETER)}%]++)?+)*+>"
)
_READABLE: Final = re.compile(_NAME_AND_URI + _TAIL)
_READABLE_CONTACT: Final = re.compile(_NAME_AND_URI)
"""Nothing behind it: `q` and `expires` would be read as numbers, and a line needs none of them."""
_TEL: Final = re.compile(r"tel:[0-9A-Fa-f*#+.()-]++(?:;[A-Za-z0-9.-]++(?:=[A-Za-z0-9.+-]++)?+)*+")
_NOBODY: Final = "sip:unknown@unknown.invalid"
"""For From and To of a kind that only their reader knows; the line does not need them."""
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
_WORD: Final = re.compile(rf"[ \t]*+({_ATOM})[ \t]*+")
_TYPE: Final = re.compile(rf"{_ATOM}(?:/{_ATOM})?+")
_TYPE_AND_TAIL: Final = re.compile(rf"{_ATOM}(?:/{_ATOM})?+(?:[ \t]*+;[ \t]*+{_ATOM}(?:={_VALUE})?+)*+")
_REFRESH: Final = re.compile(
    r"([0-9]{1,9})[ \t]*+(?:;[ \t]*+refresher[ \t]*+=[ \t]*+(ua[cs]))?+", re.IGNORECASE
)
_NUMBER: Final = re.compile(r"([0-9]{1,9})")
_RACK: Final = re.compile(rf"([0-9]{{1,10}})[ \t]++([0-9]{{1,10}})[ \t]++({_ATOM})")


def readable(name: str, values: Sequence[str]) -> list[str]:
    """The lines of a header as a line reads them; none, when nothing of it can be said."""
    write = _WRITERS.get(name.lower())
    if write is None:
        return [value for value in values if _CONTROL.search(value) is None]
    written = []
    for value in values:
        try:
            written.append(write(value))
        except ValueError:
            continue  # of what `read` has not looked at; a line would not understand it either
    return [value for value in written if value]


def contact_of_old(request: Request) -> str:
    """A Contact for a request from before RFC 3261 that has none: no line takes it without."""
    uri = request.from_address.uri
    return f"<{_uri(uri)}>" if uri.scheme in SIP else f"<{_NOBODY}>"


def _address(text: str) -> str:
    if _READABLE.fullmatch(text) is not None:
        return text
    address = Address.read(text)
    tag = address.parameters.get("tag")
    return _written(address) + (f";tag={tag}" if tag else "")


def _many(text: str) -> str:
    if _READABLE.fullmatch(text) is not None:
        return text
    return ", ".join(map(_written, addresses([text])))


def _contact(text: str) -> str:
    """A line would send its requests to `sips:` by TLS, which it does not have."""
    if _READABLE_CONTACT.fullmatch(text) is not None and "sips:" not in text:
        return text
    return ", ".join(_written(address).replace("<sips:", "<sip:", 1) for address in addresses([text]))


def _written(address: Address) -> str:
    """Without the parameters behind it, of which a line needs the tag of From and To alone."""
    name = re.sub(r'(["\\])', r"\\\1", address.name)
    return (f'"{name}" ' if name else "") + f"<{_uri(address.uri)}>"


def _uri(uri: URI) -> str:
    if uri.scheme == "tel" and _TEL.fullmatch(uri.text) is not None:
        return uri.text
    if uri.scheme not in SIP:
        return _NOBODY
    parts = uri.text.partition(":")[2].rpartition("@")[2].split(";")
    tail = "".join(f";{_escaped_parameter(part)}" for part in parts[1:] if part)
    user = "" if uri.user is None else quote(uri.user, safe=_USER + "%") + "@"
    return f"{uri.scheme}:{user}{parts[0]}{tail}"


def _escaped_parameter(text: str) -> str:
    name, equal, value = text.partition("=")
    value = quote(value, safe=_IN_PARAMETER + "%")
    return quote(name, safe=_IN_PARAMETER + "%") + (f"={value}" if equal and value else "")


def _words(text: str) -> str:
    found = (_WORD.fullmatch(word) for word in text.split(","))
    return ", ".join(word[1] for word in found if word is not None)


def _type(text: str) -> str:
    """A type of content, or an event, with its parameters if all of them can be read."""
    if _TYPE_AND_TAIL.fullmatch(text) is not None:
        return text
    found = _TYPE.match(text)
    return "" if found is None else found[0]


def _event(text: str) -> str:
    return _type(text) if "/" not in text.partition(";")[0] else ""


def _refresh(text: str) -> str:
    found = _REFRESH.match(text)
    if found is None:
        return ""
    return found[1] + (f";refresher={found[2].lower()}" if found[2] else "")


def _number(text: str) -> str:
    found = _NUMBER.match(text)
    return "" if found is None else found[1]


def _rack(text: str) -> str:
    found = _RACK.fullmatch(text)
    return "" if found is None else " ".join(found.groups())


_WRITERS: Final[Mapping[str, Callable[[str], str]]] = {
    "from": _address, "to": _address, "contact": _contact, "record-route": _many,
    "cseq": lambda text: str(CSeq.read(text)),
    "supported": _words, "require": _words, "allow": _words, "unsupported": _words,
    "session-expires": _refresh, "min-se": _number, "retry-after": _number, "rseq": _number, "rack": _rack,
    "content-type": _type, "event": _event, "subscription-state": _event,
}  # fmt: skip
