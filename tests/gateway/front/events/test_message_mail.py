"""A message reaches somebody: mail by a real SMTP server of this test's, whatever a caller calls itself."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from email import message_from_bytes
from email.policy import default
from pathlib import Path
from typing import Any

import pytest

from gateway.config.settings import Settings
from gateway.dialplan import Dialplan
from gateway.errors import DialplanError
from gateway.front.events.event_shelf import KeptEvent
from gateway.front.events.message_mail import MessageMail
from gateway.front.events.receivers import address_of, receivers_of

PLAN = """
[[route]]
name = "night"
called = ["night"]
do = [
  { verb = "answer" },
  { verb = "disclose", principal = "Lindens", language = "en" },
  { verb = "record", announce = "Speak.", notify = "mailto:office@lindens.example" },
]
"""


@dataclass
class Relay:
    """SMTP as RFC 5321 has it, as far as a client that sends one mail needs it."""

    refuses: int = 0
    """the status of RCPT; 0: it takes it"""
    mails: list[bytes] = field(default_factory=list)
    recipients: list[str] = field(default_factory=list)
    port: int = 0
    tls: ssl.SSLContext | None = None
    """by which it offers STARTTLS"""
    refuses_tls: int = 0
    encrypted: bool = False

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        def say(text: str) -> None:
            writer.write(f"{text}\r\n".encode())

        say("220 here")
        with contextlib.suppress(OSError, EOFError):
            while line := (await reader.readline()).decode():
                match line.split()[0].upper():
                    case "EHLO" if self.tls is not None and not self.encrypted:
                        say("250-here")
                        say("250 STARTTLS")
                    case "STARTTLS" if self.tls is not None and self.refuses_tls:
                        say(f"{self.refuses_tls} not now")
                    case "STARTTLS" if self.tls is not None:
                        say("220 go on")
                        await writer.start_tls(self.tls)
                        self.encrypted = True
                    case "RCPT" if self.refuses:
                        say(f"{self.refuses} no")
                    case "RCPT":
                        self.recipients.append(line.strip().partition(":")[2])
                        say("250 ok")
                    case "DATA":
                        say("354 go on")
                        self.mails.append(await reader.readuntil(b"\r\n.\r\n"))
                        say("250 ok")
                    case "QUIT":
                        say("221 bye")
                        break
                    case _:
                        say("250 ok")
        writer.close()


@pytest.fixture
async def relay() -> AsyncIterator[Relay]:
    made = Relay()
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    async with server:
        yield made


def mailer(relay: Relay, to: str | None = "office@lindens.example") -> MessageMail:
    return MessageMail(f"127.0.0.1:{relay.port}", "voicegate@lindens.example", lambda _: to)


def left(**more: Any) -> KeptEvent:
    data = {
        "recording": "2026-11-30/c1-7.wav", "seconds": 7.4, "link": "https://v.example/api/recordings/x.wav",
        "caller": "sip:+4930@x", "route": "night", **more,
    }  # fmt: skip
    return KeptEvent("message.left", 1, "0123456789abcdef-7", 7, 3, 1764513942.0, "c1", data)


async def test_somebody_hears_of_a_message_with_its_link_and_without_its_words(relay: Relay) -> None:
    assert (await mailer(relay).tell(left(), 0)).said == "taken"
    mail = message_from_bytes(relay.mails[0], policy=default)
    assert mail["To"] == "office@lindens.example"
    assert mail["Subject"] == "Message of 7 s from sip:+4930@x"
    assert mail["Message-ID"] == "<0123456789abcdef-7@voicegate.invalid>"
    assert "https://v.example/api/recordings/x.wav" in str(mail.get_content())
    assert relay.recipients == ["<office@lindens.example>"]


@pytest.mark.parametrize("field_", ["caller", "route", "link"])
async def test_a_caller_writes_no_header(relay: Relay, field_: str) -> None:
    evil = "x\r\nBcc: all@evil.example\r\n\r\n.\r\nMAIL FROM:<a@b>\r\n\x00\u2028Bcc: b@evil.example"
    await mailer(relay).tell(left(**{field_: evil}), 0)
    (mail,) = (message_from_bytes(one, policy=default) for one in relay.mails)
    assert mail["Bcc"] is None
    assert sorted(mail.keys()) == sorted(
        ["From", "To", "Subject", "Date", "Message-ID", "Auto-Submitted", "MIME-Version", "Content-Type",
         "Content-Transfer-Encoding"]
    )  # fmt: skip
    assert relay.recipients == ["<office@lindens.example>"]


@pytest.mark.parametrize(("status", "said"), [(450, "later"), (550, "never")])
async def test_a_relay_may_refuse_now_or_for_good(relay: Relay, status: int, said: str) -> None:
    relay.refuses = status
    assert (await mailer(relay).tell(left(), 0)).said == said


async def test_a_relay_that_is_away_is_tried_again() -> None:
    assert (await mailer(Relay(port=1)).tell(left(), 0)).said == "later"


async def test_a_relay_elsewhere_must_encrypt(relay: Relay, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.front.events.message_mail.is_here", lambda _: False)
    assert (await mailer(relay).tell(left(), 0)).said == "later"
    assert not relay.mails


async def test_whom_the_plan_names_is_told_and_nobody_else(relay: Relay, tmp_path: Path) -> None:
    (tmp_path / "plan.toml").write_text(PLAN)
    plan = Dialplan.load(tmp_path)
    assert address_of(lambda: plan, "night") == "office@lindens.example"
    assert address_of(lambda: plan, "day") is None
    assert not mailer(relay, None).wants(left())
    conf = Settings(data_dir=tmp_path, cdr="off")
    assert receivers_of(conf, lambda: plan) == []
    relayed = conf.model_copy(update={"mail_relay": "127.0.0.1", "mail_from": "a@b"})
    (mail,) = receivers_of(relayed, lambda: plan)
    assert mail.wants(left())
    assert not mail.wants(left(route="day"))


@pytest.mark.parametrize(
    "address",
    [
        "office@lindens.example",
        "mailto:a@b?cc=c@d",
        "mailto:a@b\\r\\nBcc: c@d",
        "mailto:a b@c",
        "mailto:a@b,c@d",
    ],
    ids=range(5),
)
def test_one_address_and_nothing_behind_it(tmp_path: Path, address: str) -> None:
    (tmp_path / "plan.toml").write_text(PLAN.replace("mailto:office@lindens.example", address))
    with pytest.raises(DialplanError):
        Dialplan.load(tmp_path)
