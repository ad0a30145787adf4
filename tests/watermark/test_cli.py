import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from watermark import sound
from watermark.cli import BY, watermark
from watermark.judge import Detection

PAYLOAD = "0123456789abcdef"


def voicegate(*arguments: object) -> Result:
    return CliRunner().invoke(watermark, [str(each) for each in arguments])


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, speech: np.ndarray) -> Path:
    """keys.json, in.wav, and out.wav that was marked from it."""
    here = tmp_path_factory.mktemp("cli")
    sound.write(here / "in.wav", speech[: 5 * 24_000 + 7], 24_000)
    assert voicegate("keygen", here / "keys.json").exit_code == 0
    made = voicegate(
        "mark", here / "in.wav", here / "out.wav", "--keys", here / "keys.json", "--payload", PAYLOAD
    )
    assert made.exit_code == 0, made.output
    return here


def test_what_mark_writes_detect_reads(place: Path) -> None:
    before, after = sound.read(place / "in.wav").channels, sound.read(place / "out.wav").channels
    assert before.shape == after.shape
    assert 0 < np.abs(before - after).max() < 0.1
    found = voicegate("detect", place / "out.wav", "--keys", place / "keys.json", "--json")
    said = json.loads(found.output)
    assert found.exit_code == 0
    assert said["detected"] is True
    assert said["payload"] == PAYLOAD
    assert said["p_value"] < 1e-20
    assert abs(said["skew_ppm"]) < 30
    assert len(said["scores"]) == 6
    assert said["layer"] == "carrier"
    told = voicegate("detect", place / "out.wav", "--keys", place / "keys.json").output
    assert "ours: payload 0123456789abcdef" in told
    assert "by the carrier" in told


@pytest.mark.parametrize(
    ("layer", "payload", "asked", "told"),
    [
        ("envelope", None, (), "ours: unreadable payload"),
        ("both", int(PAYLOAD, 16), ("--payload", PAYLOAD), "ours: payload 0123456789abcdef"),
    ],
)
def test_what_found_a_mark_is_told(
    layer: str,
    payload: int | None,
    asked: tuple[str, ...],
    told: str,
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = Detection(True, 1e-9, 8.0, payload, "wm-0001", layer=layer)
    monkeypatch.setattr("watermark.cli.detect_recording", lambda *_, **__: found)
    said = voicegate("detect", place / "out.wav", "--keys", place / "keys.json", *asked).output
    assert told in said
    assert f"by {BY[layer]}" in said
    drawn = voicegate("plot", place / "out.wav", place / "by.png", "--keys", place / "keys.json").output
    assert f"by {BY[layer]}" in drawn


def test_rotated_keys_still_detect(place: Path) -> None:
    ring = place / "more.json"
    ring.write_bytes((place / "keys.json").read_bytes())
    ring.chmod(0o600)
    assert "2 keys detect" in voicegate("rotate", ring).output
    assert PAYLOAD in voicegate("detect", place / "out.wav", "--keys", ring).output


def test_the_depth_of_the_envelope_layer_is_chosen_with_a_key(place: Path) -> None:
    assert voicegate("keygen", place / "deep.json", "--envelope-db", "2").exit_code == 0
    keys = ("--keys", place / "deep.json")
    made = voicegate("mark", place / "in.wav", place / "deep.wav", *keys, "--payload", PAYLOAD)
    assert made.exit_code == 0, made.output
    assert PAYLOAD in voicegate("detect", place / "deep.wav", *keys).output
    plain, marked, deep = (sound.read(place / name).channels[0] for name in ("in.wav", "out.wav", "deep.wav"))
    assert np.square(deep - plain).sum() > 1.2 * np.square(marked - plain).sum()


def test_verify_knows_this_call_from_another(place: Path) -> None:
    keys = ("--keys", place / "keys.json", "--no-speeds", "--payload")
    assert "ours" in voicegate("detect", place / "out.wav", *keys, PAYLOAD).output
    assert "no mark of this call" in voicegate("detect", place / "out.wav", *keys, "0123456789abcdee").output
    assert "no mark of this call" in voicegate("detect", place / "in.wav", *keys, PAYLOAD).output


def test_plot_draws_a_png(place: Path) -> None:
    drawn = voicegate("plot", place / "out.wav", place / "out.png", "--keys", place / "keys.json")
    assert drawn.exit_code == 0, drawn.output
    assert (place / "out.png").read_bytes().startswith(b"\x89PNG")


def test_stereo_is_examined_by_channel_and_not_marked(place: Path) -> None:
    one = sound.read(place / "out.wav").channels[0]
    stereo = np.stack((one * 0.0, one)).T.astype("<f4")
    header = sound_header(2, 24_000, stereo.nbytes)
    (place / "two.wav").write_bytes(header + stereo.tobytes())
    keys = ("--keys", place / "keys.json")
    assert PAYLOAD in voicegate("detect", place / "two.wav", *keys).output
    refused = voicegate("mark", place / "two.wav", place / "no.wav", *keys, "--payload", PAYLOAD)
    assert refused.exit_code == 1
    assert "2 channels" in refused.output
    assert not (place / "no.wav").exists()


def sound_header(channels: int, rate_hz: int, size: int) -> bytes:
    """A float WAV's header."""
    layout = b"".join(
        value.to_bytes(width, "little")
        for value, width in (
            (3, 2),
            (channels, 2),
            (rate_hz, 4),
            (rate_hz * channels * 4, 4),
            (4 * channels, 2),
            (32, 2),
        )
    )
    return (
        b"RIFF"
        + bytes(4)
        + b"WAVEfmt "
        + (16).to_bytes(4, "little")
        + layout
        + b"data"
        + size.to_bytes(4, "little")
    )


def test_96_khz_works(place: Path, speech: np.ndarray) -> None:
    import soxr

    sound.write(place / "hi.wav", soxr.resample(speech[: 5 * 24_000], 24_000, 96_000), 96_000)
    keys = ("--keys", place / "keys.json")
    assert voicegate("mark", place / "hi.wav", place / "hi2.wav", *keys, "--payload", PAYLOAD).exit_code == 0
    assert PAYLOAD in voicegate("detect", place / "hi2.wav", *keys).output


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("detect", "none.wav", "--keys", "keys.json"), "none.wav does not exist"),
        (("detect", "keys.json", "--keys", "keys.json"), "not a WAV file"),
        (("detect", "short.wav", "--keys", "keys.json"), "0.20 s is too short"),
        (("detect", "in.wav", "--keys", "none.json"), "keygen"),
        (("detect", "in.wav", "--keys", "in.wav"), "chmod 600"),
        (("detect", "in.wav", "--keys", "keys.json", "--payload", "12"), "16 hexadecimal digits"),
        (("detect", "in.wav"), "Missing option '--keys'"),
        (("mark", "odd.wav", "out2.wav", "--keys", "keys.json", "--payload", PAYLOAD), "11025 Hz"),
        (("mark", "in.wav", "none/out.wav", "--keys", "keys.json", "--payload", PAYLOAD), "No such file"),
        (("plot", "in.wav", "none/out.png", "--keys", "keys.json"), "No such file"),
        (("keygen", "keys.json"), "exists already"),
        (("keygen", "none/keys.json"), "No such file"),
        (("keygen", "deep.json", "--envelope-db", "2.5"), "1.0<=x<=2.0"),
        (("rotate", "keys.json", "--envelope-db", "2.5"), "1.0<=x<=2.0"),
    ],
)
def test_mistakes_get_one_clear_line(
    arguments: tuple[str, ...], reason: str, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    samples = sound.read(Path("in.wav")).channels[0]
    sound.write(Path("short.wav"), samples[:4_800], 24_000)
    sound.write(Path("odd.wav"), samples[:22_050], 11_025)
    done = voicegate(*arguments)
    assert done.exit_code in (1, 2)
    assert reason in done.output
    assert "Traceback" not in done.output
    assert isinstance(done.exception, SystemExit)
