import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import numpy as np
import pytest
from starlette.applications import Starlette
from starlette.requests import Request

from tests.e2e.gateway_process import free_port
from tests.needs import HANGS_S
from watermark import examine, public, sound
from watermark.detect import NOTHING, Detection, detect_recording
from watermark.errors import SoundError
from watermark.keys import KeyRing, MarkKey
from watermark.mark import Marker


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, speech: np.ndarray) -> Path:
    here = tmp_path_factory.mktemp("public")
    key = KeyRing.create(here / "keys.json").current
    marked = Marker(key, key.gateway << 48 | 7).mark(speech).samples
    sound.write(here / "ours.wav", marked[: 8 * 24_000], 24_000)
    sound.write(here / "not.wav", speech[: 8 * 24_000], 24_000)
    sound.write(here / "short.wav", speech[: 2 * 24_000], 24_000)
    sound.write(here / "long.wav", np.zeros(8_000 * 61, np.float32), 8_000)
    return here


def asking(app: Starlette) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app, client=("203.0.113.7", 1))
    return httpx.AsyncClient(transport=transport, base_url="http://detector", timeout=HANGS_S)


@pytest.fixture
def client(place: Path) -> httpx.AsyncClient:
    """Somebody who asks a detector whose clock stands still."""
    return asking(public.app(place / "keys.json", clock=lambda: 0.0))


def with_child(place: Path, program: str) -> httpx.AsyncClient:
    """The same with a child of the test's own."""
    return asking(public.app(place / "keys.json", (sys.executable, "-c", program), lambda: 0.0))


@pytest.mark.parametrize(
    ("name", "status", "said"),
    [
        ("ours.wav", 200, {"answer": "yes"}),
        ("not.wav", 200, {"answer": "no"}),
        ("short.wav", 200, {"answer": "unsure"}),
    ],
)
async def test_it_answers_in_one_word(
    name: str, status: int, said: dict[str, str], client: httpx.AsyncClient, place: Path
) -> None:
    reply = await client.post("/detect", content=(place / name).read_bytes())
    assert (reply.status_code, {"answer": reply.json()["answer"]}) == (status, said)
    assert reply.json()["technique"] == "watermark"
    assert reply.json()["examined"].endswith("s in 1 channel, with 1 key")
    assert "spread-spectrum watermark" in reply.json()["rests_on"]


async def test_what_is_not_examined_says_why(client: httpx.AsyncClient, place: Path) -> None:
    for content, status, reason in (
        (b"nonsense", 422, "not a WAV file"),
        ((place / "long.wav").read_bytes(), 422, "longer than 60 s"),
        (bytes(public.LARGEST_BYTES + 1), 413, "larger than 12 MiB"),
    ):
        reply = await client.post("/detect", content=content)
        assert reply.status_code == status
        assert reason in reply.json()["error"]


async def test_an_address_that_asks_too_much_must_wait(client: httpx.AsyncClient) -> None:
    replies = [await client.post("/detect", content=b"") for _ in range(public.BURST + 1)]
    assert [reply.status_code for reply in replies] == [422] * public.BURST + [429]


@pytest.mark.parametrize(
    ("came_from", "told", "asker"),
    [
        ("203.0.113.7", [], "203.0.113.7"),
        ("203.0.113.7", ["198.51.100.1"], "203.0.113.7"),  # not a proxy: its word is not believed
        ("10.0.0.2", ["198.51.100.1"], "198.51.100.1"),
        ("10.0.0.2", ["1.2.3.4, 198.51.100.1"], "198.51.100.1"),  # the first is the asker's own invention
        ("10.0.0.2", ["1.2.3.4", "198.51.100.1"], "198.51.100.1"),
        ("10.0.0.2", ["198.51.100.1, 10.0.0.3"], "198.51.100.1"),  # two proxies
        ("10.0.0.2", ["198.51.100.1:4711"], "198.51.100.1"),
        ("10.0.0.2", ['"[2001:db8::1]:4711"'], "2001:db8::/64"),
        ("10.0.0.2", ["2001:db8::1:2:3:4"], "2001:db8::/64"),
        ("10.0.0.2", ["::ffff:198.51.100.1"], "198.51.100.1"),
        ("10.0.0.2", ["unknown"], "10.0.0.2"),
        ("10.0.0.2", [""], "10.0.0.2"),
        ("10.0.0.2", ["10.0.0.3"], "10.0.0.3"),
        ("2001:db8:0:1::7", [], "2001:db8:0:1::/64"),
    ],
)
def test_behind_a_proxy_patience_is_the_askers(came_from: str, told: list[str], asker: str) -> None:
    headers = [(b"x-forwarded-for", value.encode()) for value in told]
    scope = {"type": "http", "client": (came_from, 1), "headers": headers}
    assert public.Proxies(["10.0.0.0/24"]).asker(Request(scope)) == asker


async def test_askers_behind_a_proxy_do_not_wait_for_each_other(place: Path) -> None:
    app = public.app(place / "keys.json", clock=lambda: 0.0, proxies=["203.0.113.7"])
    async with asking(app) as client:
        for asker in ("198.51.100.1", "198.51.100.2"):
            headers = {"X-Forwarded-For": asker}
            replies = [await client.post("/detect", headers=headers) for _ in range(public.BURST + 1)]
            assert [reply.status_code for reply in replies] == [422] * public.BURST + [429]


OUT_OF_CPU = "from watermark import examine; examine.limit(); examine.allow_cpu(1)\nwhile True: pass"


async def test_a_child_that_ran_out_of_time_is_no_wrong_question(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spent = with_child(place, OUT_OF_CPU)
    reply = await spent.post("/detect", content=b"")
    assert (reply.status_code, reply.headers["retry-after"]) == (503, "60")
    assert "try again" in reply.json()["error"]
    monkeypatch.setattr(public, "WALL_S", 0.05)
    stuck = with_child(place, "import time; time.sleep(600)")
    assert (await stuck.post("/detect", content=bytes(1 << 20))).status_code == 503
    counted = (await spent.get("/metrics")).text
    assert 'voicegate_detector_answers_total{status="503"} 1.0' in counted


@pytest.mark.parametrize("program", ["1 / 0", "print('yes'); 1 / 0", "print('perhaps')", "pass"])
async def test_a_child_that_fails_says_nothing_of_the_recording(
    program: str, place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    reply = await with_child(place, program).post("/detect", content=b"12")
    assert reply.status_code == 500
    assert "nothing about the recording" in reply.json()["error"]
    assert "the examination of 2 bytes failed" in caplog.text


async def test_the_page_runs_only_its_own_script(client: httpx.AsyncClient) -> None:
    page = await client.get("/")
    assert "public.js" in page.text
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert (await client.get("/public.js")).headers["content-type"].startswith("text/javascript")


def test_patience_comes_back_and_forgets() -> None:
    patience = public.Patience()
    assert [patience.takes("a", 0.0) for _ in range(6)] == [True] * 5 + [False]
    assert patience.takes("b", 0.0)
    assert patience.takes("a", public.EVERY_S)
    assert not patience.takes("a", public.EVERY_S)


def test_a_weak_finding_or_a_short_file_is_unsure() -> None:
    weak = Detection(False, 1e-5)
    assert examine.word(weak, 20.0) == "unsure"
    assert examine.word(NOTHING, 4.9) == "unsure"
    assert examine.word(NOTHING, 5.0) == "no"
    assert examine.word(Detection(True, 1e-9), 2.0) == "yes"


def test_the_child_has_a_limit_of_cpu() -> None:
    assert subprocess.run([sys.executable, "-c", OUT_OF_CPU]).returncode == -signal.SIGXCPU
    unlimited = "import resource, signal; signal.signal(signal.SIGXCPU, signal.SIG_IGN); "
    hard = OUT_OF_CPU.replace("examine.limit()", "examine.MOST_CPU_S = 2; examine.limit()")
    assert subprocess.run([sys.executable, "-c", unlimited + hard]).returncode == -signal.SIGKILL


def test_a_long_recording_in_two_channels_with_many_keys_has_the_time_it_takes() -> None:
    """A search takes .13 s of CPU for each second, see docs/watermark.md."""
    assert examine.cpu_s(60, 1, 1) < 60
    assert 2 * 60 * 2 * 4 * 0.13 < examine.cpu_s(60, 2, 4) < examine.MOST_CPU_S
    assert 2 * 60 * 4 * 9 * 0.13 < examine.cpu_s(60, 4, 9) < examine.MOST_CPU_S


def test_a_channel_that_is_another_once_more_is_not_searched_again(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    searched = []

    def noted(channel: np.ndarray, *_: object, **__: object) -> Detection:
        searched.append(channel)
        return NOTHING

    monkeypatch.setattr("watermark.detect.detect", noted)
    one, other = np.zeros((2, 24_000), np.float32)
    other[5] = 0.5
    found = detect_recording(sound.Recording(np.stack([one, other, one, one]), 8_000), KeyRing(()))
    assert found == NOTHING
    assert len(searched) == 2


async def test_samples_beyond_all_measure_are_examined(client: httpx.AsyncClient, place: Path) -> None:
    loud = sound.read(place / "ours.wav").channels[0]
    for times, said in ((1e30, {"answer": "yes"}), (1e38, {"answer": "yes"}), (np.nan, None)):
        content = float_wav(loud * np.float32(times))
        reply = await client.post("/detect", content=content)
        heard = {"answer": reply.json().get("answer")}
        assert heard == said if said else "not numbers" in reply.json()["error"]


def float_wav(samples: np.ndarray) -> bytes:
    """Mono at 24 kHz."""
    return wav(samples.astype("<f4").tobytes())


def wav(
    data: bytes,
    kind: int = sound.FLOAT,
    channels: int = 1,
    rate_hz: int = 24_000,
    bits: int = 32,
    more: bytes = b"",
    claimed: int | None = None,
) -> bytes:
    """A WAV file; `more` of its format, and how long its sound `claims` to be."""
    each = channels * bits // 8 & 0xFFFF
    layout = struct.pack("<HHIIHH", kind, channels, rate_hz, rate_hz * each & 0xFFFFFFFF, each, bits) + more
    size = len(data) if claimed is None else claimed
    chunks = b"fmt " + struct.pack("<I", len(layout)) + layout + b"data" + struct.pack("<I", size) + data
    return b"RIFF" + struct.pack("<I", min(4 + len(chunks), 0xFFFFFFFF)) + b"WAVE" + chunks


EXTENSIBLE = struct.pack("<HHIH", 22, 24, 4, sound.PCM) + bytes.fromhex("000000001000800000aa00389b71")


@pytest.fixture(scope="module")
def ours(place: Path) -> np.ndarray:
    """6 s of marked sound at 24 kHz."""
    return sound.read(place / "ours.wav").channels[0][: 6 * 24_000]


def bytes_of_24_bits(samples: np.ndarray) -> bytes:
    wide = (samples * (2**23 - 1)).astype("<i4").view(np.uint8).reshape(-1, 4)
    return wide[:, :3].tobytes()


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("one sample of 1e30", lambda x: float_wav(np.where(np.arange(len(x)) == 5_000, 1e30, x))),
        ("as faint as 1e-30", lambda x: float_wav(x * np.float32(1e-30))),
        ("8 bits", lambda x: wav((x * 127 + 128).astype("u1").tobytes(), sound.PCM, bits=8)),
        ("24 bits", lambda x: wav(bytes_of_24_bits(x), sound.PCM, bits=24)),
        ("extensible", lambda x: wav(bytes_of_24_bits(x), sound.EXTENSIBLE, bits=24, more=EXTENSIBLE)),
        ("192 kHz", lambda x: wav(np.repeat(x, 8).tobytes(), rate_hz=192_000)),
        ("cut off", lambda x: float_wav(x)[: 4 * 24_000 * 4]),
        ("cut off within a sample", lambda x: float_wav(x)[: 4 * 24_000 * 4 + 1]),
        ("as long as a stream claims", lambda x: wav(x.tobytes(), claimed=0xFFFFFFFF)),
    ],
)
def test_odd_files_are_read_and_examined(
    name: str, make: Callable[[np.ndarray], bytes], ours: np.ndarray, place: Path
) -> None:
    found = detect_recording(sound.parse(make(ours)), KeyRing.load(place / "keys.json"))
    assert found.detected, name


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda x: wav(x.tobytes(), channels=0), "0 channels"),
        (lambda x: wav(np.repeat(x, 8).tobytes(), channels=8), "8 channels"),
        (lambda x: wav(x.tobytes(), channels=65_535), "65535 channels"),
        (lambda x: float_wav(x[:1]), "too short"),
        (lambda x: float_wav(x[:0]), "too short"),
        (lambda x: wav(x.tobytes(), claimed=0), "too short"),
        (lambda x: float_wav(np.where(np.arange(len(x)) == 77, np.nan, x)), "not numbers"),
        (lambda x: float_wav(np.where(np.arange(len(x)) == 77, np.inf, x)), "not numbers"),
        (lambda x: wav((x.astype("<f8") * 1e300).tobytes(), bits=64), "not numbers"),
        (lambda x: wav(x.tobytes(), rate_hz=0), "0 Hz"),
        (lambda x: wav(x.tobytes(), rate_hz=0xFFFFFFFF), "4294967295 Hz"),
        (lambda x: wav(x.tobytes(), rate_hz=768_000), "768000 Hz"),
        (lambda x: wav(x.tobytes(), bits=0), "0 bits"),
        (lambda x: wav(x.tobytes(), kind=0x55, bits=16), "format 85"),
        (lambda x: wav(x.tobytes(), kind=sound.EXTENSIBLE, bits=24, more=b"\x16\0\x18"), "format 65534"),
        (lambda x: float_wav(x)[:30], "cut off"),
        (lambda x: float_wav(x)[:40], "holds no sound"),
    ],
)
def test_files_that_are_no_sound_say_what_is_wrong(
    make: Callable[[np.ndarray], bytes], reason: str, ours: np.ndarray, place: Path
) -> None:
    with pytest.raises(SoundError, match=reason):
        detect_recording(sound.parse(make(ours)), KeyRing.load(place / "keys.json"))


@pytest.mark.parametrize(
    "samples", [np.full(48_000, 1e30), np.full(48_000, 3.4e38), np.eye(1, 48_000, 47_999)[0]]
)
def test_sound_that_is_none_is_an_answer(samples: np.ndarray, place: Path) -> None:
    with np.errstate(invalid="raise", divide="raise"):
        found = detect_recording(sound.parse(float_wav(samples)), KeyRing.load(place / "keys.json"))
    assert not found.detected


def test_the_newest_key_is_tried_first_and_the_answer_says_what_was_examined(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    keys = KeyRing(tuple(MarkKey(f"wm-{n}", n, bytes(32)) for n in range(3)))
    recording = sound.Recording(np.random.default_rng(1).standard_normal((2, 48_000)).astype("<f4"), 8_000)
    looks: list[tuple[str, float]] = []

    def noted(channel: np.ndarray, _: int, tried: list[MarkKey]) -> Detection:
        looks.append((tried[0].id, float(channel[0])))
        return NOTHING

    monkeypatch.setattr(examine, "detect", noted)
    monkeypatch.setattr(examine, "allow_cpu", lambda _: None)
    first, second = recording.channels[:, 0].tolist()
    assert examine.answer(recording, keys, np.inf) == "no 6.0 s in 2 channels, with 3 keys"
    assert looks == [(key.id, at) for key in reversed(keys.keys) for at in (first, second)]
    looks.clear()
    late = examine.answer(recording, keys, 0.0)
    assert looks == [("wm-2", first)], "one search is always done"
    assert late.startswith("unsure 6.0 s in 2 channels: 1 of 6 searches")


def test_each_key_counts_as_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    weak = Detection(True, 5e-7, ln_p=float(np.log(5e-7)))
    monkeypatch.setattr(examine, "detect", lambda *_: weak)
    recording = sound.Recording(np.ones((1, 48_000), np.float32), 8_000)
    keys = [MarkKey(f"wm-{n}", n, bytes(32)) for n in range(3)]
    assert examine.search(recording, KeyRing((keys[0],)), np.inf).found.detected
    assert not examine.search(recording, KeyRing(tuple(keys)), np.inf).found.detected


def test_the_child_has_a_limit_of_memory() -> None:
    greedy = "from watermark import examine; examine.limit()\nbytearray(examine.MEMORY_BYTES)"
    ended = subprocess.run([sys.executable, "-c", greedy], capture_output=True)
    assert b"MemoryError" in ended.stderr


def test_it_serves_as_a_command(place: Path) -> None:
    port = free_port()
    command = [sys.executable, "-m", "gateway.cli", "watermark", "serve"]
    server = subprocess.Popen([*command, "--keys", str(place / "keys.json"), "--port", str(port)])
    try:
        wav = (place / "ours.wav").read_bytes()
        while True:
            try:
                reply = httpx.post(f"http://127.0.0.1:{port}/detect", content=wav, timeout=HANGS_S)
                break
            except httpx.ConnectError:
                assert server.poll() is None, "it ended before it listened"
                time.sleep(0.1)
        assert (reply.json()["answer"], reply.json()["technique"]) == ("yes", "watermark")
    finally:
        server.terminate()
        assert server.wait(HANGS_S) in (0, -signal.SIGTERM)
