"""The file of trunks: what it says, and what is wrong with it, by line."""

from __future__ import annotations

import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gateway.config.certificate import asking
from gateway.edge.trunks.trunk import Trunk, TrunkHost
from gateway.edge.trunks.trunk_desk import TrunkDesk
from gateway.edge.trunks.trunk_file import read_trunks
from gateway.edge.trunks.trunk_tls import TrunkTls, why_ended
from gateway.errors import SettingsError
from tests.gateway.edge.authority import Authority

WHOLE = """
[[trunk]]
name = "carrier"
hosts = ["sip.example.com", "192.0.2.1:5070"]
transport = "tls"
domain = "example.com"
user = "u1"
password_file = "secret"
register = true
numbers = ["+49301", "+49302"]
prefixes = ["+49"]
networks = ["198.51.100.7/24"]
srtp = "required"
"""
LEAST = """
[[trunk]]
name = "carrier"
hosts = ["sip.example.com"]
"""


def written(folder: Path, text: str) -> Path:
    file = folder / "trunks.toml"
    file.write_text(text)
    secret = folder / "secret"
    secret.write_text("geheim\n")
    secret.chmod(0o600)
    return file


def certificates(folder: Path) -> None:
    """`us`, and keys that do not fit it or that others may read."""
    authority = Authority(folder, "ca")
    authority.sign("us.example", to="us")
    authority.sign("us.example", to="other")
    readable = folder / "open-key.pem"
    readable.write_bytes((folder / "us-key.pem").read_bytes())
    readable.chmod(0o604)


def test_a_trunks_certificates_are_read_from_beside_the_file(tmp_path: Path) -> None:
    certificates(tmp_path)
    tls = """transport = "tls"
certificate = "us.pem"
key = "us-key.pem"
authority = "ca.pem"
shows = ["SIP.Example.com", "SHA256:%s"]
"""
    (trunk,) = read_trunks(written(tmp_path, LEAST + tls % ":".join(["AB"] * 32)))
    assert (trunk.certificate, trunk.key) == (tmp_path / "us.pem", tmp_path / "us-key.pem")
    assert trunk.shows == ("sip.example.com", "sha256:" + "ab" * 32)
    assert trunk.known_by == "certificate"
    ends = TrunkTls(trunk, asking).ends()
    assert list(ends) == ["certificate", "authority"]
    now = datetime.datetime.now(datetime.UTC)
    assert why_ended(TrunkTls(trunk, asking), now) is None
    assert "its certificate ended on" in str(why_ended(TrunkTls(trunk, asking), max(ends.values())))


def test_when_certificates_end_is_told_of_each_trunk_whose_files_can_be_read(tmp_path: Path) -> None:
    certificates(tmp_path)
    tls = 'transport = "tls"\ncertificate = "us.pem"\nkey = "us-key.pem"\n'
    (trunk,) = read_trunks(written(tmp_path, LEAST + tls))
    held = TrunkTls(trunk, asking)
    ends = {"certificate": held.ends()["certificate"]}
    desk: Any = SimpleNamespace(known={trunk.name: SimpleNamespace(tls=held)})
    assert TrunkDesk.ends(desk) == [(trunk.name, "certificate", ends["certificate"])]
    (tmp_path / "us.pem").unlink()
    assert TrunkDesk.ends(desk) == []


def test_two_trunks_are_not_known_by_one_certificate(tmp_path: Path) -> None:
    certificates(tmp_path)
    tls = 'transport = "tls"\nauthority = "ca.pem"\nshows = ["a.example"]\n'
    with pytest.raises(SettingsError, match=r"trunks\.toml:14: trunk carrier shows the same"):
        read_trunks(written(tmp_path, LEAST + tls + LEAST.replace("carrier", "other") + tls))


def test_no_file_is_no_trunk(tmp_path: Path) -> None:
    assert read_trunks(tmp_path / "trunks.toml") == ()


def test_a_trunk_is_read_and_its_password_is_shown_nowhere(tmp_path: Path) -> None:
    (trunk,) = read_trunks(written(tmp_path, WHOLE))
    assert trunk.hosts == (TrunkHost("sip.example.com", None), TrunkHost("192.0.2.1", 5070))
    assert (trunk.password, trunk.realm_host, trunk.sound_rule) == ("geheim", "example.com", "required")
    assert trunk.networks == ("198.51.100.0/24",)
    assert "geheim" not in repr(trunk)


@pytest.mark.parametrize(
    ("more", "line", "why"),
    [
        ('hostz = ["x"]', 5, "did you mean 'hosts'?"),
        ('password = "geheim"', 5, "no password stands in this file"),
        ('user = "u"\npassword_file = "open"', 6, "chmod 600"),
        ('user = "u"\npassword_file = "nowhere"', 6, "cannot be read"),
        ('password_file = "secret"', 5, "add user"),
        ("register = true", 5, "add user"),
        ('transport = "sctp"', 5, "known are udp, tcp, tls"),
        ('srtp = "required"', 5, "add transport"),
        ("calls = 0", 5, "from 1 to 1000"),
        ('prefixes = ["+49 30"]', 5, "is not a number"),
        ('numbers = "+49"', 5, "a list of texts"),
        ('networks = ["300.0.0.0/8"]', 5, "networks"),
        ('name = "again"', 5, "not TOML"),
        ('[[trunk]]\nname = "carrier"\nhosts = ["a"]', 6, "rename one"),
        ("[[route]]", 5, "unknown key 'route'"),
        ("sips = true", 5, "add transport"),
        ('authority = "ca.pem"', 5, "add transport"),
        ('transport = "tls"\ncertificate = "us.pem"', 6, "add key"),
        ('transport = "tls"\ncertificate = "us.pem"\nkey = "other-key.pem"', 6, "cannot be used together"),
        ('transport = "tls"\ncertificate = "nowhere"\nkey = "us-key.pem"', 6, "cannot be read (No such file"),
        ('transport = "tls"\ncertificate = "us.pem"\nkey = "nowhere"', 7, "cannot be read (No such file"),
        ('transport = "tls"\ncertificate = "us.pem"\nkey = "open-key.pem"', 7, "chmod 600"),
        ('transport = "tls"\nauthority = "nowhere"', 6, "cannot be read"),
        ('transport = "tls"\nauthority = "secret"', 6, "no certificate in PEM"),
        ('transport = "tls"\nshows = ["a.example"]', 6, "add authority"),
        ('transport = "tls"\nauthority = "ca.pem"\nshows = ["sip:a@b"]', 7, "is not a name"),
        ('transport = "tls"\nauthority = "ca.pem"\nshows = ["sha256:12"]', 7, "64 hexadecimal digits"),
        ('transport = "tls"\nauthority = "ca.pem"\nknown_by = "both"', 7, "name what its certificate says"),
        ('transport = "tls"\nshows = ["a"]\nauthority = "ca.pem"\nknown_by = "password"', 8, "known are"),
    ],
)
def test_a_mistake_is_told_with_its_line(tmp_path: Path, more: str, line: int, why: str) -> None:
    (tmp_path / "open").write_text("geheim")
    (tmp_path / "open").chmod(0o644)
    certificates(tmp_path)
    file = written(tmp_path, f"{LEAST}{more}\n")
    with pytest.raises(SettingsError) as caught:
        read_trunks(file)
    assert str(caught.value).startswith(f"{file}:{line}: ")
    assert why in str(caught.value)
    assert "geheim" not in str(caught.value)


@pytest.mark.parametrize(
    ("prefixes", "number", "may"),
    [
        ((), "+49301", False),
        (("+49",), "+49301", True),
        (("+49",), "+4418", False),
        (("+49", "+88"), "+88161", False),
        (("+881",), "+88161", True),
        (("+",), "+1900555", False),
        (("+1",), "+1900555", False),
        (("+1900555",), "+1900555123", True),
        (("0",), "0088216123", False),
        (("0",), "01188216123", False),
        (("0088216",), "0088216123", True),
    ],
)
def test_what_is_not_named_may_not_be_called(prefixes: tuple[str, ...], number: str, may: bool) -> None:
    trunk = Trunk(name="carrier", hosts=(), prefixes=prefixes)
    assert (trunk.why_not(number) is None) is may


@pytest.mark.parametrize("number", ["112", "+112", "911"])
def test_nobody_is_called_for_help_whatever_the_prefixes_say(number: str) -> None:
    """Also where a trunk's 3xx leads there."""
    assert "emergency" in (Trunk(name="carrier", hosts=(), prefixes=("1", "+1", "9")).why_not(number) or "")


def test_nobody_but_the_trunks_own_numbers_is_named_as_the_caller() -> None:
    trunk = Trunk(name="carrier", hosts=(), numbers=("+49301", "+49302"), user="u1")
    assert [trunk.shown_as(who) for who in ("+49302", "+49999", "")] == ["+49302", "+49301", "+49301"]
    assert Trunk(name="carrier", hosts=(), user="u1").shown_as("+49999") == "u1"
