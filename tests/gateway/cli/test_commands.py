"""The command as its user meets it: quick help, clear errors in one line, no traceback."""

from __future__ import annotations

import errno
import io
import os
import subprocess
import sys
import wave
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result
from rich.console import Console

import model
from consent.models.model_files import locked_model
from gateway.cli import main as cli_module
from gateway.cli.main import COMMANDS, cli
from gateway.cli.operator.run_command import panel
from gateway.cli.operator.sip_command import listed_users
from gateway.config import packages, remedy
from gateway.config.settings import load
from gateway.ipc.front_messages import HouseState, TelephoneState, TrunkState
from gateway.store.registry import Registry
from gateway.store.sip_bindings import SipBindings
from gateway.store.sip_users import SipUsers
from tests.consent.service.served import beside
from tests.gateway.edge.authority import Authority
from tests.gateway.store.test_sip_bindings import binding

pytestmark = pytest.mark.usefixtures("own_house")


def voicegate(*argv: str, given: str = "") -> Result:
    return CliRunner().invoke(cli, argv, input=given)


def refused(*argv: str) -> str:
    result = voicegate(*argv)
    assert result.exit_code != 0
    assert isinstance(result.exception, SystemExit), result.exception
    return result.output.strip().splitlines()[-1]


def test_help_names_every_command_and_loads_none() -> None:
    script = (
        "import sys; from gateway.cli.main import cli\n"
        "try: cli(['--help'])\n"
        "except SystemExit: pass\n"
        "loaded = {'numpy', 'redis', 'sqlalchemy', 'torch', 'pydantic', 'onnxruntime'} & set(sys.modules)\n"
        "assert not loaded, loaded\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    for name, (_, text) in COMMANDS.items():
        assert name in done.stdout
        assert text.split()[0] in done.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_shows_its_help_or_says_what_it_needs(name: str) -> None:
    result = voicegate(name, "--help")
    if result.exit_code:
        assert "needs" in result.output or "not part of this installation" in result.output
    else:
        assert "Usage:" in result.output


def test_a_missing_extra_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "wants_torch.py").write_text("import torch_is_away\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(packages.EXTRAS, "torch_is_away", "chroma")
    monkeypatch.setitem(cli_module.COMMANDS, "engine", ("wants_torch:engine", ""))
    said = refused("engine")
    assert "`engine` needs torch_is_away; install it with: " in said
    assert said.endswith(remedy.install_with("chroma"))


def test_a_plot_without_matplotlib_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    monkeypatch.delitem(sys.modules, "watermark.plot", raising=False)
    sound, keys = str(tmp_path / "a.wav"), str(tmp_path / "keys.json")
    with wave.open(sound, "wb") as file:
        file.setparams((1, 2, 8_000, 0, "NONE", ""))
        file.writeframes(bytes(32_000))
    assert voicegate("watermark", "keygen", keys).exit_code == 0
    said = refused("watermark", "plot", sound, str(tmp_path / "a.png"), "--keys", keys)
    assert said == f"Error: `watermark` needs matplotlib; install it with: {remedy.install_with('plot')}"


def test_the_version_is_the_packages() -> None:
    assert voicegate("--version").output == f"voicegate, version {model.__version__}\n"


def test_our_errors_are_a_line_and_debug_shows_the_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VOICEGATE_NONSENSE", "1")
    assert "VOICEGATE_NONSENSE is not a setting" in refused("settings")
    assert type(voicegate("--debug", "settings").exception).__name__ == "SettingsError"


def test_only_chroma_measures_how_many_calls_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VOICEGATE_ENGINE_CALLS", "auto")
    assert "only Chroma measures itself" in refused("settings")
    monkeypatch.setenv("VOICEGATE_ENGINE", "chroma")
    assert voicegate("settings").exit_code == 0


def test_an_error_that_is_not_ours_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    @click.command()
    def broken() -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("gateway.cli.operator.run_command.show_settings", broken)
    assert isinstance(voicegate("settings").exception, ZeroDivisionError)


def test_settings_show_value_and_place_but_no_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VOICEGATE_REDIS_URL", "redis://bob:hush@10.0.0.1/3")
    monkeypatch.setenv("VOICEGATE_SIP_PORT", "5070")
    output = voicegate("settings").output
    assert "5070*" in output
    assert "bob@10.0.0.1/3" in output
    assert "hush" not in output


def test_dialplan_check_and_route() -> None:
    assert "all well" in voicegate("dialplan", "check").output
    output = voicegate("dialplan", "route", "sip:menu@x", "--at", "2026-03-02 20:00").output
    assert "not demo: called sip:menu@x fits none of demo" in output
    assert "not menu: Mon 20:00" in output
    assert "message  (" in output
    assert "404" in refused("dialplan", "route", "sip:nobody@x")
    assert "is not a time" in refused("dialplan", "route", "demo", "--at", "noon")


def test_dialplan_check_of_a_broken_plan_names_the_line(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text(
        '[[route]]\nname = "a"\n\ncaled = ["a"]\n[[route.do]]\nverb = "answer"\n'
    )
    assert f"{tmp_path}/a.toml:4: " in refused("dialplan", "check", str(tmp_path))


VOICED = """
[[route]]
name = "demo"
called = ["demo"]
voice = "hart"
do = [{ verb = "answer" }, { verb = "hangup" }]
"""


def test_dialplan_check_knows_the_voices(own_house: Path, tmp_path: Path) -> None:
    plan = tmp_path / "a.toml"
    plan.write_text(VOICED)
    assert f"{plan}:5: route 'demo': unknown voice 'hart'; did you mean 'heart'?" in refused(
        "dialplan", "check", str(tmp_path)
    )
    assert not own_house.exists(), "looking makes no database"
    plan.write_text(VOICED.replace('"hart"', '"jane"\nwithout_voice = "hangup"'))
    result = voicegate("dialplan", "check", str(tmp_path))
    assert "all well" in result.stdout
    assert "the voice 'jane' is not registered yet: callers hear 480 until it is" in result.stderr


ASKED = """
[[route]]
name = "demo"
called = ["demo"]
do = [
  { verb = "answer" },
  { verb = "disclose", principal = "Example Ltd", language = "en" },
  { verb = "converse", instructions = "Be kind.", answers = [
    { intent = "bikes", ask = ["rent a bike", "hire a bike"], say = "No." },
    { intent = "hours", library = "hours", say = "Always." },
    { intent = "place", library = "place", ask = ["where are you"], say = "Here." },
  ] },
]
"""


def test_dialplan_check_names_answers_that_few_will_be_understood_to_ask_for(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text(ASKED)
    result = voicegate("dialplan", "check", str(tmp_path))
    assert "all well" in result.stdout
    assert "the answer for 'bikes' has 2 examples: give about 10 in ask" in result.stderr
    assert "the answer for 'hours' has no phrase of its own" in result.stderr
    assert "'place'" not in result.stderr


LANGUAGES = """
[[route]]
name = "demo"
called = ["demo"]
do = [
  { verb = "answer" }, { verb = "disclose", principal = "Acme", language = "en" },
  { verb = "converse", instructions = "x", languages = { es = "spanish", else = "message" } },
]
[[route]]
name = "spanish"
language = "es"
do = [
  { verb = "answer" }, { verb = "disclose", principal = "Acme", language = "es" },
  { verb = "hangup", say = "Adiós." },
]
[[route]]
name = "message"
do = [{ verb = "answer" }, { verb = "record", announce = "It is recorded." }]
"""


def test_dialplan_check_knows_what_the_engine_speaks_and_what_the_house_hears(
    own_house: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("VOICEGATE_MODELS", str(tmp_path / "models"))
    plan = tmp_path / "a.toml"
    plan.write_text(LANGUAGES)
    said = refused("dialplan", "check", str(tmp_path))
    assert f"{plan}:13: route 'spanish': this is to be said in 'es', and the engine speaks en only" in said
    monkeypatch.setenv("VOICEGATE_ENGINE", "chroma")  # nobody knows what it speaks
    result = voicegate("dialplan", "check", str(tmp_path))
    assert "callers' languages: es → spanish, else → message" in result.stdout
    assert "all well" in result.stdout, "what this machine lacks is no fault of the plan's"
    assert "nobody is led by theirs: the model files of whisper-base are not all in" in result.stderr
    assert "voicegate models get whisper-base" in result.stderr
    for file in locked_model("whisper-base").files:
        path = tmp_path / "models" / locked_model("whisper-base").file_name(file)
        path.parent.mkdir(exist_ok=True)
        with path.open("wb") as made:
            made.truncate(file.size)
    assert "whisper-base" not in voicegate("dialplan", "check", str(tmp_path)).stderr
    path.write_bytes(b"torn")
    assert "whisper-base" in voicegate("dialplan", "check", str(tmp_path)).stderr


def test_a_folder_is_blamed_on_whoever_named_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    said = refused("dialplan", "check", str(tmp_path / "away"))
    assert said == f"Error: {tmp_path}/away: there is no such folder"
    monkeypatch.setenv("VOICEGATE_DIALPLANS", str(tmp_path / "away"))
    said = refused("dialplan", "check")
    assert (
        said == f"Error: VOICEGATE_DIALPLANS: {tmp_path}/away is not a folder; make it, or unset the setting"
    )


@pytest.mark.parametrize(
    ("name", "meant"),
    [("SIP_PRT", "SIP_PORT"), ("REDIS", "REDIS_URL"), ("DATADIR", "DATA_DIR"), ("HTTP-PORT", "HTTP_PORT")],
)
def test_a_setting_that_is_not_one_is_asked_for_by_its_name(
    own_house: Path, monkeypatch: pytest.MonkeyPatch, name: str, meant: str
) -> None:
    monkeypatch.setenv(f"VOICEGATE_{name}", "1")
    assert f"VOICEGATE_{name} is not a setting; did you mean VOICEGATE_{meant}?" in refused("settings")
    monkeypatch.delenv(f"VOICEGATE_{name}")
    own_house.mkdir()
    (own_house / "voicegate.toml").write_text(f"{name.lower()} = 1\n")
    assert f"is not a setting; did you mean {meant.lower()}?" in refused("settings")


def test_a_settings_file_that_is_no_toml_names_the_line(own_house: Path) -> None:
    own_house.mkdir()
    (own_house / "voicegate.toml").write_text('# mine\nhost = "127.0.0.1\n')
    said = refused("settings")
    assert said == (
        f"Error: {own_house}/voicegate.toml:2: not TOML: a text that begins on this line has no closing quote"
    )


@pytest.mark.parametrize(
    ("name", "value"), [("REDIS_URL", "htp://x"), ("SQL_URL", "nonsense"), ("HOST", "nowhere.example")]
)
def test_settings_that_cannot_be_used_are_said_by_the_command_that_shows_them(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(f"VOICEGATE_{name}", value)
    assert refused("settings").startswith(f"Error: VOICEGATE_{name}")


@pytest.mark.parametrize(
    "argv",
    [
        ("ledger", "verify"),
        ("voice", "list"),
        ("operator", "list"),
        ("calls",),
        ("calls", "show", "c1"),
        ("dialplan", "check"),
    ],
)
def test_a_postgresql_that_is_away_is_named_by_its_setting(
    monkeypatch: pytest.MonkeyPatch, argv: tuple[str, ...]
) -> None:
    monkeypatch.setenv("VOICEGATE_SQL_URL", "postgresql://vg:hush@127.0.0.1:1/x")
    said = refused(*argv)
    assert said.startswith("Error: VOICEGATE_SQL_URL: ")
    assert "Connection refused" in said
    assert "hush" not in said


@pytest.mark.parametrize("code", [errno.EROFS, errno.ENOSPC, errno.EACCES, errno.EDQUOT])
@pytest.mark.parametrize(
    "argv",
    [
        ("sip", "user", "add", "bob"),
        ("watermark", "keygen", "keys.json"),
        ("voice", "list"),
        ("ledger", "verify"),
    ],
)
def test_what_the_disk_refuses_is_one_line(
    own_house: Path, monkeypatch: pytest.MonkeyPatch, argv: tuple[str, ...], code: int
) -> None:
    """Root may write everywhere, and a test makes no file systems: the system's refusal is played."""

    def refuse(*_: object, **__: object) -> int:
        raise OSError(code, os.strerror(code), str(own_house / "file"))

    own_house.mkdir()
    monkeypatch.chdir(own_house)
    monkeypatch.setattr("consent.service.office_door._own", beside)
    real = os.open
    monkeypatch.setattr(
        "os.open",
        lambda path, flags, *more, **given: (refuse if flags & os.O_CREAT else real)(
            path, flags, *more, **given
        ),
    )
    assert os.strerror(code) in refused(*argv)


@pytest.mark.parametrize("code", [errno.EROFS, errno.ENOSPC, errno.ENOENT, errno.EIO])
def test_what_the_machine_refuses_to_any_command_is_one_line_with_a_remedy(
    monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    @click.command()
    def writing() -> None:
        raise OSError(code, os.strerror(code), "/somewhere/file")

    monkeypatch.setattr("gateway.cli.operator.run_command.show_settings", writing)
    said = refused("settings")
    assert said.startswith(f"Error: /somewhere/file: {os.strerror(code)}; ")
    assert isinstance(voicegate("--debug", "settings").exception, OSError)


def test_what_a_front_knows_of_telephones_is_shown() -> None:
    """Whether each answers, and in what time; one whose flow is gone is not asked."""
    there, silent, new = (binding(user="al", key=str(n), transport="udp", lost_at=None) for n in range(3))
    gone = binding(user="al", key="3", transport="udp", lost_at=1.0)
    states = [
        TelephoneState("al", "0", there=True, round_trip_ms=23.6),
        TelephoneState("al", "1", there=False, round_trip_ms=20.0),
        TelephoneState("al", "2", there=None, round_trip_ms=None),
        TelephoneState("al", "3", there=True, round_trip_ms=1.0),
    ]
    shown = list(listed_users(["al"], [there, silent, new, gone], states))
    hows = [line.partition("  <")[0].split(", ")[2:] for line in shown[1:]]
    gone_now = ["not reachable: not heard any more"]
    assert hows == [["answers in 24 ms"], ["does not answer"], [], gone_now]


def test_sip_users_by_hand(own_house: Path, tmp_path: Path) -> None:
    made = voicegate("sip", "user", "add", "bob")
    assert made.output.startswith("user bob, password ")
    assert (
        voicegate("sip", "user", "add", "al", "--password-from", "-", given="a long password\n").exit_code
        == 0
    )
    (tmp_path / "secret").write_text("another password\n")
    assert voicegate("sip", "user", "add", "al", "--password-from", str(tmp_path / "secret")).exit_code == 0
    assert voicegate("sip", "user", "list").output == "al\nbob\n"
    assert voicegate("sip", "users").output == "al  not registered\nbob  not registered\n"
    registry = Registry.open(load().sql)
    SipBindings(registry, ("g",)).keep([binding(user="al", lost_at=1.0, transport="tcp")], [])
    registry.close()
    shown = voicegate("sip", "users").output.splitlines()
    assert shown[0] == "al"
    assert shown[1].startswith("  192.0.2.7 by tcp, until ")
    assert shown[1].endswith(", not reachable: its connection ended  <sip:a@192.0.2.1>  Desk")
    assert shown[2] == "bob  not registered"
    assert SipUsers(own_house).ha1("al") is not None
    assert voicegate("sip", "user", "add", "türklingel", "--legacy").output.startswith("user türklingel, ")
    assert voicegate("sip", "user", "list").output == "al\nbob\ntürklingel (legacy)\n"
    assert voicegate("sip", "user", "add", "bob", "--srtp", "required").exit_code == 0
    assert voicegate("sip", "user", "list").output == "al\nbob (SRTP required)\ntürklingel (legacy)\n"
    (tmp_path / "secret").write_bytes("schlüssel!\n".encode("latin-1"))
    why = refused("sip", "user", "add", "al", "--password-from", str(tmp_path / "secret"))
    assert "not in UTF-8" in why
    assert voicegate("sip", "user", "remove", "al").exit_code == 0
    assert "no SIP user 'al'" in refused("sip", "user", "remove", "al")


def shown_panel(state: HouseState) -> str:
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(panel(load(), state, None))
    return console.export_text()


def test_the_panel_on_this_machine_needs_no_secrets(own_house: Path) -> None:
    text = shown_panel(HouseState(ready=True, voices=("heart",), watermark="on, key a1b2"))
    assert "sip:demo@127.0.0.1 " in text
    assert "http://localhost:8080" in text
    assert "heart" in text
    assert "on, key a1b2" in text
    assert "password" not in text
    assert not own_house.exists()


def test_the_panel_says_which_trunk_is_down_and_why(own_house: Path) -> None:
    trunks = (TrunkState("a", None, None), TrunkState("b", "udp:192.0.2.1:5060 [does] not answer", False))
    text = shown_panel(HouseState(ready=True, trunks=trunks))
    assert "a: up" in text
    assert "b: down: udp:192.0.2.1:5060 [does] not answer" in text


def test_trunks_are_listed_and_shown_without_their_passwords(own_house: Path) -> None:
    assert "no trunks" in voicegate("trunk", "list").output
    own_house.mkdir(parents=True, exist_ok=True)
    secret = own_house / "secret"
    secret.write_text("geheim")
    secret.chmod(0o600)
    (own_house / "trunks.toml").write_text(
        '[[trunk]]\nname = "carrier"\nhosts = ["192.0.2.1"]\nuser = "u1"\npassword_file = "secret"\n'
    )
    assert "carrier  192.0.2.1 (udp)  not known: no gateway runs" in voicegate("trunk", "list").output
    shown = voicegate("trunk", "show", "carrier").output
    assert "password      set" in shown
    assert "may call      nobody: prefixes is empty" in shown
    assert "geheim" not in shown
    assert "no trunk other" in refused("trunk", "show", "other")


def test_a_trunks_certificates_are_shown_with_their_ends(own_house: Path) -> None:
    own_house.mkdir(parents=True, exist_ok=True)
    authority = Authority(own_house, "ca")
    authority.sign("us.example", to="us", days=-1.0)
    (own_house / "trunks.toml").write_text(
        '[[trunk]]\nname = "carrier"\nhosts = ["192.0.2.1"]\ntransport = "tls"\ncertificate = "us.pem"\n'
        'key = "us-key.pem"\nauthority = "ca.pem"\nshows = ["sip.example"]\nknown_by = "either"\n'
    )
    shown = voicegate("trunk", "show", "carrier").output
    assert f"192.0.2.1 or a certificate of {own_house}/ca.pem for sip.example" in shown
    assert f"certificate   {own_house}/us.pem, ended on " in shown
    assert f"authority     {own_house}/ca.pem, ends on " in shown


def test_the_panel_on_the_lan_prints_user_password_and_token(
    own_house: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VOICEGATE_HOST", "0.0.0.0")
    monkeypatch.setenv("VOICEGATE_SIP_PORT", "5070")
    assert "F:AB:22" in shown_panel(HouseState(ready=True, certificate="SHA-256 4F:AB:22")), "no emoji"
    assert "3 telephones, 1 not reachable" in shown_panel(HouseState(True, registered=3, unreachable=1))
    text = shown_panel(HouseState(ready=True))
    first = SipUsers(own_house).first()
    assert first is not None
    assert first[1] in text
    assert (own_house / "console_token").read_text() in text
    assert ":5070" in text
    assert shown_panel(HouseState(ready=True)) == text
