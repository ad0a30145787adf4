"""`voicegate engine top`: what engines tell, as it is shown; and what is said when none is there."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from click.testing import CliRunner, Result
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from gateway.cli.main import cli
from gateway.cli.operator.engine_command import Watch
from gateway.cli.operator.engine_top import Reading, quantile, rows
from gateway.config import remedy
from model.client import EngineClient

pytestmark = pytest.mark.usefixtures("own_house")


class Meters:
    """An engine's, as it would have them."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.slots = Gauge("voicegate_engine_slots", "", registry=registry)
        self.kv = Gauge("voicegate_chroma_kv_bytes", "", registry=registry)
        self.frames = Counter("voicegate_chroma_frames", "", registry=registry)
        self.step = Histogram(
            "voicegate_chroma_step_seconds",
            "",
            ["phase"],
            buckets=(0.01, 0.02, 0.04, 0.08),
            registry=registry,
        )
        self.slots.set(8)
        self.kv.set(3 << 19)

    def read(self, at: float) -> Reading:
        return Reading.parse(self.text(), at)

    def text(self) -> str:
        return generate_latest(self.registry).decode()


def test_a_quantile_is_where_prometheus_puts_it() -> None:
    buckets = [(0.01, 0.0), (0.02, 50.0), (0.04, 100.0), (float("inf"), 100.0)]
    assert quantile(buckets, 0.5) == pytest.approx(0.02)
    assert quantile(buckets, 0.75) == pytest.approx(0.03)
    assert quantile(buckets, 0.99) == pytest.approx(0.0396)
    assert quantile([(0.01, 0.0), (float("inf"), 3.0)], 0.5) == 0.01, "beyond the last bound"
    assert quantile([(0.01, 0.0), (float("inf"), 0.0)], 0.5) is None


def test_what_is_shown_is_of_the_time_between_two_readings() -> None:
    meters = Meters()
    meters.frames.inc(1000)
    for _ in range(100):
        meters.step.labels("frame").observe(0.07)
    before = meters.read(at=10.0)
    meters.frames.inc(50)
    for _ in range(10):
        meters.step.labels("frame").observe(0.015)
    shown = rows(meters.read(at=12.0), before)
    assert shown["engine slots"] == "8"
    assert shown["chroma kv"] == "1.5 MiB"
    assert shown["chroma frames"] == "1,050  25/s"
    assert shown["chroma step frame"] == "p50 15.00 ms  p99 19.90 ms  of 10"
    assert not [title for title in shown if "created" in title]
    alone = rows(before, None)
    assert alone["chroma frames"] == "1,000"
    assert alone["chroma step frame"] == "p50 60.00 ms  p99 79.60 ms  of 100"


def test_an_engine_that_was_started_anew_began_at_zero() -> None:
    old, new = Meters(), Meters()
    old.frames.inc(1000)
    new.frames.inc(20)
    assert rows(new.read(at=2.0), old.read(at=1.0))["chroma frames"] == "20  20/s"


@pytest.fixture
def engine() -> Iterator[tuple[str, Meters]]:
    """Something that listens as an engine and as a cluster of it: its port, and what it measures."""
    meters = Meters()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            text = {
                "/metrics": meters.text(),
                "/v1/engines": f'{{"engines": [{{"url": "ws://127.0.0.1:{server.server_port}"}}]}}',
            }.get(self.path)
            self.send_response(200 if text else 404)
            self.end_headers()
            self.wfile.write((text or "").encode())

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"127.0.0.1:{server.server_port}", meters
    server.shutdown()
    thread.join()
    server.server_close()


def top(*argv: str) -> Result:
    return CliRunner().invoke(cli, ["engine", "top", "--once", *argv])


@pytest.mark.parametrize("scheme", ["ws", "http"])
def test_an_engine_and_a_clusters_engines_are_shown(engine: tuple[str, Meters], scheme: str) -> None:
    place, meters = engine
    meters.slots.set(5)
    shown = top(f"{scheme}://{place}")
    assert shown.exit_code == 0, shown.output
    assert f"ws://{place}" in shown.output
    line = next(line for line in shown.output.splitlines() if line.startswith("engine slots"))
    assert line.split()[-1] == "5"
    assert "queue" not in shown.output, "what it does not have is not there"


def test_the_engines_of_the_setting_are_shown(
    engine: tuple[str, Meters], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VOICEGATE_ENGINE_URL", f"ws://{engine[0]}")
    assert "engine slots" in top().output


async def test_each_look_is_compared_with_one_before(engine: tuple[str, Meters]) -> None:
    place, meters = f"ws://{engine[0]}", engine[1]
    watch = Watch(EngineClient(place), [place])
    assert (await watch.look())[place]["chroma frames"] == "0"
    meters.frames.inc(10)
    assert (await watch.look())[place]["chroma frames"].endswith("/s")


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ((), "no engine answers at"),
        (("--uds", "/nowhere"), "no engine answers at /nowhere"),
        (("ws://127.0.0.1:9",), "no engine answers at ws://127.0.0.1:9"),
        (("http://127.0.0.1:9",), "no engine is known at http://127.0.0.1:9"),
        (("http://192.0.2.1:8000",), "in the clear"),
        (("ws://127.0.0.1:9", "--uds", "/nowhere"), "either a URL or --uds"),
    ],
)
def test_where_there_is_no_engine_a_line_says_so(argv: tuple[str, ...], said: str) -> None:
    shown = top(*argv)
    assert shown.exit_code != 0
    assert said in shown.output
    assert isinstance(shown.exception, SystemExit), shown.exception


def test_it_needs_nothing_of_chromas(engine: tuple[str, Meters], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("model.chroma")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torch", None)
    assert top(f"ws://{engine[0]}").exit_code == 0
    shown = CliRunner().invoke(cli, ["engine", "--help"])
    assert "top" in shown.output
    assert "bench" not in shown.output
    assert remedy.install_with("chroma") in CliRunner().invoke(cli, ["engine", "bench"]).output
