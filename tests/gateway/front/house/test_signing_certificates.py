"""Certificates of who signs calls: fetched beside the call, from few places, a few of them, and kept."""

from __future__ import annotations

import asyncio
import gzip
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from structlog.testing import capture_logs

from gateway.config.settings import Settings, load
from gateway.edge.doors.attestation import SignedCalls
from gateway.errors import SettingsError
from gateway.front.house import signing_certificates
from gateway.front.house.certificate_watch import CertificateWatch
from gateway.front.house.guarded_transport import GuardedTransport, public
from gateway.front.house.signing_certificates import (
    A_MINUTE,
    AT_ONCE,
    FAILED_S,
    KEPT_S,
    MOST_BYTES,
    MOST_KEPT,
    NEW_S,
    NOT_YET,
    SigningCertificates,
    Unfit,
    chain_in,
    signed_calls,
)
from tests.gateway.edge.authority import Authority
from tests.gateway.edge.doors.test_attestation import invite
from tests.gateway.edge.stir import URL, StirAuthority, pem

Answers = Callable[[httpx.Request], Any]
FAILED = "certificate could not be fetched"


class Office:
    """A cache, a web that answers as a test says, and a clock that stands."""

    def __init__(self, answers: Answers) -> None:
        self.asked: list[str] = []
        self.now = 1000.0
        self._answers = answers
        self._tasks: list[asyncio.Task[None]] = []
        self.certificates = SigningCertificates(self._spawn, self._client, lambda: self.now)

    def _spawn(self, work: Any) -> None:
        self._tasks.append(asyncio.create_task(work))

    def _client(self) -> httpx.AsyncClient:
        async def answer(request: httpx.Request) -> httpx.Response:
            self.asked.append(str(request.url))
            found = self._answers(request)
            return await found if asyncio.iscoroutine(found) else found

        return httpx.AsyncClient(transport=httpx.MockTransport(answer))

    async def fetched(self, url: str = URL) -> Any:
        """What is there after what the first question began."""
        self.certificates.chain_at(url)
        await self.rests()
        return self.certificates.chain_at(url)

    async def rests(self) -> None:
        await asyncio.wait_for(asyncio.gather(*self._tasks), 10)
        self._tasks.clear()


def ok(body: bytes, packed: str = "identity") -> httpx.Response:
    """Streamed, as from a socket."""

    async def pieces() -> AsyncIterator[bytes]:
        yield body

    return httpx.Response(200, content=pieces(), headers={"Content-Encoding": packed})


def is_pem(*_: object) -> httpx.Response:
    return ok(pem(SIGNER.certificate))


AUTHORITY = StirAuthority()
SIGNER = AUTHORITY.signer()


async def test_the_first_call_is_none_and_the_next_one_is_proven() -> None:
    office = Office(is_pem)
    calls = SignedCalls([AUTHORITY.certificate], ["certificates.example"], office.certificates.chain_at)
    first = calls.judge(invite(SIGNER.identity("B")), trusted=False)
    assert (first.level, first.why) == ("none", NOT_YET)
    assert not office.asked  # nothing was done in the call's path
    await office.rests()
    assert calls.judge(invite(SIGNER.identity("B")), trusted=False).level == "B"
    assert office.asked == [URL]


async def test_many_calls_ask_once() -> None:
    office = Office(is_pem)
    assert {office.certificates.chain_at(URL) for _ in range(50)} == {NOT_YET}
    await office.rests()
    assert len(office.asked) == 1


async def slow() -> httpx.Response:
    await asyncio.Event().wait()
    raise AssertionError


def redirects(request: httpx.Request) -> httpx.Response:
    return httpx.Response(302, headers={"Location": "https://certificates.example/b"}, content=b"")


def breaks(request: httpx.Request) -> httpx.Response:
    raise httpx.ConnectError("secret of somebody's")


def not_pem(*_: object) -> httpx.Response:
    return ok(b"<html>")


NO_CHAIN = "not 1 to 4 certificates in PEM"
FAILS: dict[str, tuple[Answers, str]] = {
    "404": (lambda _: httpx.Response(404), "HTTP 404"),
    "redirect": (redirects, "HTTP 302"),
    "not there": (breaks, "ConnectError"),
    "large": (lambda _: ok(pem(SIGNER.certificate) + b"\n" * MOST_BYTES), "more than 65536 bytes"),
    "no PEM": (not_pem, NO_CHAIN),
    "packed": (
        lambda _: ok(gzip.compress(pem(SIGNER.certificate)), "gzip"),
        NO_CHAIN,
    ),
    "torn": (
        lambda _: ok(pem(SIGNER.certificate).replace(b"MII", b"!!!")),
        "its certificates cannot be read",
    ),
    "many": (lambda _: ok(pem(SIGNER.certificate) * 5), NO_CHAIN),
    "slow": (lambda _: slow(), "no answer within 0.2 s"),
}


@pytest.mark.parametrize("how", list(FAILS))
async def test_what_fails_is_not_tried_again_for_a_while(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    answers, why = FAILS[how]
    if how == "slow":
        monkeypatch.setattr(signing_certificates, "WITHIN_S", 0.2)
    office = Office(answers)
    with capture_logs() as logs:
        assert await office.fetched() == FAILED
    assert [(line["event"], line["why"]) for line in logs] == [("stir.certificate_not_fetched", why)]
    assert office.certificates.chain_at(URL) == FAILED
    assert office.asked == [URL]
    office.now += FAILED_S + 1
    assert office.certificates.chain_at(URL) == NOT_YET
    await office.rests()
    assert office.asked == [URL, URL]


async def test_an_old_one_is_fetched_anew_while_it_still_serves() -> None:
    office = Office(is_pem)
    chain = await office.fetched()
    assert chain == (SIGNER.certificate,)
    office.now += NEW_S + 1
    office._answers = FAILS["404"][0]
    assert office.certificates.chain_at(URL) == chain
    await office.rests()
    assert len(office.asked) == 2
    assert office.certificates.chain_at(URL) == chain  # its host is down, for now
    office.now += KEPT_S
    assert office.certificates.chain_at(URL) == NOT_YET
    await office.rests()
    assert office.certificates.chain_at(URL) == FAILED


async def test_few_are_asked_for_at_once_and_in_a_minute() -> None:
    office = Office(FAILS["404"][0])
    urls = [f"https://certificates.example/{number}" for number in range(A_MINUTE + 5)]
    said = [office.certificates.chain_at(url) for url in urls]
    assert said.count(NOT_YET) == AT_ONCE
    await office.rests()
    for url in urls:
        office.certificates.chain_at(url)
        await office.rests()
    assert len(office.asked) == A_MINUTE
    office.now += 61
    assert office.certificates.chain_at(urls[-1]) == NOT_YET
    await office.rests()


async def test_few_are_kept_and_those_that_failed_go_first() -> None:
    office = Office(lambda request: is_pem() if str(request.url) == URL else httpx.Response(404))
    assert await office.fetched() == (SIGNER.certificate,)
    for number in range(MOST_KEPT + 10):
        office.now += 2
        await office.fetched(f"https://certificates.example/{number}")
    assert len(office.certificates._kept) == MOST_KEPT
    assert office.certificates.chain_at(URL) == (SIGNER.certificate,)


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("93.184.216.34", True),
        ("2606:2800:220:1::1", True),
        *(
            (address, False)
            for address in (
                "127.0.0.1", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1",
                "0.0.0.0", "224.0.0.1", "::1", "::", "fe80::1", "fe80::1%1", "fd00::1", "::ffff:10.0.0.1",
                "64:ff9b::a00:1", "2002:a00:1::", "2001:0:1::", "nonsense",
            )
        ),
    ],
)  # fmt: skip
def test_only_public_addresses_are_asked(address: str, told: bool) -> None:
    assert public("localhost", address) is told


def test_no_chain_is_found_in_nothing() -> None:
    with pytest.raises(Unfit):
        chain_in(b"")


@pytest.fixture
async def at_home() -> AsyncIterator[tuple[int, list[int]]]:
    """A server on this machine: its port, and who reached it."""
    reached: list[int] = []
    server = await asyncio.start_server(lambda reader, writer: reached.append(1), "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1], reached
    server.close()


async def test_nobody_in_the_house_is_asked_by_name_or_address(at_home: tuple[int, list[int]]) -> None:
    port, reached = at_home
    tasks: list[asyncio.Task[None]] = []
    certificates = SigningCertificates(lambda work: tasks.append(asyncio.create_task(work)))
    for host in ("localhost", "127.0.0.1"):
        certificates.chain_at(f"https://{host}:{port}/a")
    with capture_logs() as logs:
        await asyncio.wait_for(asyncio.gather(*tasks), 30)
    assert [line["why"] for line in logs] == ["NotAsked", "NotAsked"]
    assert not reached


@pytest.mark.parametrize(("shows", "fetched"), [("localhost", True), ("other.example", False)])
async def test_a_host_is_who_its_certificate_says(tmp_path: Path, shows: str, fetched: bool) -> None:
    """Over TLS, connected to by the address that was judged."""
    web = Authority(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*web.sign(shows))

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        body = pem(SIGNER.certificate)
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        writer.close()

    def client() -> httpx.AsyncClient:
        inner = httpx.AsyncHTTPTransport(verify=web.trusted())
        return httpx.AsyncClient(transport=GuardedTransport(inner, lambda host, found: True))

    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context)
    tasks: list[asyncio.Task[None]] = []
    certificates = SigningCertificates(lambda work: tasks.append(asyncio.create_task(work)), client)
    url = f"https://localhost:{server.sockets[0].getsockname()[1]}/a.pem"
    try:
        assert certificates.chain_at(url) == NOT_YET
        await asyncio.wait_for(asyncio.gather(*tasks), 30)
    finally:
        server.close()
    assert certificates.chain_at(url) == ((SIGNER.certificate,) if fetched else FAILED)


# ── settings ─────────────────────────────────────────────────────────────────────────────────────────


def conf(**given: str) -> Any:
    return load({f"VOICEGATE_{key}": value for key, value in given.items()})


def test_nothing_is_judged_until_authorities_are_named(tmp_path: Path) -> None:
    spawned: list[Any] = []
    assert signed_calls(conf(DATA_DIR=str(tmp_path)), spawned.append) is None
    trust = tmp_path / "trust.pem"
    trust.write_bytes(pem(AUTHORITY.certificate))
    made = conf(STIR_TRUST=str(trust), STIR_HOSTS="Certificates.example:443, b.example:8443")
    assert made.stir_hosts == ("certificates.example", "b.example:8443")
    calls = signed_calls(made, spawned.append)
    assert calls is not None
    assert calls.judge(invite(SIGNER.identity()), trusted=False).why == NOT_YET
    (work,) = spawned
    work.close()


def test_another_list_of_authorities_needs_no_restart(tmp_path: Path) -> None:
    """What does not hold leaves the old one, and is said once."""
    trust = tmp_path / "trust.pem"
    trust.write_bytes(pem(StirAuthority().certificate))  # nobody who signs calls here
    watch = CertificateWatch(Settings(data_dir=tmp_path, host="127.0.0.1"))
    calls = signed_calls(
        conf(STIR_TRUST=str(trust), STIR_HOSTS="certificates.example"), lambda work: None, watch.look_too
    )
    assert calls is not None
    calls._chain_at = lambda url: (SIGNER.certificate,)

    def level() -> str:
        return calls.judge(invite(SIGNER.identity()), trusted=False).level

    assert level() == "none"
    assert watch.look() is None
    trust.write_bytes(pem(AUTHORITY.certificate))
    assert watch.look() is None
    assert level() == "A"
    trust.write_text("half written")
    assert "VOICEGATE_STIR_TRUST" in (watch.look() or "")
    assert watch.look() is None
    assert level() == "A"


@pytest.mark.parametrize(
    "given",
    [
        {"STIR_TRUST": "trust.pem"},
        {"STIR_HOSTS": "a.example"},
        {"STIR_TRUST": "trust.pem", "STIR_HOSTS": "https://a.example"},
        {"STIR_TRUST": "trust.pem", "STIR_HOSTS": "*.example"},
        {"STIR_TRUST": "trust.pem", "STIR_HOSTS": "a@b.example"},
    ],
    ids=["no hosts", "no authorities", "URL", "all", "user"],
)
def test_half_of_it_is_a_mistake(given: dict[str, str]) -> None:
    with pytest.raises(SettingsError):
        conf(**given)


def test_authorities_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="VOICEGATE_STIR_TRUST"):
        signed_calls(conf(STIR_TRUST=str(tmp_path / "no.pem"), STIR_HOSTS="a.example"), lambda work: None)
