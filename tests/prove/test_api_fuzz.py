"""Two minutes of what nobody would ask, by the description of the API: no 500, and no answer beside it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.gateway_process import House

pytestmark = pytest.mark.prove

FUZZED_S = 120
CHECKS = "not_a_server_error,content_type_conformance,response_schema_conformance,status_code_conformance"
TRIED = re.compile(r"(\d+) generated, (\d+) passed")


@pytest.mark.long("fuzzes for two minutes")
def test_whatever_is_asked_the_api_answers_as_it_says(tmp_path: Path) -> None:
    program = Path(sys.executable).with_name("schemathesis")
    assert program.exists(), "pip install '.[prove]'"
    house = House(tmp_path / "house")
    house.folder.mkdir()
    house.start()
    try:
        token = house.bearer["Authorization"]
        config = tmp_path / "schemathesis.toml"  # no secret in argv
        config.touch(0o600)
        config.write_text(f'headers = {{ Authorization = "{token}" }}\n')
        found = []
        # a stream has no end, the fuzzer cannot write ICE fragments, and an offer that could be one takes
        # seconds: the places for calls are tried by the first phase alone
        beside = ["reload", "check_plans", "follow_events", "trickle"]
        for phase, names in (("coverage", beside), ("fuzzing", [*beside, "place_call"])):
            left_out = [word for name in names for word in ("--exclude-operation-id", name)]
            asked = [
                program, "--config-file", config, "run", f"{house.url}/api/openapi.json", "--phases", phase,
                "--checks", CHECKS, "--max-time", str(FUZZED_S // 2), "--seed", "1",
                *left_out,
            ]  # fmt: skip
            done = subprocess.run(asked, cwd=tmp_path, capture_output=True, text=True, timeout=FUZZED_S + 60)
            assert done.returncode == 0, done.stdout[-6000:]
            found.append(TRIED.search(done.stdout))
        assert all(one is not None and one[1] == one[2] for one in found)
        assert house.events("http.failed") == []
        assert house.ready()
    finally:
        house.stop()
