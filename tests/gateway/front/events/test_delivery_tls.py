"""Receivers by https and relays by STARTTLS, with real certificates: some hold, and some do not."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from gateway.front.events import courier as couriers
from gateway.front.events import message_mail
from gateway.front.events.courier import TellOutcome
from gateway.front.events.message_mail import MessageMail
from tests.gateway.edge.authority import Authority
from tests.gateway.front.events.hook_receiver import HookReceiver
from tests.gateway.front.events.test_message_mail import Relay, left
from tests.gateway.front.events.test_webhooks import Told, hook, is_signed, life
from tests.needs import HANGS_S

Show = Callable[[Authority, Path], tuple[Path, Path]]
"""What a server shows: its chain and key."""

FAULTS: dict[str, tuple[Show, str]] = {
    "another name": (
        lambda known, _: known.sign("crm.example"), "its certificate is for another name"
    ),
    "an unknown authority": (
        lambda _, folder: Authority(folder / "other", "nobody knows it").sign("localhost"),
        "this machine trusts none of those who signed its certificate",
    ),
    "by itself": (
        lambda known, _: known.sign("localhost", itself=True),
        "its certificate is signed by itself, and not one that this machine trusts",
    ),
    "ended": (lambda known, _: known.sign("localhost", days=-1), "its certificate has ended"),
}  # fmt: skip


def serving(files: tuple[Path, Path]) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*files)
    return context


@pytest.fixture
def known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Authority:
    """One that this machine trusts."""
    made = Authority(tmp_path / "known")
    monkeypatch.setenv("SSL_CERT_FILE", str(made.ca))
    return made


@pytest.fixture(autouse=True)
def _hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(couriers, "FIRST_PAUSE_S", 0.02)
    monkeypatch.setattr(couriers, "LONGEST_PAUSE_S", 0.05)


async def test_a_receiver_whose_certificate_holds_is_told(tmp_path: Path, known: Authority) -> None:
    receiver = HookReceiver(tls=serving(known.sign("localhost")))
    await receiver.start()
    told = Told(tmp_path, hook(receiver))
    ids = await told.tell(*life("c1"))
    got = await receiver.has(3)
    assert [one.event["id"] for one in got] == ids
    assert all(is_signed(one) for one in got)
    assert got[0].headers["host"] == f"localhost:{receiver.port}"
    await told.close()
    await receiver.stop()


@pytest.mark.parametrize("fault", FAULTS)
async def test_one_whose_certificate_does_not_hold_is_told_nothing_until_it_does(
    tmp_path: Path, known: Authority, fault: str
) -> None:
    show, says = FAULTS[fault]
    receiver = HookReceiver(tls=serving(show(known, tmp_path)))
    await receiver.start()
    told = Told(tmp_path, hook(receiver))
    with capture_logs() as lines:
        ids = await told.tell(*life("c1"))
        async with asyncio.timeout(HANGS_S):
            while receiver.failed_handshakes < 3:  # it is tried again
                await receiver.knocks()
    assert not receiver.got
    said = [line for line in lines if line["event"] in ("receiver.away", "receiver.refused")]
    assert {line["error"] for line in said} == {says}
    assert [line["event"] for line in said].count("receiver.away") == 1, "said once"
    assert "of=voicegate" not in str(lines)
    await receiver.stop()
    receiver.tls = serving(known.sign("localhost", to="renewed"))
    await receiver.start()
    await told.empties()
    assert [one.event["id"] for one in receiver.got] == ids
    await told.close()
    await receiver.stop()


async def test_an_authority_that_this_machine_comes_to_trust_needs_no_restart(
    tmp_path: Path, known: Authority
) -> None:
    other = Authority(tmp_path / "other", "the new one")
    receiver = HookReceiver(tls=serving(other.sign("localhost")))
    await receiver.start()
    told = Told(tmp_path, hook(receiver))
    await told.tell(*life("c1")[:1])
    async with asyncio.timeout(HANGS_S):
        while receiver.failed_handshakes < 1:
            await receiver.knocks()
    with known.ca.open("ab") as file:
        file.write(other.ca.read_bytes())
    await receiver.has(1)
    await told.empties()
    await told.close()
    await receiver.stop()


async def test_one_that_speaks_no_tls_is_told_nothing(tmp_path: Path, known: Authority) -> None:
    receiver = HookReceiver()
    await receiver.start()
    told = Told(tmp_path, hook(receiver, url=receiver.url.replace("http:", "https:"), retry_s=0.1))
    with capture_logs() as lines:
        await told.tell(*life("c1")[:1])
        await told.empties()
    assert not receiver.got
    assert "it does not speak TLS as we do" in {line.get("error") for line in lines}
    await told.close()
    await receiver.stop()


async def test_localhost_is_tried_by_all_its_addresses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A receiver that listens on 127.0.0.1 alone, where ::1 comes first."""
    receiver = HookReceiver()
    await receiver.start()

    async def both(host: str, port: int, **_: object) -> list[object]:
        return [(10, 1, 6, "", ("::1", port, 0, 0)), (2, 1, 6, "", ("127.0.0.1", port))]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", both)
    told = Told(tmp_path, hook(receiver, url=receiver.url.replace("127.0.0.1", "localhost")))
    await told.tell(*life("c1"))
    await receiver.has(3)
    await told.close()
    await receiver.stop()


# ── mail ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
async def relay(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Relay]:
    """One that is taken for a relay elsewhere: only this machine's own need no TLS."""
    monkeypatch.setattr(message_mail, "is_here", lambda _: False)
    made = Relay()
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    async with server:
        yield made


async def mailed(relay: Relay) -> TellOutcome:
    mail = MessageMail(f"localhost:{relay.port}", "voicegate@lindens.example", lambda _: "office@b.example")
    return await mail.tell(left(), 0)


async def test_mail_goes_by_starttls_to_a_relay_that_is_who_it_should_be(
    relay: Relay, known: Authority
) -> None:
    relay.tls = serving(known.sign("localhost"))
    assert (await mailed(relay)).said == "taken"
    assert relay.encrypted
    assert len(relay.mails) == 1


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_relay_whose_certificate_does_not_hold_gets_no_mail(
    relay: Relay, known: Authority, tmp_path: Path, fault: str
) -> None:
    show, says = FAULTS[fault]
    relay.tls = serving(show(known, tmp_path))
    assert await mailed(relay) == TellOutcome("later", says)
    assert (relay.mails, relay.recipients) == ([], [])


async def test_a_relay_elsewhere_without_starttls_gets_no_mail(relay: Relay) -> None:
    assert await mailed(relay) == TellOutcome("later", "the relay offers no STARTTLS")
    assert (relay.mails, relay.recipients) == ([], [])


async def test_a_relay_that_offers_starttls_and_then_refuses_it_gets_no_mail(
    relay: Relay, known: Authority
) -> None:
    relay.tls, relay.refuses_tls = serving(known.sign("localhost")), 454
    outcome = await mailed(relay)
    assert outcome.said == "later"
    assert (relay.mails, relay.recipients) == ([], [])
