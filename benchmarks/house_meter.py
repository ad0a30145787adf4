"""What a running house uses (/proc: CPU, memory, descriptors, ports), and how large its stores are."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final

from redis import Redis

from gateway.config.runtime import runtime_for
from tests.e2e.gateway_process import House

TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")
DATABASE: Final = ("voicegate.db", "voicegate.db-wal")


def cpu_s(pid: int) -> float:
    """CPU-seconds of a process so far; NaN when it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except FileNotFoundError:
        return math.nan
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


def _rollup_kb(pid: int, name: str) -> float:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith(f"{name}:"):
                return float(line.split()[1])
    return math.nan


def pss_mb(pid: int) -> float:
    """Memory of a process, of what it shares its part; NaN when it is gone."""
    return _rollup_kb(pid, "Pss") / 1024


def pss_anon_kb(pid: int) -> float:
    """The part of that which no file is behind, where leaks are; NaN when the process is gone.

    The rest, libraries, weighs less in each process when others on the machine begin to use them too.
    """
    return _rollup_kb(pid, "Pss_Anon")


def descriptors(pid: int) -> list[str]:
    """What each of a process's descriptors is: a path, `socket:[inode]`, …; none when it is gone."""
    found = []
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for each in os.scandir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):  # closed since
                found.append(os.readlink(each.path))
    return found


def udp_ports(pids: Iterable[int]) -> int:
    """UDP sockets that are bound in these processes; one that they share counts once."""
    mine = {name for pid in pids for name in descriptors(pid) if name.startswith("socket:")}
    lines = [
        line.split()
        for table in ("/proc/net/udp", "/proc/net/udp6")
        if Path(table).exists()
        for line in Path(table).read_text().splitlines()[1:]
    ]
    return sum(f"socket:[{fields[9]}]" in mine for fields in lines)


def redis_kb(house: House) -> float:
    """What the embedded Redis holds in memory."""
    redis = Redis(unix_socket_path=str(runtime_for(house.folder / "data").redis))
    try:
        told: Any = redis.info("memory")
        return float(told["used_memory"]) / 1024
    finally:
        redis.close()


def sql_kb(house: House) -> float:
    """The SQLite file and its journal."""
    paths = [house.folder / "data" / name for name in DATABASE]
    return sum(path.stat().st_size for path in paths if path.exists()) / 1024


def log_kb(house: House) -> float:
    return house.log_path.stat().st_size / 1024


class Meter:
    """CPU and memory of a house by part; "engine" is one part, "gateway" all the rest."""

    def __init__(self, house: House) -> None:
        assert house.process is not None
        pids = house.pids() | {"supervisor": house.process.pid}
        self._pids = pids

    def _sum(self, what: Callable[[int], float]) -> dict[str, float]:
        parts: dict[str, float] = {}
        for name, pid in self._pids.items():
            kind = "lines" if name.startswith("sip") else name
            parts[kind] = parts.get(kind, 0.0) + what(pid)
        parts["gateway"] = sum(value for kind, value in parts.items() if kind != "engine")
        return parts

    def cpu(self) -> dict[str, float]:
        return self._sum(cpu_s)

    def memory(self) -> dict[str, float]:
        return self._sum(pss_mb)
