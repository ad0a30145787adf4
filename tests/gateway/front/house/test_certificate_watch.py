"""Files of certificates are looked at while the gateway runs; one that does not hold stops nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from structlog.testing import capture_logs

from gateway.config.settings import Settings
from gateway.errors import SettingsError
from gateway.front.house.certificate_watch import CertificateWatch
from tests.gateway.edge.authority import Authority


def test_a_trunks_files_are_looked_at_whatever_is_wrong_with_the_houses(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    chain, key = authority.sign("gate.example")
    watch = CertificateWatch(Settings(data_dir=tmp_path, tls_certificate=chain, tls_key=key))
    looked: list[int] = []

    def wrong() -> None:
        looked.append(1)
        raise SettingsError("trunk a, authority: it is gone")

    watch.look_too(wrong)
    watch.look_too(lambda: looked.append(2))
    chain.write_text("half written")
    with capture_logs() as logs:
        watch.look()
    assert looked == [1, 2]
    assert [one["event"] for one in logs] == ["certificate.refused", "certificate.refused"]
    assert "it is gone" in logs[1]["error"]


@pytest.mark.parametrize("clients", ["off", "asked", "required"])
def test_whose_certificates_telephones_need(tmp_path: Path, clients: str) -> None:
    authority = Authority(tmp_path)
    chain, key = authority.sign("gate.example")
    given = {"tls_certificate": chain, "tls_key": key, "tls_clients": clients, "tls_client_ca": authority.ca}
    watch = CertificateWatch(Settings(data_dir=tmp_path, **given))  # type: ignore[arg-type]
    assert len(watch.client_authorities()) == (clients == "required")
