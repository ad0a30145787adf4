"""A process that has settled keeps few objects that know each other, however many it has loaded."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

CALLS = """
import sys
from collections import deque
from model import heap

class Call:
    there = most = 0

    def __init__(self):
        self.part = [self]  # which knows it
        Call.there += 1
        Call.most = max(Call.most, Call.there)

    def __del__(self):
        Call.there -= 1

loaded = [[n] for n in range(1_000_000)]
if sys.argv[1] == "settled":
    heap.settle()
running = deque(maxlen=2_000)
for n in range(400_000):
    running.append(Call())
print(Call.most)
"""


def most_at_a_time(process: str) -> int:
    argv = [sys.executable, "-c", CALLS, process]
    return int(subprocess.run(argv, capture_output=True, text=True, check=True).stdout)


def test_a_process_that_has_settled_keeps_few_dead_objects() -> None:
    assert most_at_a_time("settled") < 30_000


def test_one_that_has_not_keeps_a_quarter_as_many_as_it_loaded() -> None:
    """What `settle` is for; the day that this fails, Python does by itself what it does."""
    assert most_at_a_time("as it was loaded") > 100_000


LIBRARIES = """
import hashlib, re, ssl, sqlite3
import numpy as np
from model import heap

def rss_kb():
    return int(re.search(r"Rss:\\s+(\\d+)", open("/proc/self/smaps_rollup").read())[1])

before = rss_kb()
heap.let_go_of_libraries()
gone = before - rss_kb()
assert (np.ones((50, 50)) @ np.ones((50, 50)) == 50).all()
assert sqlite3.connect(":memory:").execute("select 7").fetchone() == (7,)
assert hashlib.sha256(b"").hexdigest().startswith("e3b0c442")
ssl.create_default_context()
print(gone)
"""


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="/proc is Linux'")
def test_libraries_that_are_let_go_of_cost_nothing_and_work_on() -> None:
    done = subprocess.run([sys.executable, "-c", LIBRARIES], capture_output=True, text=True, check=True)
    assert int(done.stdout) > 4_000
