"""The chat server's settings as the gateway has them, and as its engine reads them."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.config.settings import Settings, load
from gateway.errors import SettingsError
from model.cascade.chat_settings import PREFIX, ChatSettings

GIVEN = {"VOICEGATE_LLM_URL": "https://llm.example/v1", "VOICEGATE_LLM_MODEL": "m"}


def test_the_engine_reads_what_the_gateway_was_given(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("sk-abc")
    numbers = {"TOKENS": "100", "CONTEXT": "2048", "FILLER_S": "0.5", "GIVE_UP_S": "9"}
    environ = {**GIVEN, PREFIX + "KEY_FILE": str(key), **{PREFIX + name: n for name, n in numbers.items()}}
    settings = load({**environ, "VOICEGATE_DATA_DIR": str(tmp_path), "VOICEGATE_ENGINE": "cascade"})
    assert ChatSettings.from_environ(settings.llm_variables) == ChatSettings.from_environ(environ)
    assert ChatSettings.from_environ(environ).give_up_s == 9


def test_a_file_may_say_it(tmp_path: Path) -> None:
    (tmp_path / "voicegate.toml").write_text('llm_url = "http://127.0.0.1:1/v1"\nllm_model = "small"\n')
    settings = load({"VOICEGATE_DATA_DIR": str(tmp_path)})
    chat = ChatSettings.from_environ(settings.llm_variables)
    assert (chat.url, chat.model) == ("http://127.0.0.1:1/v1", "small")


def test_the_gateways_defaults_are_the_engines() -> None:
    given = Settings(llm_url=GIVEN["VOICEGATE_LLM_URL"], llm_model="m").llm_variables
    assert ChatSettings.from_environ(given) == ChatSettings.from_environ(GIVEN)


@pytest.mark.parametrize(
    ("given", "leave"),
    [
        ({}, False),
        ({"llm_url": "https://llm.example/v1"}, False),
        ({"engine": "cascade", "llm_url": "https://llm.example/v1"}, True),
        ({"engine": "cascade", "llm_url": "https://127.0.0.1.example/v1"}, True),
        ({"engine": "cascade", "llm_url": "http://127.0.0.1:8000/v1"}, False),
        ({"engine": "cascade", "llm_url": "http://[::1]:8000/v1"}, False),
        ({"engine": "cascade", "llm_url": "http://[::1"}, True),
        ({"engine": "cascade"}, False),
        ({"engine": "cascade", "engine_url": ("wss://engine.example",)}, True),
    ],
)
def test_when_words_leave_this_machine(given: dict[str, object], leave: bool) -> None:
    assert Settings(**given).words_leave is leave  # type: ignore[arg-type]


def test_a_number_out_of_range_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="VOICEGATE_LLM_TOKENS"):
        load({"VOICEGATE_DATA_DIR": str(tmp_path), "VOICEGATE_LLM_TOKENS": "1"})
