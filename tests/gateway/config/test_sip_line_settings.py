"""How many telephones at once: what an operator may say, and what earlier versions said."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.config.runtime import Runtime
from gateway.config.settings import Settings, load
from gateway.errors import SettingsError
from gateway.run.sip_lines import arguments, ports_each


@pytest.mark.parametrize(
    ("given", "processes"),
    [
        ({}, 2),
        ({"halls": 3}, 3),
        ({"sip_lines": 1}, 1),
        ({"sip_lines": 0}, 0),
        ({"narrow_calls": 0, "wide_calls": 0}, 0),
        ({"narrow_calls": 0}, 2),
    ],
)
def test_two_processes_at_least_and_one_for_each_hall(given: dict[str, int], processes: int) -> None:
    assert Settings(**given).sip_processes == processes  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["NARROW_LINES", "WIDE_LINES"])
def test_what_earlier_versions_called_lines_is_told_what_does_it_now(tmp_path: Path, name: str) -> None:
    said = f"VOICEGATE_{name} is not a setting; .*VOICEGATE_SIP_LINES .*VOICEGATE_NARROW_CALLS"
    with pytest.raises(SettingsError, match=said):
        load({"VOICEGATE_DATA_DIR": str(tmp_path), f"VOICEGATE_{name}": "10"})
    (tmp_path / "voicegate.toml").write_text(f"{name.lower()} = 10\n")
    with pytest.raises(SettingsError, match=f"'{name.lower()}' is not a setting; .*VOICEGATE_SIP_LINES"):
        load({"VOICEGATE_DATA_DIR": str(tmp_path)})


def test_each_process_has_its_own_block_of_ports(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, rtp_port=30_000, narrow_calls=20, wide_calls=5, halls=2, host="::")
    assert ports_each(settings) == 100
    told = [arguments(settings, Runtime(tmp_path), number) for number in range(3)]
    by_name = [dict(zip(words[::2], words[1::2], strict=True)) for words in told]
    assert [one["--rtp-port"] for one in by_name] == ["30000", "30100", "30200"]
    assert [one["--hall"] for one in by_name] == ["hall0", "hall1", "hall0"]
    assert {one["--media-address"] for one in by_name} == {"::"}


@pytest.mark.parametrize(
    ("host", "bound"),
    [("127.0.0.1", "127.0.0.1"), ("localhost", "127.0.0.1"), ("0.0.0.0", ""), ("::1", "::1")],
)
def test_sound_is_bound_where_the_gateway_is(tmp_path: Path, host: str, bound: str) -> None:
    words = arguments(Settings(data_dir=tmp_path, host=host), Runtime(tmp_path), 0)
    assert words[words.index("--media-address") + 1] == bound
    assert words[words.index("--rtp-port") + 1] == "0"
