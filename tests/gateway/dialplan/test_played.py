"""Recordings in a plan: which files may be played, where, and what is said of one that may not."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import numpy as np
import pytest

from gateway.dialplan import Dialplan, Playback
from gateway.dialplan.played_file import LONGEST_S, read_played
from gateway.errors import DialplanError, PlayedFileError
from tests.gateway.dialplan.test_dialplan import ANSWER, DISCLOSE, HANGUP, load, refusal, route
from watermark import sound

RATE_HZ = 8_000
SOUND = (0.3 * np.sin(np.arange(RATE_HZ) * 0.3)).astype(np.float32)


def play(*lines: str, file: str = "a.wav") -> str:
    return "\n".join(('[[route.do]]\nverb = "play"', f'file = "{file}"', *lines, ""))


NO_VOICE = "synthetic = false"


def wav(folder: Path, samples: np.ndarray = SOUND, rate_hz: int = RATE_HZ, name: str = "a.wav") -> Path:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    sound.write(folder / name, samples, rate_hz)
    return folder / name


def test_a_recording_is_played_with_its_options(tmp_path: Path) -> None:
    wav(tmp_path, name="prompts/hello.wav")
    verb = play('text = "Merhaba."', NO_VOICE, "loop = true", "max_s = 20", 'interruptible = "both"',
                "normalise = false", file="prompts/hello.wav")  # fmt: skip
    plan = load(tmp_path, route(do=ANSWER + verb + HANGUP))
    assert plan.routes[0].do[1] == Playback(
        file="prompts/hello.wav", text="Merhaba.", synthetic=False, loop=True, max_s=20.0,
        interruptible="both", normalise=False,
    )  # fmt: skip


def gather(*lines: str) -> str:
    return "\n".join(('[[route.do]]\nverb = "gather"', 'branches = { 1 = "menu" }', *lines, ""))


FILE = 'file = "a.wav"'


def test_a_gather_may_ask_by_a_recording_alone(tmp_path: Path) -> None:
    wav(tmp_path)
    menu = route("menu", 'called = ["menu"]', 'language = "tr"', do=ANSWER + gather(FILE, NO_VOICE))
    (found,) = load(tmp_path, menu).routes
    assert found.voiceless, "no engine says anything in it, in any language"


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        ((), "prompt is missing, or file, a recording that asks"),
        ((FILE, NO_VOICE), "'a.wav' cannot be played: there is no such file in the folder of the plans"),
        (('file = "../a.wav"', NO_VOICE), "a recording is in the folder of the plans"),
        ((FILE,), "gather speaks here to a caller who was not told that this is a machine"),
    ],
    ids=("neither", "gone", "elsewhere", "synthetic"),
)
def test_a_gathers_recording_is_checked_when_the_plan_loads(
    tmp_path: Path, lines: tuple[str, ...], why: str
) -> None:
    if "told" in why:
        wav(tmp_path)
    assert why in refusal(tmp_path, route("menu", do=ANSWER + gather(*lines)))


@pytest.mark.parametrize(
    "path",
    ["/etc/a.wav", "../a.wav", "b/../../a.wav", "./a.wav", ".a.wav", "b/.a.wav", "a.mp3", "a\\u0000.wav",
     "~/a.wav", "b\\\\a.wav"],
)  # fmt: skip
def test_a_path_that_may_lead_elsewhere_does_not_load(tmp_path: Path, path: str) -> None:
    wav(tmp_path)
    wav(tmp_path.parent)
    said = refusal(tmp_path, route(do=ANSWER + play(NO_VOICE, file=path)))
    assert said.startswith("0.toml:8: file = ")


def test_a_link_out_of_the_folder_is_refused_and_one_within_is_not(tmp_path: Path) -> None:
    plans = tmp_path / "plans"
    plans.mkdir()
    (plans / "a.wav").symlink_to(wav(tmp_path))
    assert "a link leads out of the folder" in refusal(plans, route(do=ANSWER + play(NO_VOICE)))
    (plans / "dir").symlink_to(tmp_path)
    assert "a link leads out" in refusal(plans, route(do=ANSWER + play(NO_VOICE, file="dir/a.wav")))
    wav(plans, name="b.wav")
    (plans / "a.wav").unlink()
    (plans / "a.wav").symlink_to(plans / "b.wav")
    load(plans, route(do=ANSWER + play(NO_VOICE)))


def test_a_hall_follows_no_link_that_was_changed_after_the_check(tmp_path: Path) -> None:
    plans = tmp_path / "plans"
    wav(plans)
    read_played(plans, "a.wav")
    (plans / "a.wav").unlink()
    (plans / "a.wav").symlink_to(wav(tmp_path))
    with pytest.raises(PlayedFileError, match="leads out"):
        read_played(plans, "a.wav")


def test_what_is_no_file_keeps_nobody_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.wav")
    assert "a folder or a device" in refusal(tmp_path, route(do=ANSWER + play(NO_VOICE)))


def stereo(left: np.ndarray, right: np.ndarray) -> bytes:
    pcm = (np.stack((left, right), 1) * 32767).astype("<i2").tobytes()
    head = struct.pack("<4sI4s4sIHHIIHH4sI", b"RIFF", 36 + len(pcm), b"WAVE", b"fmt ", 16, 1, 2, RATE_HZ,
                       4 * RATE_HZ, 4, 16, b"data", len(pcm))  # fmt: skip
    return head + pcm


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (None, "there is no such file"),
        (b"ID3 and so on", "this is not a WAV file (convert it with: ffmpeg"),
        (b"RIFF\0\0\0\0WAVEdata\0\0\0\0", "the file is damaged"),
        (np.zeros(RATE_HZ, np.float32), "it is silent"),
        (SOUND * 0.001, "it is silent"),
        (np.clip(SOUND * 5, -1, 1), "it is clipped"),
        (SOUND[:100], "0.01 s long"),
        (np.tile(SOUND, int(LONGEST_S) + 1), "301.00 s long"),
        (stereo(SOUND, -SOUND), "cancel each other out"),
    ],
    ids=["missing", "mp3", "broken", "zeros", "faint", "clipped", "short", "long", "opposite"],
)
def test_an_unfit_file_is_named_with_its_line(
    tmp_path: Path, data: bytes | np.ndarray | None, why: str
) -> None:
    if isinstance(data, bytes):
        (tmp_path / "a.wav").write_bytes(data)
    elif data is not None:
        wav(tmp_path, data)
    said = refusal(tmp_path, route(do=ANSWER + play(NO_VOICE)))
    assert said.startswith("0.toml:8: route 'demo': 'a.wav' cannot be played: ")
    assert why in said


def test_who_lives_long_reads_no_recording_and_hears_what_is_wrong_with_the_rest(tmp_path: Path) -> None:
    (tmp_path / "0.toml").write_text(route(do=ANSWER + play(NO_VOICE)))
    assert Dialplan.load(tmp_path, recordings=False).routes
    (tmp_path / "0.toml").write_text(route(do=ANSWER + play(NO_VOICE, "loop = true")))
    with pytest.raises(DialplanError, match="goes on for ever"):
        Dialplan.load(tmp_path, recordings=False)


def test_both_channels_are_heard_and_loudness_is_the_house_s(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(stereo(SOUND * 0.1, SOUND * 0.0))
    found = read_played(tmp_path, "a.wav")
    assert found.seconds == 1.0
    assert np.abs(found.samples).max() == pytest.approx(0.015, rel=0.01)
    assert np.sqrt(np.mean((found.samples * found.gain) ** 2)) == pytest.approx(0.1, rel=0.02)


# ── before the answer, and before the disclosure ─────────────────────────────────────────────────────


def test_recordings_may_come_before_the_answer(tmp_path: Path) -> None:
    wav(tmp_path)
    plan = load(tmp_path, route(do=play(NO_VOICE) + play(NO_VOICE) + ANSWER + HANGUP))
    assert [verb.verb for verb in plan.routes[0].do] == ["play", "play", "answer", "hangup"]


@pytest.mark.parametrize(
    ("do", "line", "why"),
    [
        (play(NO_VOICE), 4, 'the first verb must be "answer"'),
        (play(NO_VOICE) + ANSWER + play(NO_VOICE) + ANSWER, 14, "a call is answered once"),
        (play() + ANSWER, 4, "no synthetic voice may be heard there"),
        (play("synthetic = true") + ANSWER, 7, "no synthetic voice may be heard there"),
        (play(NO_VOICE, "loop = true") + ANSWER, 8, "goes on for ever: before the answer"),
        (play(NO_VOICE, "loop = true", 'interruptible = "keys"') + ANSWER, 8, "goes on for ever: before"),
        (play(NO_VOICE, "loop = true", "max_s = 61") + ANSWER, 4, "61 s by now, and 60 s is the most"),
        (ANSWER + play(NO_VOICE, "loop = true"), 10, "goes on for ever: nothing ends it"),
    ],
)
def test_what_would_hold_a_call_without_answering_it_does_not_load(
    tmp_path: Path, do: str, line: int, why: str
) -> None:
    wav(tmp_path)
    said = refusal(tmp_path, route(do=do))
    assert why in said
    assert said.startswith(f"0.toml:{line}: ")


def test_a_recording_needs_the_disclosure_unless_no_synthetic_voice_is_in_it(tmp_path: Path) -> None:
    wav(tmp_path)
    assert "not told that this is a machine" in refusal(tmp_path, route(do=ANSWER + play()))
    load(tmp_path, route(do=ANSWER + DISCLOSE + play()))
    load(tmp_path, route(do=ANSWER + play(NO_VOICE)))


def test_a_recording_is_no_disclosure(tmp_path: Path) -> None:
    wav(tmp_path)
    told = play(NO_VOICE, 'text = "This is a machine with an AI voice. It speaks for Lindens."')
    say = '[[route.do]]\nverb = "say"\ntext = "Hello."\n'
    assert "not told that this is a machine" in refusal(tmp_path, route(do=ANSWER + told + say))


def test_a_route_of_recordings_speaks_a_language_that_no_engine_does(tmp_path: Path) -> None:
    wav(tmp_path)
    leads = (
        '[[route.do]]\nverb = "gather"\nprompt = "For Turkish, press one."\nbranches = { 1 = "turkish" }\n'
    )
    turkish = route(
        "turkish", 'language = "tr"', do=ANSWER + play(NO_VOICE, 'text = "Hoş geldiniz…"') + HANGUP
    )
    (tmp_path / "0.toml").write_text(route(do=ANSWER + DISCLOSE + leads) + turkish)
    plan = Dialplan.load(tmp_path, spoken={"en"})
    assert plan.routes[1].voiceless
    assert plan.prompts() == (plan.routes[0].do[1].words(cloned=False),), (
        "nobody says anything there meanwhile"
    )
    (tmp_path / "0.toml").write_text(route(do=ANSWER + DISCLOSE + leads) + turkish + 'say = "Güle güle."\n')
    with pytest.raises(DialplanError):
        Dialplan.load(tmp_path, spoken={"en"})
