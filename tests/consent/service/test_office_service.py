"""The office's socket as a border of trust: who may ask what, and that a stranger's bytes do nothing."""

from __future__ import annotations

import contextlib
import json
import os
import random
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from consent import errors
from consent.errors import ChallengeError, ConsentError, GrantRefused, LedgerError, OfficeAway, PinRefused
from consent.grants.scope import Scope
from consent.service import faults, office_client, office_server, parcel
from consent.service.front_office import FrontOffice
from consent.service.front_questions import (
    AskGrant,
    AskRevocations,
    AskUsable,
    ForgetCall,
    HearLine,
    NoteUsage,
    OpenEnrolment,
    TakeVoiceBack,
)
from consent.service.gateway_counter import CALLS
from consent.service.office_client import OfficeClient, reach
from consent.service.office_rooms import OfficePlace
from consent.service.operator_questions import AskFacts, MakeBackup
from consent.service.parcel import MAX_ENVELOPE, VERSION, Parcel
from consent.service.question import BODY, written
from consent.service.remembered import Remembered
from consent.service.voice_questions import ListVoices
from tests.consent.service.served import serving
from tests.needs import HANGS_S

HEART = Scope("heart", "support", "demo", "en", "c1")


@pytest.fixture
def place(tmp_path: Path) -> OfficePlace:
    return OfficePlace(
        f"sqlite:///{tmp_path}/data/voicegate.db",
        tmp_path / "data" / "consent",
        tmp_path / "k",
        tmp_path / "m",
    )


@pytest.fixture
def path(place: OfficePlace) -> Path:
    return place.consent_dir / "office.sock"


@pytest.fixture
def client(place: OfficePlace, path: Path) -> Iterator[OfficeClient]:
    with serving(place, path), contextlib.closing(OfficeClient(path)) as asking:
        yield asking


def front(client: OfficeClient, place: OfficePlace) -> FrontOffice:
    return FrontOffice(client, place.consent_dir / "grant-keys.json")


def test_of_many_connections_few_are_kept(client: OfficeClient) -> None:
    links = [client._link(time.monotonic() + HANGS_S) for _ in range(office_client.AT_ONCE)]
    for link in links:
        client._keep(link)
    assert len(client._idle) == office_client.KEPT
    assert sum(link.fileno() >= 0 for link in links) == office_client.KEPT


def test_its_log_says_which_model_files_its_checks_lack(place: OfficePlace, path: Path) -> None:
    with capture_logs() as logs, serving(place, path):
        pass
    lacking = [row["why"] for row in logs if row["event"] == "office.people_check"]
    assert ["models get speaker" in lacking[0], "models get whisper-base" in lacking[1]] == [True, True]


# ── grants ───────────────────────────────────────────────────────────────────────────────────────────────


def test_a_grant_comes_verified_and_is_renewed(client: OfficeClient, place: OfficePlace) -> None:
    office = front(client, place)
    granted = office.grant(HEART)
    renewed = office.renew(granted)
    assert (granted.scope, granted.jti) == (HEART, renewed.jti)
    assert renewed.expires_at >= granted.expires_at
    assert office.reference(granted.token, granted.voice_hash).stock
    assert office.usable() == ("heart",)
    assert office.names() == {"heart"}
    assert office.withdrawn() == []


def test_a_refusal_keeps_its_class_and_its_word(client: OfficeClient, place: OfficePlace) -> None:
    with pytest.raises(GrantRefused, match="no voice is called 'jane'") as refused:
        front(client, place).grant(Scope("jane", "support", "demo", "en", "c1"))
    assert refused.value.reason == "unknown"
    with pytest.raises(GrantRefused) as forged:
        front(client, place).reference("a.b.c", "hash")
    assert forged.value.reason == "tampered"


def _kinds(kind: type[ConsentError]) -> Iterator[type[ConsentError]]:
    for below in kind.__subclasses__():
        if below.__module__ == errors.__name__:
            yield below
            yield from _kinds(below)


@pytest.mark.parametrize("kind", sorted(_kinds(ConsentError), key=lambda kind: kind.__name__))
def test_every_error_of_consent_crosses_as_itself(kind: type[ConsentError]) -> None:
    made: ConsentError
    match kind:
        case errors.PinRefused:
            made = PinRefused("locked", 12.5)
        case errors.GrantRefused | errors.RegistrationError:
            made = kind("a word", "what was wrong")
        case _:
            made = kind("what was wrong")
    heard = faults.heard(json.loads(json.dumps(faults.told(made))))
    assert type(heard) is kind
    assert str(heard) == str(made)
    assert vars(heard) == vars(made)


def test_an_error_of_another_version_is_none_of_ours() -> None:
    assert isinstance(faults.heard({"kind": "SystemExit", "text": "x"}), OfficeAway)


def test_the_public_keys_are_written_where_another_users_office_cannot(
    client: OfficeClient, place: OfficePlace, tmp_path: Path
) -> None:
    """The gateway's own data directory, of which the office knows nothing."""
    elsewhere = tmp_path / "gateway" / "consent" / "grant-keys.json"
    office = FrontOffice(client, elsewhere)
    office.publish_keys()
    assert elsewhere.read_text() == (place.consent_dir / "grant-keys.json").read_text()
    assert office.grant(HEART).voice == "heart"
    elsewhere.write_text('{"keys": {}}')  # before a rotation was heard of
    assert FrontOffice(client, elsewhere).grant(HEART).voice == "heart"
    assert elsewhere.read_text() == (place.consent_dir / "grant-keys.json").read_text()


# ── who may ask ──────────────────────────────────────────────────────────────────────────────────────────


def test_what_only_the_gateway_may_ask_is_answered_to_its_user_alone(place: OfficePlace, path: Path) -> None:
    with serving(place, path, gateway=os.getuid() + 1), contextlib.closing(OfficeClient(path)) as stranger:
        for question in (
            AskGrant(HEART), NoteUsage("j", "c", 1.0, "d"), OpenEnrolment("c", "1"), TakeVoiceBack("c", "1"),
            ForgetCall("c"),
        ):  # fmt: skip
            with pytest.raises(OfficeAway, match="to the gateway's user only"):
                stranger.ask(question)
        assert [voice.name for voice in stranger.ask(ListVoices())] == ["heart"]


@pytest.mark.skipif(os.getuid() != 0, reason="only root can be another user")
def test_another_user_of_the_sockets_group_neither_grants_nor_takes_the_keys_out(tmp_path: Path) -> None:
    """A real other user, by the kernel's word, let in by the socket's group and the directory's mode."""
    folder = Path(f"/tmp/vg-office-{os.getpid()}")
    folder.mkdir(mode=0o755)
    place = OfficePlace(f"sqlite:///{tmp_path}/voicegate.db", tmp_path / "consent", tmp_path, tmp_path)
    program = """
import os, sys
from pathlib import Path
from consent.errors import OfficeAway
from consent.grants.scope import Scope
from consent.service.front_questions import AskGrant
from consent.service.office_client import OfficeClient
from consent.service.operator_questions import MakeBackup
from consent.service.voice_questions import ListVoices
os.setgroups([]); os.setgid(65534); os.setuid(65534)
client = OfficeClient(Path(sys.argv[1]))
print(client.user(), [voice.name for voice in client.ask(ListVoices())])
for question in (AskGrant(Scope("heart", "a", "b", "en", "c")), MakeBackup(b"a long passphrase")):
    try:
        client.ask(question)
        print("answered")
    except OfficeAway as error:
        print(error)
"""
    try:
        with serving(place, folder / "office.sock"):
            os.chown(folder / "office.sock", 0, 65534)
            said = subprocess.run(
                [sys.executable, "-c", program, folder / "office.sock"],
                capture_output=True,
                text=True,
                check=True,
            ).stdout.splitlines()
    finally:
        for left in folder.iterdir():
            left.unlink()
        folder.rmdir()
    assert said[0] == "0 ['heart']"
    assert said[1].endswith("to the gateway's user only")
    assert said[2].endswith("to the user that it runs as only")


def test_the_socket_is_its_owners_and_its_groups(client: OfficeClient, path: Path) -> None:
    assert path.stat().st_mode & 0o777 == 0o660
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert client.user() == os.getuid()
    assert client.ask(AskFacts()).gateway == os.getuid()


def test_a_backup_goes_to_the_user_whose_keys_these_are(client: OfficeClient) -> None:
    made = client.ask(MakeBackup(b"a long passphrase"))
    assert made.sealed.startswith(b"VGCONSENT")


# ── a stranger's bytes ───────────────────────────────────────────────────────────────────────────────────


def raw(
    envelope: bytes, body: bytes = b"", blobs: bytes = b"", lengths: tuple[int, int, int] | None = None
) -> bytes:
    sizes = lengths or (len(envelope), len(body), len(blobs))
    return struct.pack(">III", *sizes) + envelope + body + blobs


def asked(name: str, body: bytes, **more: Any) -> bytes:
    blobs = more.pop("blobs", b"")
    return raw(json.dumps({"v": VERSION, "ask": name, **more}).encode(), body, blobs)


GRANT_BODY, _ = written(AskGrant, AskGrant(HEART))

HOSTILE: list[tuple[str, bytes, str]] = [
    ("another version", raw(b'{"v": 2, "ask": "grant"}', GRANT_BODY), "of version 2"),
    ("no version", raw(b'{"ask": "grant"}', GRANT_BODY), "of version ?"),
    ("a list for an envelope", raw(b"[]"), "not a JSON object"),
    ("no JSON", raw(b"\xff\xfe"), "not JSON"),
    ("a deep envelope", raw(b"[" * 4_000), "not JSON"),
    ("a great envelope", raw(b"", lengths=(MAX_ENVELOPE + 1, 0, 0)), "envelope is too large"),
    (
        "the greatest lengths",
        raw(b'{"v": 1, "ask": "grant"}', lengths=(24, 2**32 - 1, 2**32 - 1)),
        "larger than",
    ),
    ("a great body", raw(b'{"v": 1, "ask": "grant"}', lengths=(24, BODY + 1, 0)), "larger than"),
    ("sound where there is none", asked("grant", GRANT_BODY, blobs=b"x"), "larger than"),
    ("an unknown question", asked("open_keys", b"{}"), "no such question"),
    ("a question that is no text", raw(b'{"v": 1, "ask": ["grant"]}', b"{}"), "no such question"),
    ("no question", raw(b'{"v": 1}', b"{}"), "no such question"),
    ("a missing field", asked("grant", b"{}"), "field scope: missing"),
    ("another type", asked("grant", b'{"scope": 5}'), "field scope"),
    ("a scope's field of another type", asked("grant", GRANT_BODY.replace(b'"demo"', b"7")), "string_type"),
    (
        "an unknown field",
        asked("grant", GRANT_BODY[:-1] + b', "now": 0}'),
        "now: unexpected_keyword_argument",
    ),
    (
        "an unknown field inside",
        asked("grant", GRANT_BODY.replace(b'"demo"', b'"demo", "x": 1')),
        "unexpected",
    ),
    ("a deep body", asked("grant", b'{"scope": ' * 20_000), "json_invalid"),
    ("half a body", asked("grant", GRANT_BODY[:-4]), "json_invalid"),
    ("NUL", asked("grant", b"\0" * 64), "json_invalid"),
    ("a negative length", asked("enrol.line", b"{}", blobs=b"", **{"blobs_": 0}), "missing"),
    (
        "a blob that is not there",
        asked("enrol.line", b'{"call_id":"c","at":0,"pcm":3,"source_hz":8000}'),
        "pcm",
    ),
    ("a bool for a blob", asked("enrol.line", b'{"call_id":"c","at":0,"pcm":true,"source_hz":8000}'), "pcm"),
]


@pytest.mark.parametrize(("bytes_", "says"), [pytest.param(*case[1:], id=case[0]) for case in HOSTILE])
def test_what_is_no_question_is_refused_and_the_office_goes_on(
    client: OfficeClient, path: Path, bytes_: bytes, says: str
) -> None:
    with reach(path) as link:
        link.sendall(bytes_)
        opened = parcel.opened(link, HANGS_S, HANGS_S)
        assert opened is not None
        said = json.loads(opened.rest(parcel.Sizes(1 << 20, 0)).body)
        assert says in said["text"]
        assert "heart" not in said["text"], "what somebody sent is not said back"
        assert link.recv(1) == b"", "the connection is closed"
    assert client.ask(AskUsable()) == ("heart",)


@pytest.mark.parametrize("lengths", [[-5, 5], [1 << 40], ["1"], [True], "1", [1] * 33, [0.5], [2]])
def test_lengths_of_blobs_that_do_not_fit_are_refused(
    client: OfficeClient, path: Path, lengths: object
) -> None:
    envelope = json.dumps({"v": VERSION, "ask": "enrol.line", "blobs": lengths}).encode()
    with reach(path) as link:
        link.sendall(raw(envelope, b"{}", b"", (len(envelope), 2, 1)) + b"x")
        opened = parcel.opened(link, HANGS_S, HANGS_S)
        assert opened is not None
        assert "lengths of its blobs" in json.loads(opened.rest(parcel.Sizes(1 << 20, 0)).body)["text"]
    assert client.ask(AskUsable()) == ("heart",)


def test_random_bytes_and_broken_connections_end_nothing(client: OfficeClient, path: Path) -> None:
    dice = random.Random(12)
    for _ in range(200):
        with contextlib.suppress(OSError), reach(path) as link:
            whole = asked("grant", GRANT_BODY)
            match dice.randrange(3):
                case 0:
                    link.sendall(dice.randbytes(dice.randrange(1, 200)))
                case 1:
                    link.sendall(whole[: dice.randrange(1, len(whole))])
                case _:
                    spoiled = bytearray(whole)
                    spoiled[dice.randrange(len(spoiled))] ^= 1 << dice.randrange(8)
                    link.sendall(spoiled)
    assert client.ask(AskUsable()) == ("heart",)
    assert client.ask(AskGrant(HEART))


def test_who_sends_a_question_byte_by_byte_is_let_go(
    client: OfficeClient, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(office_server, "READ_S", 0.2)
    with reach(path) as link:
        link.sendall(asked("grant", GRANT_BODY)[:20])
        link.settimeout(HANGS_S)
        assert link.recv(1) == b""
    assert client.ask(AskUsable()) == ("heart",)


def test_one_user_cannot_take_all_connections(
    place: OfficePlace, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever is not the gateway gets some, and no more; its own are counted apart."""
    monkeypatch.setattr(office_server, "PER_USER", 3)
    with serving(place, path, gateway=os.getuid() + 1), contextlib.ExitStack() as held:
        client = held.enter_context(contextlib.closing(OfficeClient(path)))
        assert client.ask(AskUsable()) == ("heart",)
        for _ in range(2):
            held.enter_context(reach(path))
        deadline = time.monotonic() + HANGS_S
        said = ""
        while "too many connections" not in said and time.monotonic() < deadline:
            with reach(path) as one_more:
                one_more.settimeout(0.5)
                with contextlib.suppress(TimeoutError):
                    said = one_more.recv(4_096).decode(errors="replace")
        assert "too many connections" in said
        assert client.ask(AskUsable()) == ("heart",)


# ── an office that ends and comes back ───────────────────────────────────────────────────────────────────


def test_an_office_that_comes_back_is_asked_again_by_itself(place: OfficePlace, path: Path) -> None:
    with contextlib.closing(OfficeClient(path, back_s=HANGS_S)) as client:
        with serving(place, path):
            first = client.ask(AskGrant(HEART))
        back = threading.Event()

        def serve_again() -> None:
            with serving(place, path):
                assert back.wait(HANGS_S)

        again = threading.Thread(target=serve_again)
        again.start()
        second = client.ask(AskGrant(HEART))  # waits until it is there
        back.set()
        again.join()
    assert first != second


def test_while_the_office_is_away_a_grant_is_refused_for_that_reason(place: OfficePlace, path: Path) -> None:
    with serving(place, path):
        pass
    assert not path.exists()
    office = FrontOffice(OfficeClient(path, back_s=0.1), place.consent_dir / "grant-keys.json")
    with pytest.raises(GrantRefused, match="nobody serves the consent office") as refused:
        office.grant(HEART)
    assert refused.value.reason == "office"
    with pytest.raises(OfficeAway):
        office.record_usage(jti="j", call_id="c", seconds=1.0, dialplan="d")


class Ends:
    """An office that takes each question and ends before it answers; it counts them."""

    def __init__(self, path: Path) -> None:
        self.asked = 0
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(path))
        self._listener.listen()
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                link, _ = self._listener.accept()
                with link:
                    opened = parcel.opened(link, HANGS_S, HANGS_S)
                    assert opened is not None
                    opened.rest(parcel.Sizes(1 << 20, 1 << 20))
                    self.asked += 1

    def close(self) -> None:
        self._listener.close()


@pytest.fixture
def short(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = Path(f"/tmp/vg-ends-{os.getpid()}")
    folder.mkdir(mode=0o700)
    yield folder / "office.sock"
    (folder / "office.sock").unlink(missing_ok=True)
    folder.rmdir()


def test_what_may_be_asked_twice_is_and_nothing_else(short: Path) -> None:
    """An act or a usage that was perhaps taken is never sent again by itself."""
    with contextlib.closing(Ends(short)) as office:
        client = OfficeClient(short, back_s=0.3)
        with pytest.raises(OfficeAway, match="look whether it was done"):
            client.ask(NoteUsage("j", "c", 1.0, "d"))
        assert office.asked == 1
        with pytest.raises(OfficeAway):
            client.ask(AskRevocations())
        assert office.asked > 2


def test_an_office_that_says_nothing_is_not_waited_for_longer_than_the_question_says(short: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as silent:
        silent.bind(str(short))
        silent.listen()
        with pytest.raises(OfficeAway, match=r"has not answered 'usable' within 0\.2 s"):
            OfficeClient(short).ask(AskUsable(), within_s=0.2)


@pytest.mark.parametrize(
    "answer",
    [
        Parcel({"is": "answer"}, b"[1]"),
        Parcel({"is": "answer"}, b"nonsense"),
        Parcel({"is": "error"}, b"[]"),
        Parcel({"is": "error"}, b"nonsense"),
        Parcel({"is": "error"}, b'{"kind": "PinRefused", "locked_s": "x"}'),
        Parcel({"is": "what"}, b"{}"),
    ],
)
def test_an_answer_that_is_none_is_an_error_of_ours(answer: Parcel) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with theirs, contextlib.closing(OfficeClient(None, ours)) as client:
        parcel.send(theirs, answer, HANGS_S)
        with pytest.raises(OfficeAway):
            client.ask(AskUsable())


# ── in a call ────────────────────────────────────────────────────────────────────────────────────────────


def test_a_line_of_a_call_that_enrols_nobody_is_refused(client: OfficeClient) -> None:
    with pytest.raises(ChallengeError, match="enrols nobody"):
        client.ask(HearLine("c1", 0, bytes(480), 8_000))
    with pytest.raises(ChallengeError, match="not valid now"):
        client.ask(OpenEnrolment("c1", "1234567890"))
    with pytest.raises(PinRefused, match="nobody entered a PIN"):
        client.ask(TakeVoiceBack("c1", "482913"))
    client.ask(ForgetCall("c1"))


def test_what_is_remembered_of_calls_is_bounded() -> None:
    kept: Remembered[int] = Remembered(CALLS)
    for number in range(CALLS + 5):
        kept.keep(f"c{number}", number)
    assert kept.of("c4") is None
    assert kept.of("c5") == 5
    kept.forget("c5")
    assert kept.of("c5") is None


def test_a_ledger_that_is_broken_refuses_persons_and_the_stock_voice_goes_on(
    place: OfficePlace, path: Path, edited: Callable[[], None]
) -> None:
    edited()
    with serving(place, path), contextlib.closing(OfficeClient(path)) as client:
        office = front(client, place)
        assert office.grant(HEART).voice == "heart"
        with pytest.raises(GrantRefused) as refused:
            office.grant(Scope("jane", "support", "demo", "en", "c1"))
        assert refused.value.reason == "ledger"
        with pytest.raises(LedgerError):
            office.withdrawn()


@pytest.fixture
def edited(place: OfficePlace, path: Path) -> Callable[[], None]:
    def edit() -> None:
        import sqlite3

        with serving(place, path):
            pass
        (place.consent_dir / "ledger-head").unlink()
        with sqlite3.connect(place.sql_url.removeprefix("sqlite:///")) as plain:
            plain.execute("UPDATE consent_ledger SET body = replace(body, 'kid', 'kit')")

    return edit


def test_limits_stand_in_their_modules() -> None:
    assert office_client.BACK_S == 4.0, "docs/architecture.md says so"
