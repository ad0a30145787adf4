"""The doctor asks a chat server for its models, and sends it no words."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from gateway.cli.doctor import doctor_chat_server
from gateway.cli.doctor.diagnosis import Diagnosis
from gateway.config.settings import Settings
from gateway.errors import StartError


def with_(settings: Settings, **changes: object) -> Settings:
    return settings.model_copy(update=changes)


def only(findings: Iterator[Diagnosis]) -> Diagnosis:
    (finding,) = findings
    return finding


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path / "data")


def test_a_chat_server_is_asked_for_its_models(settings: Settings, tmp_path: Path) -> None:
    assert list(doctor_chat_server.chat_server(settings)) == []
    key = tmp_path / "key"
    key.write_text("sk-secret")
    key.chmod(0o644)
    with models_at({"data": [{"id": "small"}, {"id": "large"}]}) as (url, asked):
        given = {"engine": "cascade", "llm_url": url, "llm_model": "small", "llm_key_file": key}
        found, others = doctor_chat_server.chat_server(with_(settings, **given))
        assert (found.state, found.text) == ("ok", f"{url} has the model small")
        assert (others.state, others.fix) == ("warn", f"chmod 600 {key}")
        assert asked == ["Bearer sk-secret"]
        key.chmod(0o600)
        other = only(doctor_chat_server.chat_server(with_(settings, **{**given, "llm_model": "huge"})))
        assert (other.state, other.fix) == ("warn", "set VOICEGATE_LLM_MODEL to one of: small, large")
    away = only(doctor_chat_server.chat_server(with_(settings, **given)))
    assert (away.state, away.fix) == ("fail", "start it")
    with models_at({"nonsense": 1}) as (url, _):
        assert (
            only(doctor_chat_server.chat_server(with_(settings, **{**given, "llm_url": url}))).state == "warn"
        )
    with pytest.raises(StartError, match="VOICEGATE_LLM_URL"):
        list(doctor_chat_server.chat_server(with_(settings, engine="cascade", llm_url=None)))


@contextlib.contextmanager
def models_at(answer: object) -> Iterator[tuple[str, list[str]]]:
    """A chat server's list of models, and the keys that it was shown."""
    asked: list[str] = []

    class Models(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.headers.get("Authorization", ""))
            body = json.dumps(answer).encode()
            self.send_response(200 if self.path == "/v1/models" else 404)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Models) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/v1", asked
        finally:
            server.shutdown()
