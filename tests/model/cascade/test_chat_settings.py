"""Which servers may be asked, and with which key."""

from __future__ import annotations

from pathlib import Path

import pytest

from model.cascade.chat_settings import ChatSettings, check_url, leaves_machine
from model.errors import EngineError

GIVEN = {"VOICEGATE_LLM_URL": "http://127.0.0.1:8080/v1", "VOICEGATE_LLM_MODEL": "m"}


def test_what_is_not_said_has_a_default(tmp_path: Path) -> None:
    settings = ChatSettings.from_environ(GIVEN)
    assert (settings.url, settings.model, settings.key) == ("http://127.0.0.1:8080/v1", "m", None)
    assert (settings.tokens, settings.context, settings.filler_s, settings.give_up_s) == (300, 4096, 1.0, 7.0)
    key = tmp_path / "key"
    key.write_text("sk-abc\n")
    settings = ChatSettings.from_environ(
        {
            **GIVEN,
            "VOICEGATE_LLM_KEY_FILE": str(key),
            "VOICEGATE_LLM_URL": "https://llm.example/v1/chat/completions",
        }
    )
    assert (settings.url, settings.key, settings.leaves) == ("https://llm.example/v1", "sk-abc", True)
    assert "sk-abc" not in repr(settings)


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:8080/v1", "http://[::1]/v1", "http://localhost/v1", "https://a.example/v1"]
)
def test_a_server_that_may_be_asked(url: str) -> None:
    check_url(url)


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("", "names no server"),
        ("http://llm.example/v1", "in the clear"),
        ("http://10.0.0.5/v1", "in the clear"),
        ("http://127.0.0.1.example.com/v1", "in the clear"),
        ("http://localhost.example.com/v1", "in the clear"),
        ("http://127.0.0.1@evil.example/v1", "must not hold a password"),
        ("https://user:pw@llm.example/v1", "must not hold a password"),
        ("ftp://127.0.0.1/v1", "must begin with"),
        ("127.0.0.1:8080", "must begin with"),
        ("https:///v1", "must begin with"),
        ("https://a.example:99999/v1", "[Pp]ort"),
        ("https://a.example/v1?key=x", "must end with its path"),
        ("https://a.example/v1 ", "a blank"),
        ("https://a.example/\nv1", "a blank"),
        ("http://[::1", "."),
    ],
)
def test_a_server_that_may_not_be_asked(url: str, why: str) -> None:
    with pytest.raises(EngineError, match=why) as refused:
        check_url(url)
    assert "pw" not in str(refused.value).split("password")[0]


def test_what_leaves_this_machine() -> None:
    assert not leaves_machine("http://127.0.0.1:1/v1")
    assert not leaves_machine("https://localhost/v1")
    assert leaves_machine("https://llm.example/v1")
    assert leaves_machine("http://[::1")


@pytest.mark.parametrize("held", [b"", b"\n", b"two words", b"a\nb", b"\xff\xfe", b"k" * 5000])
def test_a_key_file_holds_one_key(tmp_path: Path, held: bytes) -> None:
    key = tmp_path / "key"
    key.write_bytes(held)
    with pytest.raises(EngineError, match=r"VOICEGATE_LLM_KEY_FILE: .* must hold the key alone"):
        ChatSettings.from_environ({**GIVEN, "VOICEGATE_LLM_KEY_FILE": str(key)})
    with pytest.raises(EngineError, match="cannot be read: No such file"):
        ChatSettings.from_environ({**GIVEN, "VOICEGATE_LLM_KEY_FILE": str(tmp_path / "none")})


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("MODEL", "", "must name one"),
        ("MODEL", "a\nb", "must name one"),
        ("TOKENS", "many", "must be a number"),
        ("TOKENS", "-1", "must be a number"),
        ("TOKENS", "nan", "must be a number"),
        ("CONTEXT", "500", "leave too little"),
        ("GIVE_UP_S", "0.5", "must be more than VOICEGATE_LLM_FILLER_S"),
    ],
)
def test_a_wrong_setting_is_named(name: str, value: str, why: str) -> None:
    with pytest.raises(EngineError, match=why) as refused:
        ChatSettings.from_environ({**GIVEN, f"VOICEGATE_LLM_{name}": value})
    assert f"VOICEGATE_LLM_{name}" in str(refused.value)
