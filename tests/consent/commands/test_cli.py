"""The commands, as an operator types them: the whole life of a voice, and every mistake in one line."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from consent.data_dir import OFFICE_SOCKET
from consent.models.model_files import locked_model
from consent.service.office_rooms import OfficePlace
from gateway.cli.main import cli
from tests.consent.service.served import serving
from tests.needs import MODELS, need_sounds


class Shell:
    """Runs `voicegate …` with a data directory and operators of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.office = contextlib.ExitStack()
        for name in ("alice", "bob"):
            self.file(name, f"passphrase of {name}")
        self.file("pin", "482913")
        self.models = folder / "models"  # without the recogniser: what is read to it here is no statement
        self.models.mkdir()
        for path in filter(Path.exists, locked_model("speaker").paths(MODELS)):
            (self.models / path.name).symlink_to(path)
        self.env = {
            "VOICEGATE_DATA_DIR": str(folder / "data"),
            "VOICEGATE_SQL_URL": "",
            "VOICEGATE_MODELS": str(self.models),
            "XDG_CONFIG_HOME": str(folder / "config"),
        }

    def file(self, name: str, content: str) -> Path:
        path = self.folder / name
        path.write_text(content + "\n")
        return path

    def __call__(self, line: str, *more: str, by: str | None = None, fails: bool = False) -> str:
        argv = [*line.split(), *more]
        if by is not None:
            argv += ["--as", by, "--passphrase-from", str(self.folder / by)]
        result: Result = CliRunner().invoke(cli, argv, env=self.env)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        assert (result.exit_code != 0) == fails, result.output
        if fails:
            assert "Traceback" not in result.output
        return result.output

    def operators(self) -> None:
        for name, role in (("alice", "registrar"), ("bob", "reviewer")):
            self(f"operator add {name} --role {role} --new-passphrase-from", str(self.folder / name))

    def challenge(self) -> str:
        said = self(
            "voice challenge --company Acme --purpose support --until 2027-06-30 --json --name",
            "Jane Doe",
            by="alice",
        )
        return str(json.loads(said)["challenge"])

    def register(self, **given: str) -> str:
        sounds = need_sounds("en_US_f_Allison")
        options = {
            "--reference": str(sounds / "demo-congrats.wav"),
            "--reference-text": "Congratulations!",
            "--statement": str(sounds / "basic-pbx-ivr-main.wav"),
            "--challenge": given.pop("challenge", "") or self.challenge(),
            "--pin-from": str(self.folder / "pin"),
        }
        return self("voice register jane --adult", *(p for o in options.items() for p in o), by="alice")

    @contextlib.contextmanager
    def served(self) -> Iterator[None]:
        """An office that serves, as a gateway's does; else each command starts one for its time."""
        data = self.folder / "data"
        place = OfficePlace(
            f"sqlite:///{data / 'voicegate.db'}", data / "consent", data / "watermark-keys.json", self.models
        )
        with serving(place, data / "consent" / OFFICE_SOCKET):
            yield


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    opened = Shell(tmp_path)
    with opened.office:
        opened.office.enter_context(opened.served())
        yield opened


def test_the_life_of_a_voice(shell: Shell, tmp_path: Path) -> None:
    shell.operators()
    assert "founder" in shell("operator list")
    said = shell.register()
    assert "jane needs review" in said
    assert re.search(r"review +statement words", said)
    assert "pending" in shell("voice list")
    assert "My name is Jane Doe" in shell("voice review jane")
    assert "another operator" in shell("voice review jane --approve", by="alice", fails=True)
    assert "has not listened yet" in shell("voice review jane --approve", by="bob", fails=True)
    assert "listen first" in shell(f"voice review jane --approve --listen {tmp_path}/x", by="bob", fails=True)
    shell(f"voice review jane --listen {tmp_path}/listen", by="bob")
    assert "jane is active" in shell("voice review jane --approve", by="bob")
    assert {path.name for path in (tmp_path / "listen").iterdir()} == {
        "jane-statement.wav",
        "jane-reference.wav",
    }
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in (tmp_path / "listen").iterdir())
    assert "Jane Doe for Acme: support" in shell("voice show jane")
    assert json.loads(shell("voice show jane --json"))["state"] == "active"
    assert "0 calls" in shell("voice usage jane --since 12h")
    assert "who takes" in shell(f"voice export jane --out {tmp_path}/jane.json --with-sound", fails=True)
    shell(f"voice export jane --out {tmp_path}/jane.json --with-sound", by="alice")
    keys = tmp_path / "data" / "consent" / "grant-keys.json"
    assert "proved: Jane Doe consented to Acme" in shell(f"voice check {tmp_path}/jane.json --keys {keys}")
    shell(f"voice export jane --vcon --out {tmp_path}/jane.vcon")
    assert "proved: Jane Doe consented to Acme" in shell(f"voice check {tmp_path}/jane.vcon --keys {keys}")
    shell(f"ledger head --out {tmp_path}/head")
    call = shell.file(
        "call.json", json.dumps({"registry": {"call_id": "c", "voice": "jane", "grant_jti": "x"}})
    )
    assert "The chain is NOT unbroken" in shell(f"voice evidence {call}")
    assert json.loads(shell(f"voice evidence {call} --json"))["unbroken"] is False
    shell(f"voice evidence {call} --vcon --out {tmp_path}/call.vcon")
    assert "no consent attached" in shell(f"voice check {tmp_path}/call.vcon --keys {keys}", fails=True)
    passphrase = shell.file("backup-passphrase", "a long passphrase")
    shell(f"voice backup {tmp_path}/backup --passphrase-from {passphrase}")
    assert "revoked" in shell("voice revoke jane --reason asked", by="alice")
    assert "signs with" in shell("voice rotate signing", by="alice")
    (old, _) = json.loads(keys.read_text())["keys"]
    stolen = f"voice revoke-key {old} --since 2d --reason stolen"
    assert f"{old} is revoked" in shell(stolen, by="alice")
    assert "revoked already" in shell(stolen, by="alice", fails=True)
    (new,) = json.loads(keys.read_text())["keys"]
    assert "rotate it first" in shell(
        f"voice revoke-key {new} --since 2d --reason stolen", by="alice", fails=True
    )
    assert "or its key was revoked" in shell(f"ledger verify --head {tmp_path}/head", fails=True)
    shell(f"ledger head --out {tmp_path}/head")
    assert "erased" in shell("voice erase jane --yes --reason asked", by="alice")
    assert "wrapped" in shell("voice rotate master", by="alice")
    assert "nothing is due" in shell("voice tidy")
    assert "all well" in shell("ledger verify")
    assert json.loads(shell(f"ledger verify --json --head {tmp_path}/head --keys {keys}"))["ok"]
    assert "voice.erased" in shell("ledger show")
    assert "may not act any more" in shell("operator revoke alice", by="bob")


def test_a_restored_backup_goes_on_after_an_auditors_word(shell: Shell, tmp_path: Path) -> None:
    shell.operators()
    shell.file("carol", "passphrase of carol")
    shell("operator add carol --role auditor --new-passphrase-from", str(tmp_path / "carol"))
    shell.register()
    shell(f"voice review jane --listen {tmp_path}/listen", by="bob")
    shell("voice review jane --approve", by="bob")
    passphrase = shell.file("p", "a long passphrase")
    shell(f"voice backup {tmp_path}/backup --passphrase-from {passphrase}")
    shell("voice revoke jane --reason asked", by="alice")
    shell.office.close()  # the next command starts an office for its time
    for path in (tmp_path / "data").glob("voicegate.db*"):
        path.unlink()
    said = shell(f"voice restore {tmp_path}/backup --passphrase-from {passphrase}")
    assert "voicegate ledger resume" in said
    shell.office.enter_context(shell.served())
    assert "revoked or erased again: jane" in shell("ledger resume --reason disk", by="carol")
    assert "revoked" in shell("voice list")


def test_ledger_verify_names_the_bad_row_and_fails(shell: Shell, tmp_path: Path) -> None:
    import sqlite3

    shell.operators()
    with sqlite3.connect(tmp_path / "data" / "voicegate.db") as plain:
        plain.execute("UPDATE consent_ledger SET body = replace(body, 'alice', 'mallory') WHERE seq = 2")
    assert "row 2 is bad: it was edited" in shell("ledger verify", fails=True)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("voice show nobody", "no voice is called 'nobody'"),
        ("voice usage nobody --since yesterday", "neither a day"),
        ("voice export nobody --out x.json", "no voice is called"),
        ("voice check /no/such --keys /no/such", "No such file"),
        ("voice list --sql nonsense", "not an SQLAlchemy URL"),
        ("voice list --sql mysql://x/y", "neither sqlite nor postgresql"),
        ("voice list --data-dir /proc/no", "cannot be"),
        ("voice checks --pin-recogniser /no/such", "No such option"),
        ("voice evidence /etc/hostname", "not a call's JSON"),
        ("voice revoke jane --reason x --as nobody", "no voice is called"),
        ("ledger verify --head /no/such", "No such file"),
        ("operator add Al/ice --role registrar --no-passphrase", "not an operator's name"),
        ("operator add gateway --role registrar --no-passphrase", "not an operator's name"),
        ("operator add alice --role king", "is not one of"),
    ],
)
def test_a_mistake_is_one_line(shell: Shell, line: str, says: str) -> None:
    said = shell(line, fails=True)
    assert says in said


def test_a_key_is_never_made_without_a_passphrase_by_accident(shell: Shell) -> None:
    said = shell("operator add alice --role registrar", fails=True)
    assert "there is no terminal to ask on" in said
    assert "no operators yet" in shell("operator list")


def test_a_wrong_passphrase_and_a_loose_key_are_refused(shell: Shell, tmp_path: Path) -> None:
    shell.operators()
    shell.file("alice", "wrong")
    line = "voice challenge --name Jane --company Acme --purpose support --until 2027-06-30"
    assert "does not open" in shell(line, by="alice", fails=True)
    shell.file("alice", "passphrase of alice")
    os.chmod(tmp_path / "config" / "voicegate" / "operators" / "alice.pem", 0o644)
    assert "chmod 600" in shell(line, by="alice", fails=True)


def test_a_purpose_may_be_described(shell: Shell) -> None:
    shell.operators()
    line = "voice challenge --name Jane --company Acme --until 2027-06-30 --purpose news --purpose"
    said = shell(line, "support=answering questions about orders", by="alice")
    assert "for news and answering questions about orders, in English" in said
    assert "describes no use: write 2 to 14 words" in shell(line, "support=orders", by="alice", fails=True)
    assert "describes no use" in shell(line, "support=", by="alice", fails=True)


def test_a_second_registrar_is_added_by_an_operator_only(shell: Shell, tmp_path: Path) -> None:
    shell.operators()
    shell.file("dave", "passphrase of dave")
    add = f"operator add dave --role registrar --new-passphrase-from {tmp_path}/dave"
    assert "an operator adds others" in shell(add, fails=True)
    assert not (tmp_path / "config" / "voicegate" / "operators" / "dave.pem").exists()
    assert "dave is registrar" in shell(add, by="bob")
    assert "added by bob" in shell("operator list")


def test_a_refused_registration_says_which_check(shell: Shell, tmp_path: Path) -> None:
    import numpy as np

    from consent.checks.sound import wav_bytes

    shell.operators()
    silence = tmp_path / "silence.wav"
    silence.write_bytes(wav_bytes(np.zeros(24_000 * 5, np.float32)))
    said = shell(
        f"voice register jane --adult --reference {silence} --reference-text x --statement {silence} "
        f"--challenge {shell.challenge()}",
        by="alice",
        fails=True,
    )
    assert "reference sound" in said
    assert "no speech in it" in said


def test_the_checks_in_force_are_listed_with_the_built_in_classifier(shell: Shell, tmp_path: Path) -> None:
    assert "classifier   baseline" in shell("voice checks")
    path = tmp_path / "data" / "consent" / "checks.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text('classifier = "tests.consent.conftest:PlannedClassifier"\n')
    assert "classifier   planned" in shell("voice checks")


def test_where_the_recogniser_is_missing_the_one_command_is_named(shell: Shell, tmp_path: Path) -> None:
    command = "voicegate models get whisper-base"
    assert re.search(f"recogniser +none: .*{command}", shell("voice checks"))
    shell.operators()
    said = " ".join(shell.register().split())
    assert command in said
    assert command in shell("voice review jane"), "and the reviewer reads it"
    (tmp_path / "data" / "consent" / "checks.toml").write_text(
        'recogniser = { directory = "/srv/whisper", sha256 = "00" }\n'
    )
    said = " ".join(shell("voice checks", fails=True).split())
    assert "recogniser is no longer a setting" in said
    assert command in said


def test_no_secret_is_an_argument(shell: Shell) -> None:
    """Secrets come from files or an unseen prompt: no option takes one on the command line."""
    for group in ("voice", "operator", "ledger"):
        for line in shell(f"{group} --help").split("Commands:")[1].strip().splitlines():
            said = shell(f"{group} {line.split()[0]} --help")
            assert not re.search(r"--(pin|passphrase|password|secret)\s", said)


def test_a_blocked_person_is_listed_in_the_ledger_only_by_label(shell: Shell) -> None:
    shell.operators()
    said = shell("voice block mayor", by="bob", fails=True)
    assert "give either --sample FILE or --lift" in said
