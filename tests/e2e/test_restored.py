"""A whole gateway's data directory is put back as it was before a revocation: the house says so."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from redis import Redis

from consent.ledger.witness import HEADS
from tests.e2e.gateway_process import House
from tests.gateway.conftest import Valkey, valkey  # noqa: F401  # a fixture
from tests.needs import HANGS_S

pytestmark = pytest.mark.e2e


def command(house: House, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "gateway.cli", *words],
        env={**house.environ, "XDG_CONFIG_HOME": str(house.folder)},
        capture_output=True, text=True, timeout=HANGS_S, check=False,
    )  # fmt: skip


def added(house: House, name: str, role: str) -> None:
    path = house.folder / "passphrase"
    path.write_text("correct horse")
    done = command(house, "operator", "add", name, "--role", role, "--new-passphrase-from", str(path))
    assert done.returncode == 0, done.stderr


@pytest.mark.long("a gateway starts three times")
def test_a_house_that_was_put_back_knows_it_from_its_redis(tmp_path: Path, valkey: Valkey) -> None:  # noqa: F811
    house = House(tmp_path, redis_url=valkey.url)
    redis = Redis.from_url(valkey.url)
    house.start()
    house.wait_for("a head in Redis", lambda: redis.hlen(HEADS) == 1)
    added(house, "alice", "registrar")
    added(house, "carol", "auditor")
    house.stop()
    (before,) = redis.hvals(HEADS)
    shutil.copytree(tmp_path / "data", tmp_path / "copy")

    added(house, "bob", "reviewer")
    (after,) = redis.hvals(HEADS)
    assert after != before, "a command publishes what it has written, also where no gateway runs"
    house.start()
    assert "ledger" not in house.get("/readyz")
    house.stop()

    shutil.rmtree(tmp_path / "data")
    shutil.copytree(tmp_path / "copy", tmp_path / "data")
    house.start()
    house.wait_for("a doubt", lambda: house.get("/readyz").get("ledger") == "not as witnessed")
    assert house.ready(), "the stock voice goes on"
    assert house.events("ledger.unwitnessed")
    assert "an older copy was restored" in command(house, "doctor").stdout
    verified = command(house, "ledger", "verify")
    assert verified.returncode == 1
    assert "a signed head names row" in verified.stderr
    resumed = command(
        house, "ledger", "resume", "--reason", "the disk is lost", "--as", "carol",
        "--passphrase-from", str(tmp_path / "passphrase"),
    )  # fmt: skip
    assert resumed.returncode == 0, resumed.stderr
    assert "given up: all rows up to" in resumed.stdout
    house.wait_for("no doubt", lambda: "ledger" not in house.get("/readyz"))
    assert command(house, "ledger", "verify").returncode == 0
    house.stop()
    redis.close()


def test_the_time_is_said_by_an_auditor_from_the_command_line(tmp_path: Path) -> None:
    house = House(tmp_path)
    added(house, "carol", "auditor")
    sign = ("--as", "carol", "--passphrase-from", str(tmp_path / "passphrase"))
    wrong = command(house, "ledger", "clock", "--time", "2020-01-01T00:00", "--reason", "x", *sign)
    assert wrong.returncode == 1
    assert "set it right first, then say the time" in wrong.stderr
    now = subprocess.run(["date", "-u", "+%Y-%m-%dT%H:%M"], capture_output=True, text=True, check=True)
    done = command(house, "ledger", "clock", "--time", now.stdout.strip(), "--reason", "x", *sign)
    assert done.returncode == 0, done.stderr
    assert "the ledger goes on from" in done.stdout
    assert command(house, "ledger", "verify").returncode == 0
