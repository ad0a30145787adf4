"""A plan whose callers' words leave the machine says who processes them, in every language, on every way."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from gateway.cli.operator.dialplan_command import dialplan
from gateway.dialplan import Dialplan
from gateway.dialplan.disclosure import WORDINGS, sentence
from gateway.errors import DialplanError
from tests.gateway.dialplan.test_disclosed_paths import SAY, SPEAKING, TELL, TELL_DE, route, to

TOLD = TELL.replace("}", ', processor = "Example AI Ltd." }')
TOLD_DE = TELL_DE.replace("}", ', processor = "Example AI Ltd." }')
TALK = SPEAKING["converse"]
GERMAN = 'language = "de"\n'


def load(folder: Path, *routes: str, leave: bool = True) -> Dialplan:
    (folder / "a.toml").write_text('[targets]\ndesk = "sip:1@x"\n' + "".join(routes))
    return Dialplan.load(folder, words_leave=leave)


def refusal(folder: Path, *routes: str) -> str:
    with pytest.raises(DialplanError) as caught:
        load(folder, *routes)
    return str(caught.value).removeprefix(f"{folder}/")


@pytest.mark.parametrize("language", WORDINGS)
def test_each_language_says_who_processes_the_words(language: str) -> None:
    without = sentence("Lindens", language, cloned=True)
    said = sentence("Lindens", language, cloned=True, processor="Example AI Ltd.")
    added = said.removeprefix(without).strip()
    assert said.startswith(without)
    assert "Example AI Ltd" in added
    assert "{" not in said
    assert ".." not in said


def test_a_plan_with_a_conversation_needs_a_processor(tmp_path: Path) -> None:
    said = refusal(tmp_path, route("a", TELL, TALK))
    assert said.startswith("a.toml:9: route 'a': converse sends what the caller says off this machine")
    assert "the caller was not told who processes it" in said
    assert 'processor = "Example AI Ltd"' in said
    (loaded,) = load(tmp_path, route("a", TOLD, TALK)).routes
    assert "Your words are processed by Example AI Ltd." in loaded.do[1].words(cloned=False)  # type: ignore[union-attr]


def test_without_a_conversation_no_words_leave(tmp_path: Path) -> None:
    load(tmp_path, route("a", TELL, SAY))


def test_a_server_on_this_machine_needs_none(tmp_path: Path) -> None:
    load(tmp_path, route("a", TELL, TALK), leave=False)
    load(tmp_path, route("a", TOLD, TALK), leave=False)


def test_each_way_is_looked_at(tmp_path: Path) -> None:
    leaf = route("leaf", TALK, called=False)
    load(tmp_path, route("menu", TOLD, to("leaf")), leaf)
    said = refusal(tmp_path, route("menu", TOLD, to("leaf")), route("side", TELL, to("leaf")), leaf)
    assert "the caller when it comes from side was not told" in said
    load(tmp_path, route("menu", TELL, to("leaf")), route("leaf", TOLD, TALK, called=False))
    refusal(tmp_path, route("a", TELL, TALK, TOLD))


def test_it_is_said_in_the_language_of_the_conversation(tmp_path: Path) -> None:
    menu = route("menu", TOLD, TELL_DE, to("leaf"))
    refusal(tmp_path, menu, route("leaf", TALK, head=GERMAN, called=False))
    load(tmp_path, menu.replace(TELL_DE, TOLD_DE), route("leaf", TALK, head=GERMAN, called=False))


@pytest.mark.parametrize("name", ["the machine", "AI", "x", "<b>Acme</b>", "Acme\\u202eLtd", "{x}", " "])
def test_a_processor_that_names_nobody_is_refused(tmp_path: Path, name: str) -> None:
    said = refusal(tmp_path, route("a", TOLD.replace("Example AI Ltd.", name), TALK))
    assert "a.toml:8: processor = " in said


def test_the_command_says_so_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("VOICEGATE_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("VOICEGATE_ENGINE", "cascade")
    monkeypatch.setenv("VOICEGATE_LLM_URL", "https://llm.example/v1")
    argv = ["route", "sip:demo@x"]
    with pytest.raises(DialplanError, match="was not told who processes it"):
        CliRunner().invoke(dialplan, argv, catch_exceptions=False)
    monkeypatch.setenv("VOICEGATE_LLM_URL", "http://127.0.0.1:8000/v1")
    assert CliRunner().invoke(dialplan, argv).exit_code == 0


def test_an_empty_processor_is_none(tmp_path: Path) -> None:
    refusal(tmp_path, route("a", TOLD.replace("Example AI Ltd.", ""), TALK))
