"""What the doctor says of the certificate."""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest

from gateway.cli.doctor.doctor_certificate import certificate, trunk_certificates
from gateway.config import own_certificate as own
from gateway.config.paths import certificate_paths
from gateway.config.settings import Settings
from gateway.edge.trunks.trunk import Trunk
from tests.gateway.edge.authority import Authority


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path, host="0.0.0.0")


def told(settings: Settings) -> list[tuple[str, str]]:
    return [(finding.state, finding.text) for finding in certificate(settings)]


def test_it_says_what_there_is(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    assert told(Settings(data_dir=settings.data_dir)) == []
    assert "will be made" in told(settings)[0][1]
    chain, key = certificate_paths(settings)
    own.own_certificate(settings, chain, key)
    assert told(settings)[0][0] == "ok"
    key.chmod(0o604)
    assert told(settings)[0][0] == "fail"
    chain.unlink()
    monkeypatch.setattr(own, "LASTS", datetime.timedelta(days=20))
    own.own_certificate(settings, chain, key)
    (state, text), *_ = told(settings)
    assert (state, "within 30 days" in text) == ("warn", True)


def test_a_turn_server_needs_its_secret(settings: Settings) -> None:
    given = settings.model_copy(update={"ice_servers": ("turn:turn.example",)})
    assert told(given)[-1][0] == "fail"
    given = settings.model_copy(update={"ice_servers": ("stun:stun.example",)})
    assert told(given)[-1] == ("ok", "stun:stun.example")


@pytest.mark.parametrize(
    ("days", "state", "says"), [(-1.0, "fail", "ended on"), (9.0, "warn", "ends on"), (90.0, "ok", "ends on")]
)
def test_a_trunks_certificate_is_told_with_its_end(
    tmp_path: Path, days: float, state: str, says: str
) -> None:
    chain, key = Authority(tmp_path).sign("us.example", days=days)
    trunk = Trunk(name="carrier", hosts=(), transport="tls", certificate=chain, key=key)
    (finding,) = trunk_certificates(trunk, asks=True)
    assert (finding.state, says in finding.text) == (state, True)
    known = Trunk(name="carrier", hosts=(), transport="tls", authority=chain, shows=("a",))
    assert [one.state for one in trunk_certificates(known, asks=False)] == [state, "fail"]
