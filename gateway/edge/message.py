"""A SIP message as it comes off the wire: read with limits, checked, and matched to its transaction.

`sipmessage` knows the grammar; here is what it leaves open: how much is read at all, folded lines and blanks
before colons (RFC 3261 §7.3.1), what every message must have (§8.1.1), and the text of a Via, which a
response carries back unchanged but for what RFC 3581 adds.
"""

from __future__ import annotations

import re
from typing import Final

from sipmessage import Message, Request, Response

from gateway.edge.transport import Flow

MAX_MESSAGE: Final = 16_384
MAX_HEAD: Final = 8_192
MAX_LINES: Final = 128
"""Header lines. Looking one up is linear in their number, so this also bounds the time a message takes."""
MAX_ADDRESS: Final = 1_024
"""Characters of a From, To or Contact: the grammar reads long lists of them slowly."""
MAGIC: Final = "z9hG4bK"
_FOLD: Final = re.compile(rb"\r\n[ \t]+")
_BLANK_BEFORE_COLON: Final = re.compile(rb"^([^\s:]{1,64})[ \t]+:", re.MULTILINE)
_BARE_BREAK: Final = re.compile(rb"\r(?!\n)|(?<!\r)\n|\0")
_TAG: Final = re.compile(r";\s*tag\s*=", re.IGNORECASE)
_ONCE: Final = ("From", "To", "Call-ID", "CSeq", "Content-Length", "Content-Type", "Max-Forwards")
"""Headers that a message may have once; of two, we and a line might each believe another one."""
_NEEDED: Final = ("via", "from", "to", "call-id", "cseq")
_LETTERS: Final = {"v": "via", "f": "from", "t": "to", "i": "call-id"}
_FIRST_VIA: Final = re.compile(r'(?:[^",]|"[^"]*")*')
_RPORT: Final = re.compile(r";\s*rport\b(?:\s*=\s*\d*)?", re.IGNORECASE)
_RECEIVED: Final = re.compile(r";\s*received\s*=\s*[^;,\s]*", re.IGNORECASE)

Key = tuple[str, str, str]
"""(branch, source, method) of a transaction that a peer began."""


class Unreadable(ValueError):
    """These bytes are not a SIP message, or not one that the edge takes.

    `status` is the SIP status for a peer who wrote a request.
    """

    def __init__(self, why: str, status: int = 400) -> None:
        super().__init__(why)
        self.status = status


def read(data: bytes) -> Request | Response:
    """Raises `Unreadable`. The message has one Via at least, Call-ID, CSeq, From and To, all well formed."""
    if len(data) > MAX_MESSAGE:
        raise Unreadable("too large", 513)
    head, blank, body = data.partition(b"\r\n\r\n")
    if not blank:
        raise Unreadable("no empty line ends its header")
    if len(head) > MAX_HEAD or head.count(b"\n") > MAX_LINES:
        raise Unreadable("its header is too large", 513)
    if _BARE_BREAK.search(head):
        raise Unreadable("its header has a bare CR, LF or NUL")  # a line would take it for a line break
    try:
        message = Message.parse(_plain(head) + blank + body)
        for name in ("From", "To", "Contact"):
            if sum(map(len, message.headers.getlist(name))) > MAX_ADDRESS:
                raise Unreadable(f"its {name} is too long")
        vias, cseq = message.via, message.cseq
        tagged = message.from_address.parameters.get("tag"), message.to_address
        named = message.call_id
        length = message.content_length
        hops = message.max_forwards
        contacts = message.contact if _targets(message) else []
    except Unreadable:
        raise
    except Exception as error:  # whatever a parser does with garbage, it is garbage
        raise Unreadable(f"malformed: {type(error).__name__}") from None
    if any(len(message.headers.getlist(name)) > 1 for name in _ONCE):
        raise Unreadable("a header stands twice")
    if any(len(_TAG.findall(message.headers[name])) > 1 for name in ("From", "To")):
        raise Unreadable("two tags")
    if not vias or not named or not tagged[0]:
        raise Unreadable("Via, Call-ID or From's tag is empty")
    if isinstance(message, Request) and message.method != cseq.method:
        raise Unreadable("CSeq is another method's")
    if isinstance(message, Request) and message.method == "INVITE" and not contacts:
        raise Unreadable("an INVITE needs a Contact")  # RFC 3261 §8.1.1.8
    if hops is not None and not 0 <= hops <= 255:
        raise Unreadable("Max-Forwards is out of range")
    if cseq.sequence >= 1 << 31 or (length is not None and not 0 <= length <= len(body)):
        raise Unreadable("CSeq or Content-Length is out of range")
    if length is not None:
        message.body = body[:length]
    return message


def _targets(message: Request | Response) -> bool:
    """Whether its Contact is where the peer wants its next requests (RFC 3261 §12.2)."""
    method = message.cseq.method
    return method in ("INVITE", "UPDATE") and (isinstance(message, Request) or message.code < 300)


def _plain(head: bytes) -> bytes:
    """Unfolded, no blank before a colon, UTF-8 (old phones write display names in Latin-1)."""
    plain = _BLANK_BEFORE_COLON.sub(rb"\1:", _FOLD.sub(b" ", head))
    try:
        plain.decode()
    except UnicodeDecodeError:
        return plain.decode("latin-1").encode()
    return plain


def bare_answer(data: bytes, status: int, phrase: str, flow: Flow) -> bytes | None:
    """A response to a request that could not be read, if it says where it would go; None for all else."""
    head = data[:MAX_HEAD].partition(b"\r\n\r\n")[0]
    start, *lines = _plain(head).decode(errors="replace").split("\r\n")[:MAX_LINES]
    if not start.endswith(" SIP/2.0") or start.startswith("ACK "):
        return None
    found: dict[str, list[str]] = {}
    for line in lines:
        name, _, value = line.partition(":")
        name = name.strip().lower()
        found.setdefault(_LETTERS.get(name, name), []).append(value.strip())
    if not all(found.get(name) for name in _NEEDED):
        return None
    answer = [f"SIP/2.0 {status} {phrase}", *(f"Via: {via}" for via in stamped(found["via"], flow))]
    answer += [f"{name.title()}: {found[name][0]}" for name in _NEEDED[1:]]
    return "\r\n".join([*answer, "Content-Length: 0", "", ""]).encode()


def branch_of(message: Message) -> str:
    return message.via[0].parameters.get("branch") or ""


def to_tag(message: Message) -> str:
    """Empty outside a dialog."""
    return message.to_address.parameters.get("tag") or ""


def from_tag(message: Message) -> str:
    return message.from_address.parameters.get("tag") or ""


def transaction_key(request: Request, flow: Flow) -> Key:
    """By branch, or (RFC 3261 §17.2.3, for clients older than it) by what else tells requests apart."""
    branch = branch_of(request)
    if not branch.startswith(MAGIC):
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
    sent_by = re.sub(r"^\S+\s+", "", first.strip()).partition(";")[0].strip()
    host = sent_by.rpartition("]")[0].lstrip("[") if "]" in sent_by else sent_by.partition(":")[0]
    if wanted or host != flow.host:
        first = f"{first.rstrip()};received={flow.host}"
    return [first + rest, *vias[1:]]
