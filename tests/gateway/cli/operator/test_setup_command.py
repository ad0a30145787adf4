"""`voicegate setup`: what is answered becomes a plan that loads, and nothing of anybody's is lost."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from click.testing import CliRunner, Result

from gateway.cli.main import cli
from gateway.cli.operator.first_plan import FirstPlan, read_hours, said_hours
from gateway.config.settings import load
from gateway.dialplan import Dialplan
from gateway.dialplan.verbs import Converse, Disclose

pytestmark = pytest.mark.usefixtures("own_house")

ANSWERS = ("Müller & Söhne", "+49 30 1234567, demo", "mon-fri 9-18, sat,sun 10:30 to 14:15",
           'at "3" Main \\ Street \U0001f600', "sip:100@10.0.0.5", "yes")  # fmt: skip


def answered(*answers: str, arguments: tuple[str, ...] = ()) -> Result:
    return CliRunner().invoke(cli, ["setup", *arguments], input="".join(f"{one}\n" for one in answers))


def plan_file() -> Path:
    return load().data_dir / "dialplans" / "10-house.toml"


def test_six_answers_are_a_plan_that_loads() -> None:
    done = answered(*ANSWERS)
    assert done.exit_code == 0, done.output
    assert str(plan_file()) in done.output
    plan = Dialplan.load(plan_file().parent, spoken=frozenset({"en"}))
    assert plan.targets == {"person": "sip:100@10.0.0.5"}
    monday, night = (datetime(2026, 3, 2, hour, tzinfo=ZoneInfo("UTC")) for hour in (12, 22))
    house, _ = plan.explain(called="sip:+49301234567@x", at=monday)
    assert house is not None
    assert (house.name, house.keep.transcript) == ("house", True)
    told = next(verb for verb in house.do if isinstance(verb, Disclose))
    assert "Müller & Söhne. What you say is written down." in told.words(cloned=False)
    talk = next(verb for verb in house.do if isinstance(verb, Converse))
    assert talk.facts["address"] == ANSWERS[3]
    assert talk.facts["hours"].startswith("Monday to Friday from nine in the morning to six in the evening")
    assert talk.transfer == "person"
    closed, _ = plan.explain(called="demo", at=night)
    assert closed is not None
    assert closed.name == "message"
    assert "all well" in CliRunner().invoke(cli, ["dialplan", "check"]).output


def test_with_nothing_but_a_name_the_house_is_always_open_and_keeps_no_word() -> None:
    assert answered("Example Ltd", "", "", "", "", "").exit_code == 0
    plan = Dialplan.load(plan_file().parent)
    assert [route.name for route in plan.routes] == ["house"]
    assert not plan.routes[0].keep.transcript
    assert not plan.targets


def test_an_answer_that_cannot_be_meant_is_asked_for_again() -> None:
    done = answered(
        "the assistant", "", "Example Ltd", "112", "demo", "foo 9-18", "mon-fri 25-26", "mon-fri 9-18, ",
        "mon-fri 9-18", "{hours}", "", "nowhere at all", "", "maybe", "no",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    for said in ("names the machine itself", "no call for help", "'foo' are not days", "is not a time",
                 "are not hours", "leave out { and }", "is not an address", "say yes or no"):  # fmt: skip
        assert said in done.output
    assert "Traceback" not in done.output


def test_who_stops_in_the_middle_has_written_nothing() -> None:
    assert answered("Example Ltd", "demo").exit_code == 1
    assert not plan_file().parent.exists()


def test_no_plan_of_theirs_is_replaced(tmp_path: Path) -> None:
    assert answered(*ANSWERS).exit_code == 0
    before = plan_file().read_bytes()
    again = answered(*ANSWERS)
    assert again.exit_code == 1
    assert f"{plan_file()}: there is a dialplan already" in again.output
    assert plan_file().read_bytes() == before
    elsewhere = answered(*ANSWERS, arguments=("--folder", str(tmp_path / "plans")))
    assert f"voicegate dialplan check {tmp_path / 'plans'}" in elsewhere.output
    assert (tmp_path / "plans" / "10-house.toml").read_bytes() == before
    in_a_file = answered(arguments=("--folder", str(tmp_path / "plans" / "10-house.toml")))
    assert "this is a file; name a folder" in in_a_file.output


def test_where_words_leave_who_processes_them_is_asked_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VOICEGATE_ENGINE", "cascade")
    monkeypatch.setenv("VOICEGATE_LLM_URL", "https://llm.example.com/v1")
    monkeypatch.setenv("VOICEGATE_LLM_MODEL", "one")
    assert answered("Example Ltd", "", "", "", "", "", "our AI", "Example AI Ltd").exit_code == 0
    told = next(verb for verb in Dialplan.load(plan_file().parent).routes[0].do if isinstance(verb, Disclose))
    assert "Example AI Ltd" in told.words(cloned=False)


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("always", "at all times"),
        ("mon-sun 0:00-24:00", "every day around the clock"),
        ("fri 18-24", "Friday from six in the evening to midnight"),
        ("fri-mon 22-2", "Friday to Monday from ten in the evening to two in the morning"),
        (
            "Mon, Wed from 12 to 17:45; sat 9:20-13",
            "Monday and Wednesday from noon to 5:45 in the afternoon, "
            "and Saturday from 9:20 in the morning to one in the afternoon",
        ),
    ],
)
def test_hours_are_said_as_people_say_them(written: str, said: str) -> None:
    assert said_hours(read_hours(written)) == said
    FirstPlan(principal="Example Ltd", hours=read_hours(written)).text()
