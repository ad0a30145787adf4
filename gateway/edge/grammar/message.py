"""A SIP message as it comes off the wire: scanned within limits, checked, and matched to its transaction.

What the edge needs of it is read (`header`, `uri`); all else is text that goes on as it came. Read is liberal
where a message can mean only one thing, and strict where two readers might see two things in it: the edge's
word decides what a line does.
"""

from __future__ import annotations

import re
from typing import Final

from gateway.edge.flows.transport import Flow
from gateway.edge.grammar.header import BLANK, TOKEN, addresses, reason
from gateway.edge.grammar.sip_message import UNTAGGED, Request, Response, SipMessage
from gateway.edge.grammar.uri import SIP, URI

MAX_MESSAGE: Final = 32 << 10
MAX_HEAD: Final = 8_192
MAX_LINES: Final = 128
"""Header lines."""
MAX_ADDRESS: Final = 1_024
"""Characters of a From, To or Contact: a line copies each several times, into places of fixed size."""
MAGIC: Final = "z9hG4bK"
VERSION: Final = re.compile(r"SIP/[0-9]+\.[0-9]+", re.IGNORECASE)
_STATUS: Final = re.compile(r"[1-6][0-9][0-9]")
_FOLD: Final = re.compile(r"\r\n[ \t]++")
_ONCE: Final = ("from", "to", "call-id", "cseq", "content-length", "content-type", "max-forwards")
"""Headers that a message may have once; of two, we and a line might each believe another one."""
_NEEDED: Final = ("via", "from", "to", "call-id", "cseq")
_COMPACT: Final = {
    "a": "Accept-Contact", "b": "Referred-By", "c": "Content-Type", "d": "Request-Disposition",
    "e": "Content-Encoding", "f": "From", "i": "Call-ID", "j": "Reject-Contact", "k": "Supported",
    "l": "Content-Length", "m": "Contact", "o": "Event", "r": "Refer-To", "s": "Subject", "t": "To",
    "u": "Allow-Events", "v": "Via", "x": "Session-Expires", "y": "Identity",
}  # fmt: skip
"""One-letter names, of the registry that RFC 3261 §7.3.3 began."""
_LONG: Final = {letter: name.lower() for letter, name in _COMPACT.items()}
_A_VIA: Final = re.compile(r"SIP[ \t]*+/[ \t]*+[0-9.]++[ \t]*+/", re.IGNORECASE)
_FIRST_VIA: Final = re.compile(r'(?:[^",]++|"[^"]*+"|")*+')
_RPORT: Final = re.compile(r"(;[ \t]*rport)\b(?:[ \t]*=[ \t]*\d*)?", re.IGNORECASE)
_RECEIVED: Final = re.compile(r";[ \t]*received[ \t]*=[ \t]*[^;,\s]*", re.IGNORECASE)
_SENT_BY: Final = re.compile(r"SIP[^/]*+/[^/]*+/\s*+\S++\s++(\[[^\]]*+\]|[^\s;:,]++)", re.IGNORECASE)

Key = tuple[str, str, str]
"""(branch, source, method) of a transaction that a peer began."""


class Unreadable(ValueError):
    """These bytes are not a SIP message, or not one that the edge takes.

    `status` is the SIP status for a peer who wrote a request.
    """

    def __init__(self, why: str, status: int = 400) -> None:
        super().__init__(why)
        self.status = status


def read(data: bytes, *, from_edge: bool = False) -> Request | Response:
    """Raises `Unreadable`. The message has one Via at least, Call-ID, CSeq, From and To, all well formed.

    `from_edge`: an edge has read it before, and put its Via over what a client from before RFC 3261 wrote.
    """
    message = scan(data)
    try:
        _check(message, old_allowed=from_edge)
    except Unreadable:
        raise
    except KeyError as missing:
        raise Unreadable(f"malformed: it has no {missing.args[0]}") from None
    except ValueError as error:
        raise Unreadable(f"malformed: {error}") from None
    return message


def scan(data: bytes) -> Request | Response:
    """A message by its lines alone: none of its headers is checked, and its body may be too long.

    Raises `Unreadable`.
    """
    if len(data) > MAX_MESSAGE:
        raise Unreadable("too large", 513)
    head, blank, body = data.lstrip(b"\r\n").partition(b"\r\n\r\n")
    if not blank:
        raise Unreadable("no empty line ends its header")
    ends = head.count(b"\r\n")
    if len(head) > MAX_HEAD or ends > MAX_LINES:
        raise Unreadable("its header is too large", 513)
    # a line would take these for a line break, or for the end; in quotes a NUL may follow a backslash
    if head.count(b"\r") != ends or head.count(b"\n") != ends or b"\0" in head.replace(b"\\\0", b""):
        raise Unreadable("its header has a bare CR, LF or NUL")
    start, *lines = _text(head).split("\r\n")
    try:
        message = _begun(start, body)
        headers = message.headers
        for line in lines:
            name, colon, value = line.partition(":")
            name = name.rstrip(BLANK)
            if not colon or not name:
                raise Unreadable("a header has no name")
            headers.add(_COMPACT.get(name.lower(), name) if len(name) == 1 else name, value.strip(BLANK))
    except Unreadable:
        raise
    except ValueError as error:
        raise Unreadable(f"malformed: {error}") from None
    return message


def _text(head: bytes) -> str:
    """UTF-8 (old phones write display names in Latin-1), and unfolded (RFC 3261 §7.3.1)."""
    try:
        text = head.decode()
    except UnicodeDecodeError:
        text = head.decode("latin-1")
    return _FOLD.sub(" ", text) if "\r\n " in text or "\r\n\t" in text else text


def _begun(start: str, body: bytes) -> Request | Response:
    """Raises `ValueError`. Blanks at the end of a request line are nothing (RFC 4475 §3.1.2.10)."""
    if start[:4].upper() == "SIP/":
        version, _, rest = start.partition(" ")
        code, _, phrase = rest.partition(" ")
        if version.upper() != "SIP/2.0" or _STATUS.fullmatch(code) is None:
            raise Unreadable("it is neither a request nor a response")
        return Response(int(code), phrase, body)
    parts = start.rstrip(BLANK).split(" ")
    if len(parts) != 3 or VERSION.fullmatch(parts[2]) is None or TOKEN.fullmatch(parts[0]) is None:
        raise Unreadable("it is neither a request nor a response")
    if parts[2].upper() != "SIP/2.0":
        raise Unreadable("SIP/2.0, please", 505)
    return Request(parts[0], URI.read(parts[1]), body)


def _check(message: Request | Response, *, old_allowed: bool) -> None:
    """What is needed is there, once, and can be read. Raises `ValueError`, or `KeyError` of what is not."""
    headers, body = message.headers, message.body
    # RFC 2543 had neither tag nor Contact
    old = old_allowed or not _is_magic(message.top_via.parameters.get("branch"))
    for name in _ONCE:
        if len(headers.getlist(name)) > 1:
            raise Unreadable(f"a header stands twice: {name}")
    for name in ("From", "To", "Contact"):
        if sum(map(len, headers.getlist(name))) > MAX_ADDRESS:
            raise Unreadable(f"its {name} is too long")
    cseq, length, hops = message.cseq, message.content_length, message.max_forwards
    if not message.call_id or _unprintable(message.call_id):
        raise Unreadable("its Call-ID is empty or unprintable")
    mine, theirs = message.from_address.parameters["tag"], message.to_address.parameters.get("tag", "none")
    if mine == UNTAGGED and not old and isinstance(message, Request):
        raise Unreadable("From has no tag")
    for tag in (mine if mine != UNTAGGED else "none", theirs):
        if not tag or TOKEN.fullmatch(tag) is None:
            raise Unreadable("a tag cannot be read")
    if isinstance(message, Request) and message.method != cseq.method:
        raise Unreadable("CSeq is another method's")
    if hops is not None and hops > 255:
        raise Unreadable("Max-Forwards is out of range")
    if cseq.sequence >= 1 << 31 or (length is not None and length > len(body)):
        raise Unreadable("CSeq or Content-Length is out of range")
    if _targets(message):
        contacts = message.contact
        if isinstance(message, Request) and message.method == "INVITE":
            addresses(headers.getlist("Record-Route"))  # so that it can be written anew for a line
            if not contacts and not old:
                raise Unreadable("an INVITE needs a Contact")  # RFC 3261 §8.1.1.8
        if any(contact.uri.scheme not in SIP for contact in contacts):
            raise Unreadable("its Contact is not a SIP URI, so nobody could be reached there")
    if length is not None:
        message.body = body[:length]


def _targets(message: Request | Response) -> bool:
    """Whether its Contact is where the peer wants its next requests (RFC 3261 §12.2)."""
    method = message.cseq.method
    return method in ("INVITE", "UPDATE") and (isinstance(message, Request) or message.code < 300)


def _unprintable(text: str) -> bool:
    return any(character < " " or character == "\x7f" for character in text)


def bare_answer(data: bytes, status: int, phrase: str, flow: Flow, why: str = "") -> bytes | None:
    """A response to a request that could not be read, if it says where it would go; None for all else."""
    head = data.lstrip(b"\r\n")[:MAX_HEAD].partition(b"\r\n\r\n")[0]
    start, *lines = _text(head).split("\r\n")[:MAX_LINES]
    version = start.rstrip(BLANK).rpartition(" ")[2]
    if VERSION.fullmatch(version) is None or start.startswith("ACK "):
        return None
    found: dict[str, list[str]] = {}
    for line in lines:
        name, _, value = line.partition(":")
        name = name.strip(BLANK).lower()
        found.setdefault(_LONG.get(name, name), []).append(value.strip(BLANK))
    if "via" not in found or _A_VIA.match(found["via"][0]) is None:
        return None
    answer = [f"SIP/2.0 {status} {phrase}", *(f"Via: {via}" for via in stamped(found["via"], flow))]
    answer += [f"{name.title()}: {found[name][0]}" for name in _NEEDED[1:] if name in found]
    if why:
        answer.append(f"Reason: {reason(status, why)}")
    text = "\r\n".join([*answer, "Content-Length: 0", "", ""])
    return text.encode()


def _is_magic(branch: str | None) -> bool:
    """Whether a branch is one of RFC 3261, which nobody gives to two transactions."""
    return branch is not None and branch.startswith(MAGIC) and branch != MAGIC


def branch_of(message: SipMessage) -> str:
    return message.top_via.parameters.get("branch") or ""


def to_tag(message: SipMessage) -> str:
    """Empty outside a dialog."""
    return message.to_address.parameters.get("tag") or ""


def from_tag(message: SipMessage) -> str:
    return message.from_address.parameters["tag"] or ""


def transaction_key(request: Request, flow: Flow) -> Key:
    """By branch, or (RFC 3261 §17.2.3, for clients older than it) by what else tells requests apart."""
    branch = branch_of(request)
    if not _is_magic(branch):
        parts = (request.headers["Via"], request.call_id, from_tag(request), str(request.cseq.sequence))
        branch = "|".join(parts)
    return branch, f"{flow.transport}:{flow.host}:{flow.port}", request.method


def stamped(vias: list[str], flow: Flow) -> list[str]:
    """The Via lines of a response: `received` and `rport` (RFC 3581) on the topmost, nothing else changed."""
    whole = vias[0]
    match = _FIRST_VIA.match(whole)
    first = match[0] if match else whole
    rest = whole[len(first) :]
    first = _RECEIVED.sub("", first)
    wanted = _RPORT.search(first) is not None
    first = _RPORT.sub(f";rport={flow.port}", first)
    sent_by = _SENT_BY.match(first)
    host = sent_by[1].strip("[]") if sent_by else ""
    if wanted or host != flow.host:
        first = f"{first.rstrip('; ')};received={flow.host}"
    return [first + rest, *vias[1:]]
