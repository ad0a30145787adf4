"""The doctor asks the collector and the login provider, tells them nothing, and says what to do."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.cli.doctor.doctor_servers import collector, provider
from gateway.config.settings import Settings
from tests.gateway.front.events.trace_collector import CollectorThread, points_in
from tests.gateway.front.http.oidc_double import CLIENT, ProviderDouble

KEY = "only-in-a-file"


def shown(tmp_path: Path, mode: int = 0o600, key: str = KEY) -> Path:
    file = tmp_path / "headers"
    file.write_text(f"X-Api-Key: {key}\n")
    file.chmod(mode)
    return file


def test_a_collector_that_takes_what_it_is_told(tmp_path: Path) -> None:
    with CollectorThread(KEY) as there:
        (found,) = collector(Settings(otlp_url=there.url, otlp_headers_file=shown(tmp_path)))
        assert found.state == "ok"
        assert [points_in(body) for body in there.metric_bodies] == [[]]
        (found,) = collector(Settings(otlp_url=there.url, otlp_headers_file=shown(tmp_path, key="wrong")))
        assert (found.state, "VOICEGATE_OTLP_HEADERS_FILE" in found.fix) == ("warn", True)
        (found,) = collector(Settings(otlp_url=there.url, otlp_headers_file=shown(tmp_path, 0o644)))
        assert found.state == "fail"
        assert KEY not in found.text
        url = there.url
    (found,) = collector(Settings(otlp_url=url))
    assert (found.state, found.fix) == ("warn", "start it")
    assert list(collector(Settings())) == []


@pytest.fixture
def double() -> Iterator[ProviderDouble]:
    with ProviderDouble() as running:
        yield running


def asked(double: ProviderDouble, **more: Any) -> tuple[str, str]:
    given = {"oidc_issuer": double.issuer, "oidc_client_id": CLIENT, "oidc_roles": ("staff=watcher",), **more}
    (found,) = provider(Settings(**given))
    return found.state, found.text + found.fix


def test_a_provider_by_which_people_can_log_in(double: ProviderDouble) -> None:
    state, text = asked(double)
    assert (state, "http://localhost:8080/login/oidc/back" in text) == ("ok", True)
    assert double.logins == []


def test_what_is_wrong_with_a_provider_is_told_and_not_logged(
    double: ProviderDouble, capsys: pytest.CaptureFixture[str]
) -> None:
    assert asked(double, oidc_roles=())[0] == "warn"
    assert asked(double, oidc_roles=("staff=root",))[0] == "fail"
    double.keys = []
    assert asked(double)[0] == "fail"
    double.facts = {"issuer": f"{double.issuer}/"}
    state, text = asked(double)
    assert (state, "another issuer" in text, "last slash" in text) == ("warn", True, True)
    assert list(provider(Settings())) == []
    assert capsys.readouterr().out == ""
