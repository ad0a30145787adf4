"""A call keeps the plan that it began with, also under a front that was restarted beside other plans."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from consent.errors import GrantRefused
from gateway.dialplan import Dialplan
from gateway.front.admission import kept_plans
from gateway.front.admission.kept_plans import KeptPlans
from gateway.front.admission.routing import Routing
from gateway.ipc.hall_messages import LiveCall
from tests.full_disk import full_disk
from tests.gateway.front.admission.test_routing import KEY, PLAN, Desk

OTHER = PLAN.replace('"night"', '"late"').replace("sip:100@", "sip:200@")


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    opened = Desk(tmp_path)
    yield opened
    opened.registry.close()


def restarted(desk: Desk, kept: KeptPlans, folder: Path) -> Routing:
    """Beside other plans."""
    (folder / "plans" / "10.toml").write_text(OTHER)
    plan = Dialplan.load(folder / "plans")
    kept.keep(plan)
    return Routing(plan, desk.office, desk.registry, KEY, stock_only=False, plans=kept.all())  # type: ignore[arg-type]


async def test_it_does_with_all_branches_and_targets(desk: Desk, tmp_path: Path) -> None:
    call = await desk.offer("demo")
    live = LiveCall(call.call_id, call.route, 0.0, "confirmed", desk.plan.version, "demo")
    kept = KeptPlans(tmp_path / "kept")
    kept.keep(desk.plan)
    routing = restarted(desk, kept, tmp_path)
    assert routing.dialplan.version != desk.plan.version
    routing.adopt((live,), "hall0")
    assert (await routing.follow(call.call_id, "night")).token
    assert (await routing.follow(call.call_id, "demo")).token, "and back, as the hall may"
    with pytest.raises(GrantRefused):
        await routing.follow(call.call_id, "late")
    assert routing.plan_of(desk.plan.version) == desk.plan
    assert routing.calls[call.call_id].plan == desk.plan


@pytest.mark.parametrize(
    ("version", "begun"), [("0123456789ab", "demo"), ("", ""), (None, "no such route")], ids=range(3)
)
async def test_of_a_plan_that_is_not_kept_a_call_follows_what_both_have(
    desk: Desk, tmp_path: Path, version: str | None, begun: str
) -> None:
    call = await desk.offer("demo")
    kept = KeptPlans(tmp_path / "kept")
    kept.keep(desk.plan)
    routing = restarted(desk, kept, tmp_path)
    version = desk.plan.version if version is None else version
    routing.adopt((LiveCall(call.call_id, call.route, 0.0, "confirmed", version, begun),), "hall0")
    assert (await routing.follow(call.call_id, "demo")).token
    with pytest.raises(GrantRefused):
        await routing.follow(call.call_id, "night")


def test_what_is_kept_is_the_plan_itself_for_its_owner_alone(tmp_path: Path) -> None:
    (tmp_path / "plans").mkdir()
    for file in (Path(__file__).parents[4] / "dialplans").glob("*.toml"):
        (tmp_path / "plans" / file.name).write_text(file.read_text())
    (tmp_path / "plans" / "30.toml").write_text(PLAN.replace('"demo"', '"other"'))
    plan = Dialplan.load(tmp_path / "plans")
    kept = KeptPlans(tmp_path / "kept")
    kept.keep(plan)
    assert kept.all() == {plan.version: plan}
    (file,) = (tmp_path / "kept").iterdir()
    assert (file.stat().st_mode & 0o777, file.parent.stat().st_mode & 0o777) == (0o600, 0o700)


def test_the_newest_few_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_plans, "MOST", 3)
    (tmp_path / "plans").mkdir()
    kept, versions = KeptPlans(tmp_path / "kept"), []
    for k in (0, 1, 2, 3, 1):
        (tmp_path / "plans" / "10.toml").write_text(f"{PLAN}# {k}\n")
        plan = Dialplan.load(tmp_path / "plans")
        versions.append(plan.version)
        kept.keep(plan)
    assert list(kept.all()) == versions[2:], "one that comes back is new again"


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "{}", '{"format": 2}', '{"format": 1, "routes": [{}], "targets": {}}', "[" * 100_000],
    ids=range(7),
)
def test_what_cannot_be_read_is_left_out_and_said(tmp_path: Path, text: str) -> None:
    (tmp_path / "0123456789ab.json").write_text(text)
    (tmp_path / "0123456789ab.new").write_text("of a front that died")
    with capture_logs() as lines:
        assert KeptPlans(tmp_path).all() == {}
    assert [line["event"] for line in lines] == ["plan.not_read"]


def test_a_full_disk_keeps_no_plan_from_being_taken(tmp_path: Path) -> None:
    (tmp_path / "plans").mkdir()
    (tmp_path / "plans" / "10.toml").write_text(PLAN)
    plan = Dialplan.load(tmp_path / "plans")
    with capture_logs() as lines, full_disk():
        KeptPlans(tmp_path / "kept").keep(plan)
    assert [line["event"] for line in lines] == ["plan.not_kept"]
    assert KeptPlans(tmp_path / "kept").all() == {}
