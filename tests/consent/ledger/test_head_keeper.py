"""A restored copy of the data directory gives no voice back: somebody outside has seen more of the ledger."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from redis import Redis

from consent.archive.keys import OfficeKeys
from consent.errors import GrantRefused, LedgerError, OperatorError, WitnessError
from consent.grants.grant import sign
from consent.grants.scope import Scope
from consent.ledger import head_keeper
from consent.ledger.chain import HEAD_TYP
from consent.ledger.head_keeper import AWAY_S, PUBLISH_S, UNWITNESSED, HeadKeeper
from consent.ledger.timekeeper import Timekeeper
from consent.ledger.witness import HEADS, LARGEST, Outside, RedisWitness, UrlWitness, tell_syslog
from consent.office.office import ConsentOffice
from consent.office.rotation import Rotation
from consent.office.withdrawal import Withdrawals
from tests.consent.conftest import Desk, Valkey
from tests.needs import HANGS_S

SCOPE = Scope("jane", "support", "demo", "en", "c1")


@dataclass
class Notary:
    """A URL that keeps heads, as the module `witness` says."""

    heads: list[str] = field(default_factory=list)
    answers: int | None = None
    """a status instead"""
    garbage: bytes | None = None
    to: str | None = None
    """where it sends whoever asks"""
    server: ThreadingHTTPServer = field(init=False)

    def __post_init__(self) -> None:
        notary = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                found = notary.heads[-1].encode() if notary.heads else None
                body = notary.garbage if notary.garbage is not None else found
                self.send_response(notary.answers or (200 if body is not None else 404))
                if notary.to:
                    self.send_header("Location", notary.to)
                self.send_header("Content-Length", str(len(body or b"")))
                self.end_headers()
                with contextlib.suppress(OSError):
                    self.wfile.write(body or b"")

            def do_POST(self) -> None:
                content = self.rfile.read(int(self.headers["Content-Length"]))
                assert self.headers["Content-Type"] == "application/jose"
                if notary.answers is None:
                    notary.heads.append(content.decode())
                self.send_response(notary.answers or 201)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}/heads"


@pytest.fixture
def notary() -> Iterator[Notary]:
    made = Notary()
    yield made
    made.server.shutdown()
    made.server.server_close()


@dataclass
class Gateway:
    """One data directory, with what is outside it."""

    desk: Desk
    outside: Outside
    folder: Path
    opened: list[ConsentOffice] = field(default_factory=list)

    def begin(self, folder: Path | None = None, outside: Outside | None = None) -> ConsentOffice:
        """As the front does; in another directory it is another host's."""
        place = folder or self.folder
        clock = Timekeeper(self.desk.clock, boot=self.desk.clock)
        office = ConsentOffice.open(
            f"sqlite:///{place}/voicegate.db", place / "consent", clock=clock, outside=outside or self.outside
        )
        office.heads.begin()
        self.opened.append(office)
        return office

    def copy(self, to: Path) -> Path:
        """As a snapshot or rsync does, with nothing open."""
        for office in self.opened:
            office.close()
        self.desk.office.close()
        shutil.copytree(self.folder, to)
        return to

    def put_back(self, copy: Path) -> None:
        for office in self.opened:
            office.close()
        shutil.rmtree(self.folder)
        shutil.copytree(copy, self.folder)


@pytest.fixture(params=["redis", "url"])
def gateway(request: pytest.FixtureRequest, desk: Desk, tmp_path: Path) -> Iterator[Gateway]:
    if request.param == "redis":
        outside = Outside(redis_url=request.getfixturevalue("valkey").url)
    else:
        outside = Outside(witness_url=request.getfixturevalue("notary").url)
    desk.jane()
    made = Gateway(desk, outside, tmp_path / "data")
    yield made
    for office in made.opened:
        office.close()


def revoke(gateway: Gateway, office: ConsentOffice) -> None:
    standing = office.standing_of("jane")
    assert standing is not None
    act = gateway.desk.act("alice", "revoke", voice_id=standing.voice_id)
    Withdrawals(office.books, office.vault).revoke("jane", "asked", act)
    office.heads.step()


def refused(office: ConsentOffice) -> str:
    with pytest.raises(GrantRefused) as caught:
        office.grant(SCOPE)
    assert caught.value.reason == "ledger"
    assert [voice.name for voice in office.voices()] == ["heart"]
    return str(caught.value)


# ── the attack ───────────────────────────────────────────────────────────────────────────────────────────


def test_a_data_directory_put_back_gives_no_revoked_voice_back(gateway: Gateway, tmp_path: Path) -> None:
    copy = gateway.copy(tmp_path / "copy")
    office = gateway.begin()
    granted = office.grant(SCOPE)
    office.heads.step()
    revoke(gateway, office)
    gateway.put_back(copy)
    office = gateway.begin()
    assert "an older copy was restored" in refused(office)
    assert "ledger resume" in refused(office)
    for door in (lambda: office.renew(granted), lambda: office.reference(granted.token, granted.voice_hash)):
        with pytest.raises(GrantRefused, match="an older copy was restored"):
            door()
    assert office.heads.doubt == "not as witnessed"
    assert office.grant(Scope("heart", "p", "d", "en", "c")).voice == "heart"
    proof = office.books.prove([*office.books.seen, *office.heads.heads()])
    assert not proof.ok, "`voicegate ledger verify` says so too"


@pytest.mark.parametrize("head", ["deleted", "an older one"])
def test_the_hosts_own_head_is_not_what_counts(gateway: Gateway, tmp_path: Path, head: str) -> None:
    """The database alone is put back; `ledger-head` is taken away, or an older signed one put there."""
    copy = gateway.copy(tmp_path / "copy")
    revoke(gateway, gateway.begin())
    for office in gateway.opened:
        office.close()
    shutil.copy(copy / "voicegate.db", gateway.folder / "voicegate.db")
    for side in ("-wal", "-shm"):
        (gateway.folder / f"voicegate.db{side}").unlink(missing_ok=True)
    path = gateway.folder / "consent" / "ledger-head"
    path.unlink()
    if head == "an older one":
        shutil.copy(copy / "consent" / "ledger-head", path)
    refused(gateway.begin())


def test_a_copy_on_another_host_is_refused_there(gateway: Gateway, tmp_path: Path) -> None:
    copy = gateway.copy(tmp_path / "copy")
    revoke(gateway, gateway.begin())
    refused(gateway.begin(copy))


def test_rows_written_over_those_that_were_lost_do_not_hide_it(gateway: Gateway, tmp_path: Path) -> None:
    copy = gateway.copy(tmp_path / "copy")
    revoke(gateway, gateway.begin())
    office = gateway.begin(copy, Outside())
    for _ in range(3):
        office.grant(SCOPE)
    office.close()
    assert "is not the one of" in refused(gateway.begin(copy))


def test_a_copy_from_before_a_rotation_knows_the_head_by_the_keys_that_it_has(
    gateway: Gateway, tmp_path: Path
) -> None:
    copy = gateway.copy(tmp_path / "copy")
    office = gateway.begin()
    for _ in range(2):
        gateway.desk.rotate("signing", office=office)
    revoke(gateway, office)
    refused(gateway.begin(copy))


def test_without_anybody_outside_the_panel_says_that_nobody_would_notice(
    gateway: Gateway, tmp_path: Path
) -> None:
    copy = gateway.copy(tmp_path / "copy")
    revoke(gateway, gateway.begin())
    office = gateway.begin(copy, Outside())
    assert office.heads.state == UNWITNESSED
    office.grant(SCOPE)


def test_an_auditor_gives_up_by_name_what_is_lost(gateway: Gateway, tmp_path: Path) -> None:
    copy = gateway.copy(tmp_path / "copy")
    revoke(gateway, gateway.begin())
    gateway.put_back(copy)
    office, running = gateway.begin(), gateway.begin()
    refused(running)
    with pytest.raises(OperatorError, match="did not sign what witnesses have seen"):
        office.resume_ledger(
            "the disk is lost", gateway.desk.act("carol", "resume", **office.resume_terms([]))
        )
    lost = office.heads.given_up()
    assert len(lost) == 1
    gateway.desk.resume(office)
    assert office.books.reader.rows(kinds=("ledger.resumed",))[-1].table["given_up"] == [lost[0]["hash"]]
    for each in (office, running, gateway.begin()):
        each.grant(SCOPE)
        each.heads.step()
        assert each.heads.look() == ""
    with_newer = gateway.begin()
    assert with_newer.heads.given_up() == []
    refused(gateway.begin(copy))


# ── publishing ───────────────────────────────────────────────────────────────────────────────────────────


def kept(gateway: Gateway, office: ConsentOffice) -> int:
    """Number of the row that the witness keeps."""
    office.heads.compare()
    head = office.heads._watched[0].head
    return head.seq if head else 0


def test_heads_go_out_at_once_after_a_loud_row_and_once_a_minute_after_grants(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1_000.0]
    monkeypatch.setattr(head_keeper, "boot_time", lambda: now[0])
    office = gateway.begin()
    office.heads.step()
    first = kept(gateway, office)
    assert first == office.books.tip[0]
    office.grant(SCOPE)
    office.heads.step()
    assert kept(gateway, office) == first, "a grant may wait"
    now[0] += PUBLISH_S
    office.heads.step()
    assert kept(gateway, office) == first + 1
    revoke(gateway, office)
    assert kept(gateway, office) == first + 2


def test_a_command_publishes_what_it_has_written(gateway: Gateway) -> None:
    office = gateway.begin()
    standing = office.standing_of("jane")
    assert standing is not None
    act = gateway.desk.act("alice", "revoke", voice_id=standing.voice_id)
    Withdrawals(office.books, office.vault).revoke("jane", "asked", act)
    seq = office.books.tip[0]
    office.close()
    assert kept(gateway, gateway.begin()) == seq


def test_an_older_process_does_not_take_a_newer_head_away(gateway: Gateway, tmp_path: Path) -> None:
    copy = gateway.copy(tmp_path / "copy")
    office = gateway.begin()
    revoke(gateway, office)
    newest = kept(gateway, office)
    old = gateway.begin(copy)
    old.heads.publish()
    assert kept(gateway, office) == newest
    refused(old)


async def test_the_task_publishes_and_tells_once(gateway: Gateway, tmp_path: Path) -> None:
    copy = gateway.copy(tmp_path / "copy")
    revoke(gateway, gateway.begin())
    old = gateway.begin(copy)
    told: list[str] = []
    heard = asyncio.Event()

    def alarm(what: str) -> None:
        told.append(what)
        heard.set()

    task = asyncio.ensure_future(old.heads.run(alarm))
    await asyncio.wait_for(heard.wait(), HANGS_S)
    task.cancel()
    assert told == ["ledger unwitnessed"]


# ── witnesses that are away, wrong or hostile ────────────────────────────────────────────────────────────


def test_a_redis_that_is_away_stops_nobody_for_a_day(
    desk: Desk, valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.jane()
    now = [1_000.0]
    monkeypatch.setattr(head_keeper, "boot_time", lambda: now[0])
    valkey.kill()
    heads = HeadKeeper(desk.office.books, [RedisWitness(valkey.url)])
    heads._began = now[0]
    heads.begin()
    assert "is away" in heads.state
    assert heads.doubt == "witness away"
    heads.refuse()
    now[0] += AWAY_S + 1
    with pytest.raises(WitnessError, match="no witness of the ledger has answered for 24 h"):
        heads.refuse()
    valkey.start()
    heads.step()
    heads.step()
    heads.refuse()
    assert heads.look() == ""
    assert Redis.from_url(valkey.url).hlen(HEADS) == 1
    valkey.kill()
    now[0] += AWAY_S * 3
    heads.compare()
    heads.refuse()  # it has confirmed this ledger once; what came since is this process's own
    assert "is away" in heads.look()


def test_a_witness_that_lost_its_head_gets_it_again(
    desk: Desk, valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1_000.0]
    monkeypatch.setattr(head_keeper, "boot_time", lambda: now[0])
    heads = HeadKeeper(desk.office.books, [RedisWitness(valkey.url)])
    heads.step()
    redis = Redis.from_url(valkey.url)
    redis.flushall()
    now[0] += PUBLISH_S
    heads.step()
    heads.step()
    assert redis.hlen(HEADS) == 1


def test_what_another_office_signed_proves_nothing_and_is_said(
    desk: Desk, valkey: Valkey, tmp_path: Path
) -> None:
    desk.jane()
    stranger = OfficeKeys.open(tmp_path / "stranger").signer
    forged = sign(
        {"seq": 10**6, "hash": "f" * 64, "at_ms": 1, "ledger": desk.office.books.ledger_id},
        stranger.private, stranger.kid, HEAD_TYP,
    )  # fmt: skip
    redis = Redis.from_url(valkey.url)
    for token in (forged, "garbage", "a.b.c", "", '{"seq": 1}', forged + "x"):
        redis.hset(HEADS, desk.office.books.ledger_id, token)
        heads = HeadKeeper(desk.office.books, [RedisWitness(valkey.url)])
        heads.step()
        heads.refuse()
        assert "has not signed" in heads.look()
    redis.delete(HEADS)
    redis.set(HEADS, "no hash at all")
    heads = HeadKeeper(desk.office.books, [RedisWitness(valkey.url)])
    heads.step()
    heads.refuse()
    assert "is away" in heads.look()


def test_a_head_signed_with_a_key_that_was_stolen_gives_way(desk: Desk, valkey: Valkey) -> None:
    heads = HeadKeeper(desk.office.books, [RedisWitness(valkey.url)])
    heads.publish()
    stolen = desk.office.keys.signer.kid
    desk.rotate("signing")
    about = {"kid": stolen, "since_ms": round(desk.clock.now * 1000)}
    act = desk.act("alice", "revoke-key", **about)
    Rotation(desk.office.books, desk.office.vault).revoke(stolen, desk.clock.now, "stolen", act)
    heads = HeadKeeper(desk.office.books, [RedisWitness(valkey.url)])
    heads.publish()
    assert heads.look() == ""
    assert heads.heads()[0].seq == desk.office.books.tip[0]


def test_another_ledgers_head_of_the_same_office_proves_nothing(desk: Desk, notary: Notary) -> None:
    desk.jane()
    signer = desk.office.keys.signer
    claims = {"seq": 10**6, "hash": "f" * 64, "at_ms": 1, "ledger": "e" * 64}
    notary.heads.append(sign(claims, signer.private, signer.kid, HEAD_TYP))
    heads = HeadKeeper(desk.office.books, [UrlWitness(notary.url)])
    heads.begin()
    heads.refuse()


def test_an_older_head_proves_nothing(desk: Desk, notary: Notary) -> None:
    notary.heads.append(desk.office.books.head())
    desk.jane()
    heads = HeadKeeper(desk.office.books, [UrlWitness(notary.url)])
    heads.step()
    heads.refuse()
    assert len(notary.heads) == 2


@pytest.mark.parametrize("answer", ["an error", "too much", "a redirect", "no text"])
def test_a_url_that_misbehaves_is_away(desk: Desk, notary: Notary, answer: str, tmp_path: Path) -> None:
    other = Notary()
    match answer:
        case "an error":
            notary.answers = 500
        case "too much":
            notary.garbage = b"x" * (LARGEST + 1)
        case "a redirect":
            notary.answers, notary.to = 302, other.url
            other.heads.append(desk.office.books.head())
        case "no text":
            notary.garbage = bytes(range(256))
    heads = HeadKeeper(desk.office.books, [UrlWitness(notary.url)])
    heads.step()
    heads.refuse()
    assert heads.look()
    other.server.shutdown()
    other.server.server_close()


def test_a_url_that_says_nothing_is_given_up(desk: Desk) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        heads = HeadKeeper(desk.office.books, [UrlWitness(f"http://127.0.0.1:{silent.getsockname()[1]}/")])
        heads.begin()
    assert "is away" in heads.state


@pytest.mark.parametrize(
    "url",
    [
        "http://example.org/heads",
        "ftp://example.org",
        "example.org",
        "https://",
        "",
        "http://127.0.0.1:x/",
        "//x",
    ],
)
def test_a_url_is_https_but_on_this_machine(url: str) -> None:
    with pytest.raises(LedgerError, match="VOICEGATE_LEDGER_WITNESS"):
        UrlWitness(url)


@pytest.mark.parametrize("url", ["https://example.org/heads", "http://localhost:1/", "http://[::1]:8/x"])
def test_these_will_do(url: str) -> None:
    assert UrlWitness(url).place == url


def test_a_url_is_shown_without_its_password() -> None:
    assert "secret" not in UrlWitness("https://me:secret@example.org/heads").place


# ── syslog ───────────────────────────────────────────────────────────────────────────────────────────────


def test_syslog_gets_each_head_for_a_human_to_compare(desk: Desk, tmp_path: Path) -> None:
    path = tmp_path / "log"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as log:
        log.bind(str(path))
        HeadKeeper(desk.office.books, syslog=path).publish()
        text = log.recv(65_536).decode()
    seq, digest, _ = desk.office.books.tip
    assert text.startswith("<85>voicegate[")
    assert f"ledger head row {seq} {digest} " in text
    token = text.rpartition(" ")[2]
    assert desk.office.verifier.claims(token, HEAD_TYP)["seq"] == seq


def test_a_machine_without_syslog_is_no_trouble(tmp_path: Path) -> None:
    assert not tell_syslog("token", 1, "hash", tmp_path / "none")
