import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import numpy as np
import pytest

from watermark import examine, public, sound
from watermark.detect import NOTHING, Detection
from watermark.keys import KeyRing
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


@pytest.fixture
def client(place: Path) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(public.app(place / "keys.json"), client=("203.0.113.7", 1))
    return httpx.AsyncClient(transport=transport, base_url="http://detector", timeout=60)


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
    assert (reply.status_code, reply.json()) == (status, said)


async def test_what_is_not_examined_says_why(client: httpx.AsyncClient, place: Path) -> None:
    for content, status, reason in (
        (b"nonsense", 422, "no WAV"),
        ((place / "long.wav").read_bytes(), 422, "longer than 60 s"),
        (bytes(public.LARGEST_BYTES + 1), 413, "larger than 12 MiB"),
    ):
        reply = await client.post("/detect", content=content)
        assert reply.status_code == status
        assert reason in reply.json()["error"]


async def test_an_address_that_asks_too_much_must_wait(client: httpx.AsyncClient) -> None:
    replies = [await client.post("/detect", content=b"") for _ in range(public.BURST + 1)]
    assert [reply.status_code for reply in replies] == [422] * public.BURST + [429]


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
    busy = "from watermark import examine; examine.CPU_S = 1; examine.limit()\nwhile True: pass"
    ended = subprocess.run([sys.executable, "-c", busy], timeout=30)
    assert ended.returncode in (-signal.SIGKILL, -signal.SIGXCPU)


def test_the_child_has_a_limit_of_memory() -> None:
    greedy = "from watermark import examine; examine.limit()\nbytearray(examine.MEMORY_BYTES)"
    ended = subprocess.run([sys.executable, "-c", greedy], timeout=30, capture_output=True)
    assert b"MemoryError" in ended.stderr


def test_it_serves_as_a_command(place: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "gateway.cli",
        "watermark",
        "serve",
        "--keys",
        str(place / "keys.json"),
        "--port",
        "18093",
    ]
    server = subprocess.Popen(command, env=os.environ)
    try:
        for _ in range(100):
            try:
                reply = httpx.post(
                    "http://127.0.0.1:18093/detect", content=(place / "ours.wav").read_bytes(), timeout=60
                )
                break
            except httpx.ConnectError:
                time.sleep(0.2)
        assert reply.json() == {"answer": "yes"}
    finally:
        server.terminate()
        assert server.wait(10) in (0, -signal.SIGTERM)
