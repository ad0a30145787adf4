"""The GPU's kernels, proved without one."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys

import pytest

from tests.needs import missing


@pytest.mark.long("every kernel, and whole steps, by Triton's interpreter under guards")
def test_kernels_say_what_plain_torch_says() -> None:
    if importlib.util.find_spec("triton") is None:
        missing("triton is not installed, so no kernel is proved: pip install triton==3.9.0 (1 GB)")
    done = subprocess.run(
        [sys.executable, "-m", "tests.model.chroma.kernels.guarded"],
        env={**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
