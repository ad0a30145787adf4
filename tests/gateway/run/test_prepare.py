"""What is tried before the house starts: its stores and its key files."""

from __future__ import annotations

from pathlib import Path

import pytest
from redis import Redis
from sqlalchemy import create_engine, insert

from consent.archive.tables import VOICES
from consent.errors import VaultError
from consent.silero import network
from gateway.config.paths import office_socket
from gateway.config.settings import Settings
from gateway.errors import DialplanError, StartError, VoicegateError
from gateway.run import prepare
from gateway.run.office_child import office_place
from tests.consent.service.served import serving
from tests.gateway.conftest import Valkey
from watermark.envelope import chip_network


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Of a gateway that has been started once."""
    settings = Settings(data_dir=tmp_path / "data", host="0.0.0.0")
    settings.data_dir.mkdir(mode=0o700)
    _prepared(settings)
    return settings


def _prepared(settings: Settings) -> None:
    """Prepares beside an office, as the supervisor does."""
    with serving(office_place(settings), office_socket(settings)):
        prepare.prepare(settings)


def test_it_makes_what_is_not_there_and_can_be_done_again(settings: Settings) -> None:
    made = {path.name for path in settings.data_dir.rglob("*")}
    assert {
        "watermark-keys.json",
        "grant-keys.json",
        "sip-route-key",
        "sip_users.json",
        "console_token",
    } <= made
    _prepared(settings)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("watermark-keys.json", b"{", "watermark-keys.json is not a key file"),
        ("watermark-keys.json", b'{"keys": []}', "watermark-keys.json holds no key"),
        ("consent/checks.toml", b"x = 1", "checks.toml: 'x' is not a setting"),
        ("sip-route-key", b"", "sip-route-key does not hold a key of 32 bytes; remove it"),
        ("sip_users.json", b"{", "sip_users.json is broken"),
        ("voicegate.db", b"no database at all" * 100, r"voicegate\.db: the call registry cannot be opened"),
    ],
)
def test_a_damaged_file_is_named(settings: Settings, name: str, content: bytes, said: str) -> None:
    path = settings.data_dir / name
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(VoicegateError, match=said):
        prepare.prepare(settings)


def test_damaged_keys_of_the_office_are_named_by_its_process(settings: Settings) -> None:
    (settings.data_dir / "consent" / "office-keys.json").write_bytes(b"{")
    with pytest.raises(VaultError, match=r"office-keys\.json is not a key file"):
        _prepared(settings)


def test_an_office_that_another_service_runs_and_nobody_serves_is_named(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path / "data", office_socket=tmp_path / "away.sock")
    with pytest.raises(StartError, match=r"nobody serves the consent office at .*/away\.sock"):
        prepare.prepare(settings)


@pytest.mark.parametrize("name", ["watermark-keys.json", "sip_users.json", "console_token"])
def test_a_secret_that_others_may_read_is_named(settings: Settings, name: str) -> None:
    (settings.data_dir / name).chmod(0o644)
    with pytest.raises(VoicegateError, match=f"{name} can be read by others"):
        prepare.prepare(settings)


def test_the_network_that_hears_speech_is_looked_at(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(network, "PATH", tmp_path / "silero_vad.onnx")
    with pytest.raises(
        StartError, match=r"silero_vad\.onnx: No such file or directory; install voicegate again"
    ):
        prepare.prepare(settings)
    network.PATH.write_bytes(b"another")
    with pytest.raises(StartError, match="is not the file that came with voicegate"):
        prepare.prepare(settings)


def test_the_network_that_hears_the_mark_is_looked_at(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chip_network.network.cache_clear()
    monkeypatch.setattr(chip_network, "PATH", tmp_path / "weights.npz")
    with pytest.raises(StartError, match=r"weights\.npz: No such file or directory; install voicegate again"):
        prepare.prepare(settings)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("nonsense", "VOICEGATE_SQL_URL is not an SQLAlchemy URL"),
        ("postgresql://vg:secret@127.0.0.1:abc/x", "VOICEGATE_SQL_URL is not an SQLAlchemy URL"),
        ("postgresql+nodriver://x/y", "VOICEGATE_SQL_URL: there is no driver postgresql.nodriver here"),
        ("mysql://x/y", "VOICEGATE_SQL_URL: mysql is neither sqlite nor postgresql"),
        ("postgresql://vg:secret@127.0.0.1:1/x", "VOICEGATE_SQL_URL: the call registry cannot be opened"),
        ("sqlite:////proc/no/such.db", r"/proc/no/such\.db: the call registry cannot be opened"),
    ],
)
def test_a_database_that_cannot_be_used(tmp_path: Path, url: str, said: str) -> None:
    with pytest.raises(StartError, match=said) as refused:
        prepare.prepare(Settings(data_dir=tmp_path, sql_url=url))
    assert "secret" not in str(refused.value)


def test_a_redis_that_is_away() -> None:
    with pytest.raises(
        StartError, match=r"VOICEGATE_REDIS_URL: no Redis can be used there .*; start it"
    ) as refused:
        prepare.reach_redis(Settings(redis_url="redis://:secret@127.0.0.1:1/0"))
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("database", "said"),
    [
        ("0?socket_timeout=abc", "VOICEGATE_REDIS_URL: Invalid value for 'socket_timeout'"),
        ("99", r"no Redis can be used there \(unix:///.*: ResponseError: DB index is out of range\)"),
    ],
)
def test_a_redis_that_refuses_what_the_url_asks(valkey: Valkey, database: str, said: str) -> None:
    url = f"{valkey.url}?db={database}" if database.isdigit() else f"redis://127.0.0.1:1/{database}"
    with pytest.raises(StartError, match=said):
        prepare.reach_redis(Settings(redis_url=url))


def test_a_redis_with_another_password(valkey: Valkey) -> None:
    with Redis.from_url(valkey.url) as redis:
        redis.config_set("requirepass", "right")
    with pytest.raises(StartError, match=r"AuthenticationError: .*; put its user and password") as refused:
        prepare.reach_redis(Settings(redis_url=valkey.url.replace("unix://", "unix://vg:hush@")))
    assert "hush" not in str(refused.value)


PLAN = """
[[route]]
name = "demo"
called = ["demo"]
voice = "hart"
do = [{ verb = "answer" }, { verb = "hangup" }]
"""


def test_a_plan_with_a_voice_that_nobody_registered_is_no_start(tmp_path: Path) -> None:
    plan = tmp_path / "plans" / "a.toml"
    plan.parent.mkdir()
    plan.write_text(PLAN)
    settings = Settings(data_dir=tmp_path / "data", dialplans=plan.parent)
    with pytest.raises(DialplanError) as refused:
        _prepared(settings)
    assert str(refused.value).startswith(
        f"{plan}:5: route 'demo': unknown voice 'hart'; did you mean 'heart'? (callers would hear"
    )
    plan.write_text(PLAN.replace("hart", "heart"))
    _prepared(settings)


def test_a_voice_that_is_registered_in_whatever_state_may_be_named(tmp_path: Path) -> None:
    plan = tmp_path / "plans" / "a.toml"
    plan.parent.mkdir()
    plan.write_text(PLAN.replace("hart", "jane"))
    settings = Settings(data_dir=tmp_path / "data", dialplans=plan.parent)
    with pytest.raises(DialplanError, match="unknown voice 'jane'; known are heart"):
        _prepared(settings)
    with create_engine(settings.sql).begin() as connection:
        jane = {"voice_id": "v1", "handle": "jane", "wrapped_key": None, "master_kid": "", "made_at": 0}
        connection.execute(insert(VOICES), jane)
    _prepared(settings)


def test_a_voice_may_come_later_where_no_other_would_speak_for_it(tmp_path: Path) -> None:
    plan = tmp_path / "plans" / "a.toml"
    plan.parent.mkdir()
    plan.write_text(PLAN.replace('"hart"', '"jane"\nwithout_voice = "hangup"'))
    _prepared(Settings(data_dir=tmp_path / "data", dialplans=plan.parent))


def test_a_redis_that_answers(valkey: Valkey) -> None:
    prepare.reach_redis(Settings(redis_url=valkey.url))
    prepare.reach_redis(Settings())


def test_a_recording_that_cannot_be_played_is_said_before_the_house_starts(settings: Settings) -> None:
    plans = settings.data_dir / "dialplans"
    plans.mkdir()
    (plans / "a.toml").write_text(
        '[[route]]\nname = "demo"\ncalled = ["demo"]\n[[route.do]]\nverb = "answer"\n'
        '[[route.do]]\nverb = "play"\nfile = "gone.wav"\nsynthetic = false\n'
    )
    with pytest.raises(DialplanError, match=r"a\.toml:8: route 'demo': 'gone\.wav' cannot be played"):
        _prepared(settings)
