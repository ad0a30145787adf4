"""The doctor finds what is wrong on purpose, and says how to fix it."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmarks.consent import make_voice
from consent.models.model_files import locked_model, locked_models
from consent.office.office import ConsentOffice
from gateway.cli.doctor import doctor, doctor_libraries, doctor_stores
from gateway.cli.doctor.diagnosis import Diagnosis
from gateway.cli.operator.dialplan_command import dialplan
from gateway.config import remedy
from gateway.config.paths import consent_dir
from gateway.config.runtime import runtime_for
from gateway.config.settings import Settings
from gateway.errors import StartError
from gateway.ipc.front_messages import TelephoneState
from gateway.store.registry import Registry
from gateway.store.sip_bindings import SipBindings
from gateway.store.sip_users import SipUsers
from tests.gateway.conftest import Valkey
from tests.gateway.store.test_sip_bindings import binding
from watermark.keys import KeyRing


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    (tmp_path / "run").mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    return Settings(data_dir=tmp_path / "data", sip_port=free_port(), http_port=free_port())


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def with_(settings: Settings, **changes: object) -> Settings:
    return settings.model_copy(update=changes)


def states(findings: Iterator[Diagnosis]) -> dict[str, str]:
    return {finding.what: finding.state for finding in findings}


def only(findings: Iterator[Diagnosis]) -> Diagnosis:
    (finding,) = findings
    return finding


def test_a_healthy_machine_is_well(settings: Settings) -> None:
    findings = list(doctor.examine(settings))
    assert {finding.state for finding in findings} <= {"ok", "warn"}, findings
    told = {finding.what: finding.text for finding in findings}
    assert "2 processes, each with 8 calls at 8 kHz and 4 at 16 kHz: 24 calls" in told["SIP lines"]
    assert "G722" in told["codecs"]
    assert "Valkey" in told["Redis"]
    assert not settings.data_dir.exists(), "the doctor looks and touches nothing"


def test_a_port_that_somebody_holds(settings: Settings) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as holder:
        holder.bind(("127.0.0.1", settings.sip_port))
        found = {f.what: f for f in doctor.gateway_and_ports(settings)}
    assert found["SIP over UDP port"].state == "fail"
    assert "VOICEGATE_SIP_PORT" in found["SIP over UDP port"].fix
    assert found["SIP over TCP port"].state == "ok"


def test_a_port_that_our_gateway_holds_is_well(settings: Settings) -> None:
    runtime = runtime_for(settings.data_dir)
    runtime.new_token()
    with runtime.lock.open("w") as lock, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as holder:
        fcntl.flock(lock, fcntl.LOCK_EX)
        holder.bind(("127.0.0.1", settings.sip_port))
        found = states(doctor.gateway_and_ports(settings))
    assert found["SIP over UDP port"] == "ok"
    assert found["HTTP port"] == "fail", "it runs, and does not hold its port"
    assert found["gateway"] == "warn", "its front does not answer"


def test_an_open_data_directory(settings: Settings) -> None:
    settings.data_dir.mkdir(mode=0o755)
    os.chmod(settings.data_dir, 0o755)
    finding = only(doctor.data_dir(settings))
    assert (finding.state, finding.fix) == ("warn", f"chmod 700 {settings.data_dir}")


def test_a_watermark_key_of_an_older_version(settings: Settings) -> None:
    assert "first start" in only(doctor.watermark_keys(settings)).text
    settings.data_dir.mkdir(mode=0o700)
    path = settings.data_dir / "watermark-keys.json"
    path.write_text('{"keys": [{"id": "wm-0007", "gateway": 7, "secret": "AAAAAAAAAAAAAAAAAAAAAAAAAAA="}]}')
    path.chmod(0o600)
    old = only(doctor.watermark_keys(settings))
    assert (old.state, "version 1" in old.text) == ("warn", True)
    assert f"voicegate watermark rotate {path}" in old.fix
    KeyRing.load(path).rotate(path, 2.0)
    now = only(doctor.watermark_keys(settings))
    assert (now.state, "both layers, 2 dB; 1 older" in now.text) == ("ok", True)
    path.write_text("{}")
    assert only(doctor.watermark_keys(settings)).state == "fail"


def test_a_broken_dialplan(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text("[[route]]\n")
    finding = only(doctor.dialplans(with_(settings, dialplans=tmp_path)))
    assert finding.state == "fail"
    assert "a.toml:1:" in finding.text


def test_a_target_by_a_trunk_that_is_not_there(settings: Settings, tmp_path: Path) -> None:
    plans = tmp_path / "plans"
    plans.mkdir()
    (plans / "a.toml").write_text(
        '[targets]\noffice = "trunk:carrier/+4930"\n[[route]]\nname = "a"\ncalled = ["*"]\n'
        'do = [{ verb = "answer" }, { verb = "transfer", target = "office" }]\n'
    )
    settings = with_(settings, dialplans=plans)
    assert "no trunk carrier" in only(doctor.trunks(settings)).text
    file = settings.data_dir / "trunks.toml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text('[[trunk]]\nname = "carrier"\nhosts = ["192.0.2.1"]\n')
    assert "no prefixes" in only(doctor.trunks(settings)).text
    file.write_text("[[trunk]]\nhosts = 1\n")
    assert only(doctor.trunks(settings)).state == "fail"


def test_an_open_gateway_without_digest(settings: Settings) -> None:
    finding = only(doctor.access(with_(settings, host="0.0.0.0", sip_auth="off")))
    assert finding.state == "warn"
    assert only(doctor.access(with_(settings, host="0.0.0.0"))).state == "ok"


def test_whose_telephones_are_registered_and_those_that_a_plan_names(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert only(doctor.registered(settings)).text == "0 of 0 users"
    plan = (
        '[targets]\ndesk = "user:alice"\ndoor = "user:bob"\nroof = "user:carol"\n[[route]]\nname = "a"\n'
        'called = ["a"]\ndo = [{ verb = "answer" }, { verb = "hangup" }]\n'
    )
    (tmp_path / "a.toml").write_text(plan)
    settings = with_(settings, dialplans=tmp_path)
    for name in ("alice", "bob"):
        SipUsers(settings.data_dir).add(name, "correct-horse")
    registry = Registry.open(settings.sql)
    gone = binding("sip:b@x", user="bob", transport="tcp", lost_at=1.0)
    SipBindings(registry, ("g",)).keep([binding(user="alice"), gone], [])
    registry.close()
    all_of_it, door, roof = doctor.registered(settings)
    assert (all_of_it.state, all_of_it.text) == ("ok", "2 of 2 users, 1 not reachable: alice")
    assert (door.state, door.text) == ("warn", "target door: bob is not registered")
    assert (roof.state, roof.text) == ("fail", "target roof: there is no SIP user carol")
    silent = TelephoneState("alice", binding().key, there=False, round_trip_ms=None)
    monkeypatch.setattr(doctor, "telephone_states", lambda _: (silent,))
    all_of_it, desk, *_ = doctor.registered(settings)
    assert all_of_it.text == "2 of 2 users, 2 not reachable"
    assert desk.text == "target desk: alice has no telephone that answers"
    assert "none may" in only(doctor.registered(with_(settings, registered_most_s=0))).text


def test_redis_of_the_operators(settings: Settings, valkey: Valkey) -> None:
    there = only(doctor_stores.redis(with_(settings, redis_url=valkey.url)))
    assert there.state == "ok"
    valkey.stop()
    gone = only(doctor_stores.redis(with_(settings, redis_url=valkey.url)))
    assert gone.state == "fail"
    assert "VOICEGATE_REDIS_URL" in gone.fix


def test_whoever_keeps_the_ledgers_head_is_named_and_nobody_is_said(
    settings: Settings, valkey: Valkey
) -> None:
    assert only(doctor_stores.witnesses(settings)).state == "ok", "there is no voice that could come back"
    office = ConsentOffice.open(settings.sql, consent_dir(settings))
    with office.archive.writing() as connection:
        office.vault.open_voice(connection, "feed", "jane", 1.0)
    office.close()
    alone = only(doctor_stores.witnesses(settings))
    assert alone.state == "warn"
    assert "an older copy put back would not be noticed" in alone.text
    assert "VOICEGATE_LEDGER_WITNESS" in alone.fix
    with_redis = with_(settings, redis_url=valkey.url)
    assert only(doctor_stores.witnesses(with_redis)).state == "ok"
    valkey.stop()
    away = only(doctor_stores.witnesses(with_redis))
    assert away.state == "warn"
    assert "is away" in away.text
    wrong = only(doctor_stores.witnesses(with_(settings, ledger_witness="http://example.org")))
    assert wrong.state == "fail"
    assert "https://" in wrong.text


def test_a_database_that_is_away(settings: Settings) -> None:
    finding = only(doctor_stores.sql(with_(settings, sql_url="postgresql://x@127.0.0.1:1/x")))
    assert finding.state == "fail"
    assert "VOICEGATE_SQL_URL" in finding.fix


def test_a_checkpoint_that_is_not_whole(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor_libraries, "probe", lambda name: {"version": "2", "device": "a GPU"})
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    (tmp_path / "config.json").write_text("{}")
    found = list(doctor_libraries.chroma(with_(settings, engine="chroma", chroma=str(tmp_path))))
    assert found[0].state == "ok"
    assert found[1].state == "fail"
    assert "*.safetensors" in found[1].text
    assert list(doctor_libraries.chroma(settings)) == []


def test_a_model_that_is_away_or_another_one(settings: Settings, tmp_path: Path) -> None:
    away = {finding.what: finding for finding in doctor_libraries.models(settings)}
    assert away.keys() == {f"model file {name}" for name, model in locked_models().items() if not model.tests}
    assert {finding.state for finding in away.values()} == {"warn"}
    assert away["model file speaker"].fix == "voicegate models get speaker"
    (tmp_path / "speaker.pt").write_bytes(b"another")
    found = {finding.what: finding for finding in doctor_libraries.models(with_(settings, models=tmp_path))}
    wrong = found["model file speaker"]
    assert (wrong.state, wrong.fix) == ("fail", "voicegate models get speaker")
    assert found["model file whisper-base"].state == "warn"


def test_a_package_that_is_away_is_installed_from_where_we_came(settings: Settings) -> None:
    finding = doctor_libraries._broken("voice activity", {"missing": "onnxruntime"})
    assert finding.fix == remedy.install_again()


def test_a_probe_that_crashes_is_a_finding(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(sys, "executable", "/bin/false")
        assert doctor_libraries.probe("pjsua2") == {
            "error": "its process ended with status 1: it said nothing"
        }
    monkeypatch.setattr(
        doctor_libraries, "probe", lambda name: {"error": "its process ended with status -11"}
    )
    assert states(doctor_libraries.telephones(settings)) == {
        "SIP lines": "ok", "codecs": "fail", "test phone": "warn",
    }  # fmt: skip
    monkeypatch.setattr(doctor_libraries, "probe", lambda name: {"missing": "pocketsphinx"})
    assert all("pocketsphinx is not installed" in f.text for f in doctor_libraries.speech(settings))


def test_halls_that_no_telephone_reaches_are_a_finding(settings: Settings) -> None:
    with pytest.raises(StartError, match=r"VOICEGATE_SIP_LINES: 1 leaves some of 2 halls"):
        list(doctor_libraries.telephones(with_(settings, halls=2, sip_lines=1)))


def test_the_command_ends_with_1_when_something_fails(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VOICEGATE_DATA_DIR", str(settings.data_dir))
    monkeypatch.setattr(doctor, "examine", lambda _: [Diagnosis("x", "warn", "so so", "fix it")])
    result = CliRunner().invoke(doctor.doctor, [])
    assert (result.exit_code, result.output) == (0, "warn  x: so so\n      → fix it\n")
    monkeypatch.setattr(doctor, "examine", lambda _: [Diagnosis("x", "fail", "bad", "fix it")])
    result = CliRunner().invoke(doctor.doctor, ["--json"])
    assert result.exit_code == 1
    assert json.loads(result.output)[0]["state"] == "fail"


PLAN = """
[[route]]
name = "{name}"
called = ["{name}"]
language = "{language}"
voice = "{voice}"
keep = {{ transcript = true }}
do = [
  {{ verb = "answer" }},
  {{ verb = "disclose", principal = "Acme", language = "{told_in}", text = "Nous écrivons. We write." }},
]
"""


def planned(settings: Settings, *routes: tuple[str, str, str]) -> Settings:
    """Routes by (name, language, voice) that keep transcripts, of a house with Chroma and its own models."""
    settings.data_dir.mkdir(mode=0o700, exist_ok=True)
    (settings.data_dir / "dialplans").mkdir()
    text = "".join(
        PLAN.format(name=name, language=spoken, told_in=spoken[:2], voice=voice)
        for name, spoken, voice in routes
    )
    (settings.data_dir / "dialplans" / "plan.toml").write_text(text)
    return with_(settings, engine="chroma", models=settings.data_dir / "models")


def put_model(settings: Settings, name: str) -> None:
    """Files of the right size, which is what is looked at."""
    assert settings.models is not None
    model = locked_model(name)
    for file in model.files:
        path = settings.models / model.file_name(file)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as whole:
            whole.truncate(file.size)


def test_transcripts_that_nobody_can_write(settings: Settings) -> None:
    plans = planned(settings, ("anglais", "en-GB", "heart"), ("french", "fr", "heart"))
    told = [finding for finding in doctor.dialplans(plans) if finding.what == "transcripts"]
    assert [finding.state for finding in told] == ["warn", "warn"]
    assert [(finding.text.split()[6], finding.fix.split()[-1]) for finding in told] == [
        ("anglais", "whisper-tiny-en"), ("french", "whisper-base"),
    ]  # fmt: skip
    put_model(plans, "whisper-tiny-en")
    told = [finding for finding in doctor.dialplans(plans) if finding.what == "transcripts"]
    assert [(finding.state, finding.fix.split()[-1]) for finding in told] == [("warn", "whisper-base")]
    put_model(plans, "whisper-base")
    told = [finding for finding in doctor.dialplans(plans) if finding.what == "transcripts"]
    assert [finding.state for finding in told] == ["ok"]


def test_a_route_in_a_language_that_its_voice_did_not_consent_to(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    plans = planned(
        settings, ("english", "en-GB", "jane"), ("french", "fr", "jane"), ("stock", "fr", "heart")
    )
    office = ConsentOffice.open(plans.sql, consent_dir(plans))
    make_voice(office, "jane")
    office.close()
    told = [finding for finding in doctor.dialplans(plans) if finding.what == "consent to languages"]
    text = "french: jane consented to speaking en, and this route speaks fr: callers hear the stock voice"
    assert [(finding.state, finding.text) for finding in told] == [("warn", text)]
    for name in ("data_dir", "engine", "models"):
        monkeypatch.setenv(f"VOICEGATE_{name.upper()}", str(getattr(plans, name)))
    checked = CliRunner().invoke(dialplan, ["check"])
    assert checked.exit_code == 0, "it loads all the same"
    assert f": {text}" in checked.stderr
    assert (
        "english: what callers say is not written down: the model files of whisper-tiny-en" in checked.stderr
    )
