"""SIP users: hashes that telephones can answer, files that others cannot read."""

from __future__ import annotations

import hashlib
import json
import threading
from pathlib import Path

import pytest

from gateway.store.sip_users import FIRST_USER, SipUsers, UsersError, console_token, typed_secret


def test_a_user_has_ha1_in_both_algorithms(tmp_path: Path) -> None:
    users = SipUsers(tmp_path)
    users.add("bob", "a long password")
    secret = b"bob:voicegate:a long password"
    assert users.ha1("bob") == hashlib.md5(secret).hexdigest()
    assert users.ha1("bob", "SHA-256") == hashlib.sha256(secret).hexdigest()
    assert users.ha1("eve") is None


def test_no_password_is_kept_and_nobody_else_reads(tmp_path: Path) -> None:
    SipUsers(tmp_path / "data").add("bob", "a long password")
    for path in (tmp_path / "data").iterdir():
        assert "a long password" not in path.read_text()
        if path.suffix == ".json":
            assert path.stat().st_mode & 0o077 == 0
    assert (tmp_path / "data").stat().st_mode & 0o077 == 0


def test_another_process_sees_a_change_at_once(tmp_path: Path) -> None:
    edge, desk = SipUsers(tmp_path), SipUsers(tmp_path)
    assert edge.names() == []
    desk.add("bob", "password one")
    first = edge.ha1("bob")
    desk.add("bob", "password two")
    assert first is not None
    assert edge.ha1("bob") not in (None, first)
    desk.remove("bob")
    assert edge.ha1("bob") is None


def test_two_who_add_at_once_lose_nobody(tmp_path: Path) -> None:
    def add(prefix: str) -> None:
        users = SipUsers(tmp_path)
        for number in range(10):
            users.add(f"{prefix}{number}", "a long password")

    threads = [threading.Thread(target=add, args=(prefix,)) for prefix in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(SipUsers(tmp_path).names()) == 30


@pytest.mark.parametrize(
    "name", ["", "a b", 'a"b', "a:b", "a@b", "a\\b", "a,b", "a\0", "\udce4", "x" * 65, "a\n", "☎"]
)
def test_a_name_that_digest_cannot_carry_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsersError, match="not a user name"):
        SipUsers(tmp_path).add(name, "a long password")


@pytest.mark.parametrize("password", ["", "short", "with a\nline break"])
def test_a_poor_password_is_refused(tmp_path: Path, password: str) -> None:
    with pytest.raises(UsersError, match="password"):
        SipUsers(tmp_path).add("bob", password)


def test_removing_nobody_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UsersError, match="no SIP user 'bob'"):
        SipUsers(tmp_path).remove("bob")


def test_a_file_that_others_read_or_that_is_broken_is_not_trusted(tmp_path: Path) -> None:
    SipUsers(tmp_path).add("bob", "a long password")
    path = tmp_path / "sip_users.json"
    path.chmod(0o644)
    with pytest.raises(UsersError, match="chmod 600"):
        SipUsers(tmp_path).ha1("bob")
    path.chmod(0o600)
    path.write_text("[]")
    with pytest.raises(UsersError, match="broken"):
        SipUsers(tmp_path).ha1("bob")


def test_the_first_user_is_the_same_at_every_start(tmp_path: Path) -> None:
    first = SipUsers(tmp_path).first()
    assert first is not None
    name, password = first
    assert name == FIRST_USER
    assert SipUsers(tmp_path).first() == first
    expected = hashlib.md5(f"{name}:voicegate:{password}".encode()).hexdigest()
    assert SipUsers(tmp_path).ha1(name) == expected
    assert (tmp_path / "first_user.json").stat().st_mode & 0o077 == 0


def test_the_first_user_gives_way_to_the_operators(tmp_path: Path) -> None:
    users = SipUsers(tmp_path)
    users.first()
    users.add("bob", "a long password")
    users.remove(FIRST_USER)
    assert users.first() is None
    assert users.names() == ["bob"]
    assert not (tmp_path / "first_user.json").exists()


def test_a_first_user_with_another_password_is_not_shown(tmp_path: Path) -> None:
    users = SipUsers(tmp_path)
    users.first()
    users.add(FIRST_USER, "one of my own")
    assert users.first() is None


def test_the_console_token_is_made_once_and_private(tmp_path: Path) -> None:
    token = console_token(tmp_path)
    assert len(token) >= 32
    assert console_token(tmp_path) == token
    path = tmp_path / "console_token"
    assert path.stat().st_mode & 0o077 == 0
    path.chmod(0o640)
    with pytest.raises(UsersError, match="can be read by others"):
        console_token(tmp_path)


def test_secrets_are_typed_on_a_telephone_and_never_twice_the_same() -> None:
    made = {typed_secret() for _ in range(100)}
    assert len(made) == 100
    assert all(len(secret) == 19 and not set(secret) & set("ilo01") for secret in made)


@pytest.mark.parametrize("name", ["jörg", "Ωmega", "田中", "नमस्ते", "bob+1.x_y-z"])
def test_names_of_any_language_are_users(tmp_path: Path, name: str) -> None:
    users = SipUsers(tmp_path)
    users.add(name, "schlüssel")
    assert users.names() == [name]
    assert users.ha1(name) == hashlib.md5(f"{name}:voicegate:schlüssel".encode()).hexdigest()
    users.remove(name)
    assert users.ha1(name) is None


def test_a_letter_and_its_accent_are_one_letter(tmp_path: Path) -> None:
    users = SipUsers(tmp_path)
    users.add("jo\u0308rg", "schlu\u0308ssel")
    assert users.names() == ["jörg"]
    composed = hashlib.md5("jörg:voicegate:schlüssel".encode()).hexdigest()
    assert users.ha1("jörg") == users.ha1("jo\u0308rg") == composed
    users.remove("jo\u0308rg")


def test_a_name_with_the_realm_behind_it_has_a_hash_of_its_own(tmp_path: Path) -> None:
    users = SipUsers(tmp_path)
    users.add("bob", "a long password")
    for algorithm, make in (("MD5", hashlib.md5), ("SHA-256", hashlib.sha256)):
        expected = make(b"bob@voicegate:voicegate:a long password").hexdigest()
        assert users.ha1("bob@voicegate", algorithm) == expected  # type: ignore[arg-type]  # one of the two
    for other in (
        "bob@",
        "bob@elsewhere",
        "bob@VOICEGATE",
        "eve@voicegate",
        "@voicegate",
        "bob@voicegate@voicegate",
    ):
        assert users.ha1(other) is None


def test_a_file_of_before_these_hashes_is_good(tmp_path: Path) -> None:
    row = {"MD5": "0" * 32, "SHA-256": "1" * 64}
    (tmp_path / "sip_users.json").write_text(json.dumps({"realm": "voicegate", "users": {"bob": row}}))
    (tmp_path / "sip_users.json").chmod(0o600)
    users = SipUsers(tmp_path)
    assert (users.ha1("bob"), users.ha1("bob", "SHA-256")) == ("0" * 32, "1" * 64)
    assert users.ha1("bob@voicegate") == "0" * 32
    assert not users.is_legacy("bob")
    users.add("eve", "a long password")
    kept = json.loads((tmp_path / "sip_users.json").read_text())
    assert kept["users"]["bob"] == row


def test_who_is_legacy_is_kept_until_the_next_password(tmp_path: Path) -> None:
    SipUsers(tmp_path).add("door", "a long password", legacy=True)
    users = SipUsers(tmp_path)
    assert users.is_legacy("door")
    assert users.is_legacy("door@voicegate")
    assert not users.is_legacy("eve")
    users.add("door", "a long password")
    assert not SipUsers(tmp_path).is_legacy("door")


def test_whose_sound_is_encrypted_is_kept_over_another_password(tmp_path: Path) -> None:
    SipUsers(tmp_path).add("door", "a long password", srtp="required")
    SipUsers(tmp_path).add("door", "another password")
    users = SipUsers(tmp_path)
    assert [users.srtp(name) for name in ("door", "door@voicegate", "eve")] == ["required", "required", None]
    users.add("door", "another password", srtp="off")
    assert SipUsers(tmp_path).srtp("door") == "off"
    users.add("bob", "a long password")
    assert users.srtp("bob") is None


@pytest.mark.parametrize(
    "row",
    [
        {"MD5": "0", "SHA-256": "1", "srtp": "sometimes"},
        {"MD5": "0"},
        {"MD5": "0", "SHA-256": "1", "legacy": "no"},
        [],
        None,
        {"MD5": 1},
    ],
)
def test_a_broken_row_is_no_user(tmp_path: Path, row: object) -> None:
    path = tmp_path / "sip_users.json"
    path.write_text(json.dumps({"realm": "voicegate", "users": {"bob": row}}))
    path.chmod(0o600)
    with pytest.raises(UsersError, match="broken"):
        SipUsers(tmp_path).ha1("bob")
