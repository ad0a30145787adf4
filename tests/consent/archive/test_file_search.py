"""Files searched, every byte: in whatever form a program wrote a text."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path

import pytest

from consent.archive.file_search import CHUNK, in_writing, search_files

NAME = "Jané Döe"


@pytest.mark.parametrize("before", range(3))
@pytest.mark.parametrize(
    "write",
    [
        lambda text, before: b"x" * before + text.encode(),
        lambda text, before: json.dumps({"name": "x" * before + text}).encode(),
        lambda text, before: json.dumps({"name": "x" * before + text}, ensure_ascii=False).encode(),
        lambda text, before: ("x" * before + text).encode("utf-16-le"),
        lambda text, before: base64.urlsafe_b64encode(json.dumps({"n": "x" * before + text}).encode()),
        lambda text, before: base64.b64encode(b"x" * before + text.encode() + b"and more"),
    ],
    ids=["plain", "json escaped", "json", "utf-16", "jws", "base64"],
)
def test_a_name_is_found_in_every_form(tmp_path: Path, write: object, before: int) -> None:
    (tmp_path / "file").write_bytes(b"\xff" * 100 + write(NAME, before) + b"\0" * 50)  # type: ignore[operator]
    (place,) = search_files(tmp_path, {"the name": in_writing(NAME)})
    assert place.left == ("the name",)


def test_another_name_is_not_found(tmp_path: Path) -> None:
    others = base64.b64encode(b"John Doe, Janet Dee") + b"Jane Doo"
    (tmp_path / "file").write_bytes(others + os.urandom(1 << 20))
    (place,) = search_files(tmp_path, {"the name": in_writing(NAME)})
    assert place.left == ()


def test_what_lies_over_the_border_of_two_chunks_is_found(tmp_path: Path) -> None:
    for shift in (1, 4, len(NAME.encode()) - 1):
        (tmp_path / "file").write_bytes(b"." * (CHUNK - shift) + NAME.encode() + b"." * CHUNK)
        (place,) = search_files(tmp_path, {"the name": in_writing(NAME)})
        assert place.left == ("the name",), shift


def test_sockets_and_pipes_are_passed_over_and_links_are_not_followed(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")  # opening it would wait for ever
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "file").write_text("nothing")
    (tmp_path / "link").symlink_to("/dev/zero")
    assert [place.path for place in search_files(tmp_path, {"x": [b"nothing"]})] == ["data/file"]


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("x")

    def refuse(self: Path, *_: object) -> object:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "open", refuse)
        (place,) = search_files(tmp_path, {"x": [b"nothing"]})
    assert place.unread == "Permission denied"


def test_a_folder_that_cannot_be_read_is_named_and_one_that_goes_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("closed", "gone", "open"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_bytes(b"Jane")
    scandir = os.scandir

    refused = {"closed": PermissionError(13, "Permission denied"), "gone": FileNotFoundError(2, "It went")}

    def refusing(path: str) -> object:
        if refusal := refused.get(Path(path).name):
            refusal.filename = path
            raise refusal
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    places = {place.path: place for place in search_files(tmp_path, {"the name": [b"Jane"]})}
    assert set(places) == {"closed", "open/file"}
    assert places["closed"].unread == "Permission denied"
    assert places["open/file"].left == ("the name",)
