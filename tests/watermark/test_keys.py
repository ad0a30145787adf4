import json
import stat
from pathlib import Path

import pytest

from watermark.errors import KeyFileError
from watermark.keys import BOTH_LAYERS, CARRIER_ALONE, KeyRing, MarkKey

GOOD = '"id": "a", "gateway": 7, "secret": "AAAAAAAAAAAAAAAAAAAAAAAAAAA="'


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
        (f'{{"keys": [{{{GOOD}, "version": 3}}]}}', "version 3 are not known here: a newer voicegate"),
        (f'{{"keys": [{{{GOOD}, "version": "new"}}]}}', "not a key file"),
        (f'{{"keys": [{{{GOOD}, "version": 2, "envelope_db": 2.5}}]}}', "2.5 dB; it must be 1 to 2 dB"),
        (f'{{"keys": [{{{GOOD}, "version": 2, "envelope_db": NaN}}]}}', "must be 1 to 2 dB"),
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


def test_new_keys_are_of_version_2_and_old_files_stay_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    path.write_text(f'{{"keys": [{{{GOOD}}}]}}')
    path.chmod(0o600)
    old = KeyRing.load(path)
    assert old.current.version == CARRIER_ALONE
    assert not old.current.has_envelope
    rotated = old.rotate(path)
    assert [key.version for key in KeyRing.load(path).keys] == [CARRIER_ALONE, BOTH_LAYERS]
    assert rotated.current.has_envelope
    first, second = json.loads(path.read_text())["keys"]
    assert set(first) == {"id", "gateway", "secret"}
    assert second["version"] == 2
    assert KeyRing.create(tmp_path / "new.json").current.version == BOTH_LAYERS


def test_the_depth_is_the_keys_own_and_has_a_ceiling(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    assert KeyRing.create(path).current.envelope_db == 1.5
    assert KeyRing.load(path).rotate(path, 2.0).current.envelope_db == 2.0
    assert [key.envelope_db for key in KeyRing.load(path).keys] == [1.5, 2.0]
    before = path.read_bytes()
    for depth_db in (2.01, 0.9, -1.5, float("inf")):
        with pytest.raises(ValueError, match="must be 1 to 2 dB"):
            KeyRing.load(path).rotate(path, depth_db)
        with pytest.raises(ValueError, match="must be 1 to 2 dB"):
            MarkKey("a", 7, bytes(32), BOTH_LAYERS, depth_db)
    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == ["keys.json"]
