"""Who the edge's fuzzer plays: lines that take calls or dial, a trunk and telephones that misbehave."""

from __future__ import annotations

import random
import re
import secrets
from collections import Counter
from typing import Any, Final

from gateway.ipc.line_signature import target_signature
from tests.gateway.edge.peers import ANSWER, BOOT, OFFER, Caller, Line, Said, reply
from tests.gateway.edge.registrar.phones import USERS, md5

WORDS: Final = (
    b"\r\n", b"\n", b"\r", b"\x00", b"\t", b" ", b";", b",", b":", b"<", b">", b'"', b"\\", b"%", b"%00",
    b"=", b"@", b"sip:", b"sips:", b"tel:", b"SIP/2.0", b"SIP/2.0/UDP", b"z9hG4bK", b";lr", b";tag=",
    b";branch=", b";rport", b";received=", b";maddr=127.0.0.1", b";transport=tcp", b"[::1]", b"127.0.0.1",
    b"-1", b"0", b"4294967296", b"99999999999999999999", b"\xff\xfe", b"\xc3(", b"*", b"Content-Length: 0",
    b"Content-Length: 99999", b"Route: <sip:127.0.0.1;lr>", b"Via: SIP/2.0/UDP 127.0.0.1:9;branch=z9hG4bKx",
    b"Contact: *", b"Expires: 0", b"Require: 100rel", b"Replaces: x;to-tag=y;from-tag=z",
    b"a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:", b"m=audio 0 RTP/AVP 0", b"c=IN IP6 ::",
    b"a=rtpmap:0 PCMU/8000", b"multipart/mixed;boundary=x", b"INVITE ", b"ACK ", b"BYE ", b"CANCEL ",
    b"REGISTER ", b"PRACK ", b"UPDATE ", b"REFER ", b"SUBSCRIBE ", b"MESSAGE ",
)  # fmt: skip


class Mutator:
    """Changes datagrams: the same ones for the same seed."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def change(self, seeds: list[bytes]) -> bytes:
        """One to six changes of one of `seeds`, mostly one; at most what fits into a datagram."""
        rng = self.random
        data = bytearray(rng.choice(seeds))
        if rng.random() < 0.5:  # of another call, in another transaction
            fresh = b"%010x" % rng.randrange(1 << 40)
            for name in (b"Call-ID: ", b"branch=z9hG4bK"):
                data = data.replace(name, name + fresh)
        for _ in range(rng.choice((1, 1, 1, 2, 3, 6))):
            at = rng.randrange(len(data) + 1)
            way = rng.randrange(9)
            if way == 0 and data:
                data[at % len(data)] = rng.randrange(256)
            elif way == 1:
                del data[at : at + rng.randint(1, 40)]
            elif way == 2:
                data[at:at] = rng.choice(WORDS)
            elif way == 3:
                data[at:at] = data[at : at + rng.randint(1, 200)]
            elif way == 4:
                data[at:at] = bytes([rng.randrange(256)]) * rng.randint(1, 300)
            elif way == 5:  # a line again, elsewhere, or gone
                lines = bytes(data).split(b"\r\n")
                line = rng.choice(lines)
                if rng.random() < 0.5:
                    lines.remove(line)
                else:
                    lines.insert(rng.randrange(len(lines) + 1), line)
                data = bytearray(b"\r\n".join(lines))
            elif way == 6:  # the head of one with the rest of another
                other = rng.choice(seeds)
                data = data[:at] + other[rng.randrange(len(other) + 1) :]
            elif way == 7:  # another number
                digits = [n for n, byte in enumerate(data) if 0x30 <= byte <= 0x39]
                if digits:
                    where = rng.choice(digits)
                    data[where : where + 1] = rng.choice((b"", b"-", b"0" * 40, b"9" * 12, b"65536"))
            else:
                data[at:] = b""
        return bytes(data[:60_000]) or b"\0"


class BusyLine(Line):
    """Takes what comes as a line would: some calls, not others, and every BYE."""

    def __init__(self, name: str, rng: random.Random) -> None:
        super().__init__(name)
        self._rng = rng
        self.took = Counter[str]()

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.edge = addr
        said = Said.parse(data)
        self.kept.clear()
        if said.status or said.method == "ACK":
            return
        self.took[said.method] += 1
        if said.method == "INVITE":
            self.invite = said
            self.reply(said, 100)
            status = self._rng.choice((200, 200, 486, 180))
            self.reply(said, status, body=ANSWER if status == 200 else "")
        else:
            self.reply(said, 200)


class DialingLine(Line):
    """Has its caller handed to targets, acknowledges what answers, and hangs up at once."""

    def __init__(self, name: str, rng: random.Random) -> None:
        super().__init__(name)
        self._rng = rng
        self._dialled: dict[str, tuple[str, str]] = {}
        """by Call-ID: (branch, target)"""
        self._answered: set[str] = set()
        self.finals = Counter[int]()

    def dial(self, call_id: str, target: str) -> None:
        """An INVITE to a target of the plan, for a call that is up."""
        sip_call_id, branch = secrets.token_hex(8), "z9hG4bK" + secrets.token_hex(6)
        self._dialled[sip_call_id] = branch, target
        signed = target_signature(BOOT, call_id, target, sip_call_id)
        extra = (f"X-VG-Call: {call_id}", f"X-VG-Target: {target}", f"X-VG-Auth: {signed}", "X-VG-SRTP: off")
        self._say("INVITE", sip_call_id, branch, target, extra, OFFER)
        if self._rng.random() < 0.1:
            self._say("CANCEL", sip_call_id, branch, target)

    def give_up(self) -> None:
        """On all that has no answer yet."""
        for sip_call_id, (branch, target) in self._dialled.items():
            if sip_call_id not in self._answered:
                self._say("CANCEL", sip_call_id, branch, target)

    def forget(self) -> None:
        """All that was dialled."""
        self._dialled.clear()
        self._answered.clear()

    def _say(
        self, method: str, sip_call_id: str, branch: str, target: str,
        extra: tuple[str, ...] = (), body: str = "", cseq: int = 1, to: str = "",
    ) -> None:  # fmt: skip
        lines = [
            f"{method} sip:{target}@voicegate.invalid SIP/2.0",
            f"Via: SIP/2.0/UDP 127.0.0.1:{self.port};branch={branch};rport", "Max-Forwards: 70",
            f"From: <sip:voicegate@voicegate.invalid>;tag={sip_call_id}",
            f"To: {to or f'<sip:{target}@voicegate.invalid>'}", f"Call-ID: {sip_call_id}",
            f"CSeq: {cseq} {method}", f"Contact: <sip:127.0.0.1:{self.port}>", *extra,
            *(["Content-Type: application/sdp"] if body else []), f"Content-Length: {len(body)}", "", body,
        ]  # fmt: skip
        self.transport.sendto("\r\n".join(lines).encode(), self.edge)

    def datagram_received(self, data: bytes, addr: Any) -> None:
        said = Said.parse(data)
        sip_call_id = said["call-id"]
        if said.tag("from") != sip_call_id and said.tag("to") != sip_call_id:
            super().datagram_received(data, addr)
        elif not said.status:
            if said.method != "ACK":
                self.transport.sendto(reply(said, 200).encode(), addr)
        elif said.method == "INVITE" and said.status >= 200:
            self._final(said, sip_call_id)

    def _final(self, said: Said, sip_call_id: str) -> None:
        if sip_call_id not in self._dialled:
            return
        if sip_call_id not in self._answered:
            self.finals[said.status] += 1
            self._answered.add(sip_call_id)
        branch, target = self._dialled[sip_call_id]
        if said.status >= 300:
            self._say("ACK", sip_call_id, branch, target, to=said["to"])
            return
        for cseq, method in ((1, "ACK"), (2, "BYE")):
            fresh = "z9hG4bK" + secrets.token_hex(6)
            self._say(method, sip_call_id, fresh, target, cseq=cseq, to=said["to"])


class RudePeer(Caller):
    """A trunk or a telephone: answers what the edge asks as it should, or nearly so, and asks back."""

    NONCE: Final = re.compile(r'nonce="([^"]+)"')

    def __init__(self, edge_port: int, mutator: Mutator, host: str) -> None:
        super().__init__(edge_port, host)
        self._mutator = mutator
        self._nonce = ""
        self._count = 0
        self.took = Counter[str]()
        self.said = 0
        """datagrams that it sent"""
        self.registered = 0
        self.takes_back = ""
        """the CANCEL of the last INVITE"""

    def datagram_received(self, data: bytes, addr: Any) -> None:
        message = Said.parse(data)
        if message.status:
            if message.method == "REGISTER":
                self.registered += message.status == 200
                found = self.NONCE.search(message["www-authenticate"]) if message.status == 401 else None
                if found is not None and ("stale=true" in message["www-authenticate"] or not self._nonce):
                    self._nonce, self._count = found[1], 0
            elif message.status == 200 and message.method == "INVITE":
                self._hang_up(message)
            elif message.status == 180 and self.takes_back:
                self.write(self.takes_back)
            return
        self.took[message.method] += 1
        if message.method == "ACK":
            return
        for answer in self._answers(message):
            self.rudely(answer)

    def _hang_up(self, answer: Said) -> None:
        """On a call to us, so that it takes no slot for long."""
        for cseq, method in ((1, "ACK"), (2, "BYE")):
            lines = [
                f"{method} {re.sub(r'^.*<|>.*$', '', answer['contact'])} SIP/2.0",
                f"Via: SIP/2.0/UDP {self.host}:{self.port};branch=z9hG4bK{secrets.token_hex(6)};rport",
                "Max-Forwards: 70", *(f"Route: {one}" for one in reversed(answer.all("record-route"))),
                f"From: {answer['from']}", f"To: {answer['to']}", f"Call-ID: {answer['call-id']}",
                f"CSeq: {int(answer['cseq'].split()[0]) + cseq - 1} {method}", "Content-Length: 0", "", "",
            ]  # fmt: skip
            self.write("\r\n".join(lines))

    def rudely(self, text: str) -> None:
        """Sends it, changed as often as not."""
        whole = text.encode()
        self.said += 1
        self.write(whole if self._mutator.random.random() < 0.5 else self._mutator.change([whole]))

    def _answers(self, asked: Said) -> list[str]:
        rng = self._mutator.random
        contact = f"Contact: <sip:x@{self.host}:{self.port}>"
        challenge = f'Digest realm="r", nonce="{rng.randrange(1 << 30):x}", qop="auth", algorithm=MD5'
        choices: dict[int, tuple[str, ...]] = {
            180: (contact,), 183: (contact, "Require: 100rel", "RSeq: 1"), 200: (contact, "Expires: 60"),
            302: (contact,), 401: (f"WWW-Authenticate: {challenge}",),
            407: (f"Proxy-Authenticate: {challenge}",), 423: ("Min-Expires: 90",), 430: (), 486: (),
            488: ("X-VG-SRTP: required",), 491: (), 503: ("Retry-After: 1",), 603: (),
        }  # fmt: skip
        often = [5 if status in (180, 200) else 1 for status in choices]
        statuses = rng.choices(list(choices), often, k=rng.choice((1, 1, 2, 3)))
        if asked.method == "CANCEL":
            return [reply(asked, 200)]
        said = [
            reply(asked, one, *choices[one], body=ANSWER if one in (183, 200) else "", tag=f"t{one}")
            for one in statuses
        ]
        return said + ([self._in_dialog(asked)] if asked.method == "INVITE" and 200 in statuses else [])

    def _in_dialog(self, invite: Said) -> str:
        """A request of ours in the dialog that our 200 made."""
        method = self._mutator.random.choice(("BYE", "NOTIFY", "INVITE", "UPDATE", "INFO", "REFER", "ACK"))
        lines = [
            f"{method} {re.sub(r'^.*<|>.*$', '', invite['contact'])} SIP/2.0",
            f"Via: SIP/2.0/UDP {self.host}:{self.port};branch=z9hG4bK{secrets.token_hex(6)};rport",
            "Max-Forwards: 70", f"From: {invite['to']};tag=t200", f"To: {invite['from']}",
            f"Call-ID: {invite['call-id']}", f"CSeq: 7 {method}", f"Contact: <sip:{self.host}:{self.port}>",
            "Event: refer", "Subscription-State: active", "Refer-To: <sip:x@y>",
            "Content-Type: application/sdp", f"Content-Length: {len(OFFER)}", "", OFFER,
        ]  # fmt: skip
        return "\r\n".join(lines)

    def register(self) -> str:
        """A REGISTER as a telephone sends it, mostly with the right password."""
        rng = self._mutator.random
        user = rng.choice(("alice", "alice", "alice", "bob", "mallory"))
        number = rng.randrange(4)
        flow = f';+sip.instance="<urn:uuid:{number // 2}>";reg-id={number}' if rng.random() < 0.5 else ""
        contacts = rng.choice(
            (f"<sip:{number}@192.0.2.1>{flow}", f"<sip:{number}@192.0.2.1>;expires=0{flow}",
             f"<sip:{number}@192.0.2.1>;q=0.{number}, <sip:b@b>;expires=99999999999", "*",
             f"<sip:{'a' * 300}@b>{flow}")
        )  # fmt: skip
        extra = [
            "Supported: path, outbound",
            *rng.choice(((), (), ("Expires: 0",), ("Expires: 7",), ("Path: <sip:127.0.0.1;lr;ob>",))),
        ]
        self.call_id = secrets.token_hex(8)
        if self._nonce and rng.random() < 0.8:
            self._count += 1
            counted = f"{self._count:08x}"
            password = USERS.get(user, "none") if rng.random() < 0.9 else "guessed"
            ha1, ha2 = md5(f"{user}:voicegate:{password}"), md5("REGISTER:sip:127.0.0.1")
            right = md5(f"{ha1}:{self._nonce}:{counted}:c0ffee:auth:{ha2}")
            extra.append(
                f'Authorization: Digest username="{user}", realm="voicegate", nonce="{self._nonce}", '
                f'uri="sip:127.0.0.1", response="{right}", cnonce="c0ffee", nc={counted}, qop=auth, '
                "algorithm=MD5"
            )
        return self.text(
            "REGISTER", "", *extra, to=f"<sip:{user}@127.0.0.1>", uri="sip:127.0.0.1", contact=contacts
        )

    def invite(self) -> str:
        """A trunk's call to us."""
        self.call_id = secrets.token_hex(8)
        made = self.text("INVITE", OFFER, "P-Asserted-Identity: <sip:+4930123@carrier.example>")
        self.takes_back = self.text("CANCEL", "", cseq=self.cseq)
        return made
