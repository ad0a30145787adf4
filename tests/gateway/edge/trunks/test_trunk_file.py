"""The file of trunks: what it says, and what is wrong with it, by line."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.edge.trunks.trunk import Trunk, TrunkHost
from gateway.edge.trunks.trunk_file import read_trunks
from gateway.errors import SettingsError

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
    ],
)
def test_a_mistake_is_told_with_its_line(tmp_path: Path, more: str, line: int, why: str) -> None:
    (tmp_path / "open").write_text("geheim")
    (tmp_path / "open").chmod(0o644)
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
