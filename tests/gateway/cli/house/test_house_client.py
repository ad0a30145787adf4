"""The API's client: where a token may go, where it may come from, and what is said of refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import httpx
import pytest

from gateway.cli.house import house_client as module
from gateway.cli.house.house_client import META, ApiError, Elsewhere, HouseClient, token_in
from gateway.config.settings import Settings


@pytest.mark.parametrize(
    "url",
    ["", "gate.example", "ftp://gate.example", "https://", "https://user:pw@gate.example", "http://gate.example",
     "http://192.0.2.1:8080", "http://localhost.evil.example"],
)  # fmt: skip
def test_a_token_goes_nowhere_else(url: str) -> None:
    with pytest.raises(ApiError):
        HouseClient(url, "secret")


@pytest.mark.parametrize("text", ["", "\n", "a b\x00", "tök"])
def test_what_is_no_token_is_not_sent(tmp_path: Path, text: str) -> None:
    file = tmp_path / "token"
    file.touch(0o600)
    file.write_text(text)
    with pytest.raises(ApiError):
        token_in(file)


def test_a_token_that_others_may_read_is_not_used(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("secret\nanother line")
    file.chmod(0o644)
    with pytest.raises(ApiError, match="chmod 600"):
        token_in(file)
    file.chmod(0o600)
    assert token_in(file) == "secret"
    with pytest.raises(ApiError, match="--token-from"):
        token_in(None)


def asked_of(answer: Any, monkeypatch: pytest.MonkeyPatch) -> HouseClient:
    real = httpx.Client
    monkeypatch.setattr(
        module.httpx,
        "Client",
        lambda **more: real(transport=httpx.MockTransport(answer), headers=more["headers"]),
    )
    return HouseClient("https://gate.example/", "secret")


def test_pages_are_fetched_until_there_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, str]] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(dict(request.url.params))
        assert request.headers["authorization"] == "Bearer secret"
        page = len(asked)
        calls = [{"call_id": f"c{page}{n}"} for n in range(2)]
        return httpx.Response(200, json={"calls": calls, "next": f"at{page}" if page < 3 else None})

    client = asked_of(answer, monkeypatch)
    assert len(list(client.calls(4, caller="30", failed=False, since=None))) == 4
    assert asked == [{"caller": "30", "limit": "4"}, {"caller": "30", "limit": "2", "cursor": "at1"}]
    assert len(list(client.calls(100))) == 2, "and no further than there are pages"


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (httpx.Response(403, json={"detail": "has not the right calls.end"}), "calls.end"),
        (httpx.Response(502, text="<html>proxy</html>"), "as a voicegate does"),
        (httpx.Response(500, json=["odd"]), "answered 500"),
        (httpx.ConnectError("refused"), "is the gateway running"),
    ],
)
def test_a_refusal_is_one_line(answer: Any, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def answers(_: httpx.Request) -> httpx.Response:
        if isinstance(answer, Exception):
            raise answer
        return answer

    with pytest.raises(ApiError, match=said) as refused:
        asked_of(answers, monkeypatch).end_call("c1")
    assert "secret" not in str(refused.value)


def test_this_machine_s_own_is_asked_at_its_own_address(tmp_path: Path) -> None:
    context = click.Context(click.Command("x"))
    for host, url in (("0.0.0.0", "127.0.0.1"), ("::1", "[::1]"), ("192.0.2.1", "192.0.2.1")):
        client = HouseClient.of(context, Settings(host=host, data_dir=tmp_path))
        assert client.url == f"http://{url}:8080"
    file = tmp_path / "token"
    file.touch(0o600)
    file.write_text("x")
    context.meta[META] = Elsewhere("https://gate.example", file, None)
    assert HouseClient.of(context, Settings(data_dir=tmp_path)).url == "https://gate.example"
