"""Whatever a process ends with, its operator reads one line."""

from __future__ import annotations

import json
from pathlib import Path

import click
import pytest

from gateway.config import failure, remedy
from gateway.errors import StartError
from model.errors import EngineError


def exit_while_handling(error: BaseException) -> BaseException:
    """As click and uvicorn do: they print an error, and exit with a number."""
    try:
        try:
            raise error
        except BaseException:
            raise SystemExit(1)  # noqa: B904 - the context is what is looked at
    except SystemExit as left:
        return left


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (StartError("VOICEGATE_X is wrong; write Y"), "VOICEGATE_X is wrong; write Y"),
        (EngineError("no checkpoint there"), "no checkpoint there"),
        (RuntimeError("boom"), "RuntimeError: boom"),
        (ZeroDivisionError(), "ZeroDivisionError"),
        (KeyError("x"), "KeyError: 'x'"),
        (SystemExit("it is not set"), "it is not set"),
        (SystemExit(3), "it ended with status 3"),
        (click.UsageError("give either --uds or --port"), "give either --uds or --port"),
        (exit_while_handling(click.ClickException("no keys")), "no keys"),
        (exit_while_handling(OSError(98, "Address in use")), "OSError: [Errno 98] Address in use"),
        (ExceptionGroup("unhandled errors in a TaskGroup", [StartError("inner")]), "inner"),
        (ModuleNotFoundError("No module named 'av'", name="av"), "av, which is not installed"),
        (ModuleNotFoundError("No module named 'torch'", name="torch.nn"), remedy.install_with("chroma")),
    ],
)
def test_an_error_in_one_line(error: BaseException, text: str) -> None:
    said = failure.text_of(error)
    assert said == text or (isinstance(error, ModuleNotFoundError) and text in said), said


def test_a_password_in_a_url_is_not_told() -> None:
    text = failure.text_of(ValueError("cannot reach redis://vg:s3cr:et@redis.local:6379/0 now"))
    assert text == "ValueError: cannot reach redis://vg:***@redis.local:6379/0 now"


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (-9, "it was killed by signal 9 (SIGKILL); is the machine out of memory?"),
        (-11, "it was killed by signal 11 (SIGSEGV)"),
        (-99, "it was killed by signal 99 (unknown)"),
        (0, "it ended with status 0 and said nothing"),
        (3, "it ended with status 3 and said nothing"),
    ],
)
def test_a_status_without_words(tmp_path: Path, status: int, text: str) -> None:
    assert failure.told(tmp_path / "hall0.failed", status) == text


def test_what_was_told_is_heard_once(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "hall0.failed"
    failure.tell(path, StartError("the key is gone"))
    assert failure.told(path, 1) == "the key is gone"
    assert failure.told(path, 1) == "it ended with status 1 and said nothing"
    line = json.loads(capfd.readouterr().err)
    assert (line["event"], line["level"], line["error"]) == ("process.failed", "error", "the key is gone")
    assert "exception" not in line, "our own errors say enough"


def test_a_strangers_error_leaves_its_traceback_in_the_log(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    try:
        raise RuntimeError("boom")
    except RuntimeError as error:
        failure.tell(tmp_path / "x.failed", error)
    assert "test_failure.py" in json.loads(capfd.readouterr().err)["exception"]
    assert failure.told(tmp_path / "x.failed", 1) == "RuntimeError: boom"
