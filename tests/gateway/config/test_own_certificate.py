"""The certificate that the gateway signs itself, and the settings of TLS."""

from __future__ import annotations

import datetime
import socket
import ssl
from pathlib import Path

import pytest

from gateway.config import own_certificate as own
from gateway.config.certificate import Certificate
from gateway.config.ports import all_ports
from gateway.config.settings import Settings, load
from gateway.errors import SettingsError


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    return tmp_path / "tls.pem", tmp_path / "tls-key.pem"


def test_it_is_made_once_for_every_name_of_this_machine(files: tuple[Path, Path]) -> None:
    settings = Settings(host="0.0.0.0", public_address="198.51.100.7", http_names=("voice.example.com",))
    own.own_certificate(settings, *files)
    before = Certificate(*files).fingerprint
    assert files[1].stat().st_mode & 0o777 == 0o600
    own.own_certificate(settings, *files)
    assert Certificate(*files).fingerprint == before
    shown = ssl._ssl._test_decode_cert(str(files[0]))  # type: ignore[attr-defined]  # it verifies nothing
    names = set(shown["subjectAltName"])
    assert {("DNS", "localhost"), ("DNS", "voice.example.com"), ("IP Address", "198.51.100.7")} <= names
    assert ("IP Address", "127.0.0.1") in names
    assert ("DNS", socket.gethostname().lower()) in names


def test_it_is_made_anew_before_it_ends(files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(host="0.0.0.0")
    monkeypatch.setattr(own, "LASTS", datetime.timedelta(days=29))
    own.own_certificate(settings, *files)
    before = Certificate(*files).fingerprint
    monkeypatch.undo()
    own.own_certificate(settings, *files)
    assert Certificate(*files).fingerprint != before


@pytest.mark.parametrize(
    ("given", "ports"),
    [
        ({}, (0, 0)),
        ({"host": "::1"}, (0, 0)),
        ({"host": "0.0.0.0"}, (5061, 8443)),
        ({"tls_certificate": "/c.pem", "tls_key": "/k.pem"}, (5061, 8443)),
        ({"host": "::", "sip_tls_port": 0, "https_port": 443}, (0, 443)),
        ({"sip_tls_port": 5071}, (0, 0)),
    ],
)
def test_where_there_is_a_certificate_there_are_ports_for_it(
    given: dict[str, object], ports: tuple[int, int]
) -> None:
    settings = Settings(**given)
    assert (settings.sip_tls, settings.https) == ports
    kinds = [port.what for port in all_ports(settings)]
    assert ("SIP over TLS" in kinds, "https" in kinds) == (bool(ports[0]), bool(ports[1]))


@pytest.mark.parametrize(
    ("environ", "why"),
    [
        ({"VOICEGATE_TLS_KEY": "/k.pem"}, "^VOICEGATE_TLS_CERTIFICATE and VOICEGATE_TLS_KEY go together"),
        ({"VOICEGATE_TLS_CLIENTS": "required"}, "^VOICEGATE_TLS_CLIENTS needs VOICEGATE_TLS_CLIENT_CA"),
    ],
)
def test_half_a_certificate_is_refused(tmp_path: Path, environ: dict[str, str], why: str) -> None:
    with pytest.raises(SettingsError, match=why):
        load({"VOICEGATE_DATA_DIR": str(tmp_path), **environ})


def test_a_file_that_is_not_there_or_not_pem_is_said(files: tuple[Path, Path]) -> None:
    with pytest.raises(SettingsError, match=r"VOICEGATE_TLS_CERTIFICATE: .*tls\.pem cannot be read"):
        Certificate(*files)
    for file in files:
        file.touch(0o600)
        file.write_text("nothing\n")
    with pytest.raises(SettingsError, match="cannot be used together"):
        Certificate(*files)
