"""Networks in the settings: what is none is the operator's mistake, said at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.config.settings import load
from gateway.edge.doors.limits import Networks
from gateway.errors import SettingsError


@pytest.mark.parametrize("name", ["SIP_ALLOW", "SIP_DENY", "TRUSTED_PROXIES"])
def test_what_is_no_network_is_refused_by_name(name: str, tmp_path: Path) -> None:
    environ = {"VOICEGATE_DATA_DIR": str(tmp_path), f"VOICEGATE_{name}": "10.0.0.0/8, our office"}
    with pytest.raises(SettingsError, match=f"VOICEGATE_{name}: 'our office' is not an address or a network"):
        load(environ)


def test_addresses_and_networks_are_networks() -> None:
    networks = Networks(("192.0.2.1", "10.0.0.0/8", "2001:db8::/32"))
    assert "192.0.2.1" in networks
    assert "10.9.9.9" in networks
    assert "2001:db8::9" in networks
    assert "192.0.2.2" not in networks
    assert not Networks(())
