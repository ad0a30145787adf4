import stat
from pathlib import Path

import pytest

from watermark.errors import KeyFileError
from watermark.keys import KeyRing


def test_a_new_file_is_its_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    ring = KeyRing.create(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert KeyRing.load(path) == ring
    assert ring.current.secret.hex() not in repr(ring)


def test_rotation_keeps_the_old_and_marks_with_the_new(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    first = KeyRing.create(path)
    second = first.rotate(path)
    assert KeyRing.load(path) == second
    assert second.keys[0] == first.current
    assert second.current.gateway != first.current.gateway
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [each.name for each in tmp_path.iterdir()] == ["keys.json"]


def test_an_existing_file_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    KeyRing.create(path)
    with pytest.raises(KeyFileError, match="exists already"):
        KeyRing.create(path)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "not a key file"),
        ("{}", "not a key file"),
        ('{"keys": []}', "holds no key"),
        ('{"keys": [{"id": "a", "gateway": 70000, "secret": "AAAAAAAAAAAAAAAAAAAAAAAAAAA="}]}', "16 bits"),
        ('{"keys": [{"id": "a", "gateway": 7, "secret": "AAAA"}]}', "128"),
    ],
)
def test_bad_files_say_why(text: str, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    path.write_text(text)
    path.chmod(0o600)
    with pytest.raises(KeyFileError, match=reason):
        KeyRing.load(path)


def test_readable_and_missing_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    with pytest.raises(KeyFileError, match="keygen"):
        KeyRing.load(path)
    KeyRing.create(path)
    path.chmod(0o640)
    with pytest.raises(KeyFileError, match="chmod 600"):
        KeyRing.load(path)
