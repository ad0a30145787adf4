"""A trunk that is out of service takes no new call either way, through restarts, until it is put back."""

from __future__ import annotations

from pathlib import Path

import pytest
from structlog.testing import capture_logs

from gateway.edge.router import Refuse
from gateway.front.admission.trunks_out import NoSuchTrunk, TrunksOut
from gateway.ipc.front_messages import TrunkState
from tests.full_disk import full_disk

STATES = [TrunkState("carrier", None, True), TrunkState("pbx", "it does not answer", None)]


def house(folder: Path, states: list[TrunkState] = STATES) -> TrunksOut:
    return TrunksOut(folder / "trunks_out.json", lambda: states)


async def test_it_stays_out_until_it_is_put_back(tmp_path: Path) -> None:
    trunks = house(tmp_path)
    assert trunks.refusal("carrier") is None
    with capture_logs() as lines:
        await trunks.take_out("carrier", "fraud", "anna")
    assert [(line["event"], line["by"], line["why"]) for line in lines] == [
        ("trunk.taken_out", "anna", "fraud")
    ]
    for again in (trunks, house(tmp_path)):
        assert again.refusal("carrier") == Refuse(503, "the trunk carrier is out of service", 300)
        assert again.refusal("pbx") is None
        assert again.refusal(None) is None
        carrier, pbx = again.states()
        assert carrier.out is not None
        assert (carrier.out.by, carrier.out.why, carrier.why, pbx.out) == ("anna", "fraud", None, None)
    assert (tmp_path / "trunks_out.json").stat().st_mode & 0o777 == 0o600
    await trunks.put_back("carrier", "anna")
    await trunks.put_back("carrier", "anna")
    for again in (trunks, house(tmp_path)):
        assert again.refusal("carrier") is None


async def test_one_that_is_not_there_cannot_be_taken_out_and_is_forgotten(tmp_path: Path) -> None:
    trunks = house(tmp_path)
    with pytest.raises(NoSuchTrunk, match="moon"):
        await trunks.take_out("moon", "", "anna")
    with pytest.raises(NoSuchTrunk):
        await trunks.put_back("moon", "anna")
    await trunks.take_out("pbx", "", "anna")
    later = house(tmp_path, STATES[:1])
    await later.take_out("carrier", "", "anna")
    assert house(tmp_path).refusal("pbx") is None, "a reload took it away meanwhile"


async def test_a_full_disk_changes_nothing(tmp_path: Path) -> None:
    trunks = house(tmp_path)
    await trunks.take_out("pbx", "", "anna")
    with full_disk(), pytest.raises(OSError):  # noqa: PT011  # as the system says it
        await trunks.take_out("carrier", "", "anna")
    for again in (trunks, house(tmp_path)):
        assert [state.name for state in again.states() if state.out] == ["pbx"]


@pytest.mark.parametrize(
    "text", ["", "[]", '{"carrier": {"since": "x", "by": "", "why": ""}}', "{"], ids=range(4)
)
def test_a_file_that_cannot_be_read_ends_no_front(tmp_path: Path, text: str) -> None:
    (tmp_path / "trunks_out.json").write_text(text)
    with capture_logs() as lines:
        assert house(tmp_path).refusal("carrier") is None
    assert [line["event"] for line in lines] == ["trunks_out.not_read"]
