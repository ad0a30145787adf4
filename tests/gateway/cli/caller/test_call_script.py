"""Callers' scripts: what each line does, and what is said of a line that is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.cli.caller.call_script import CallerAct, in_turn, load_script, parse_script
from gateway.errors import CallerError

HERE = Path(__file__).parent


def acts(text: str, folder: Path = HERE) -> list[tuple[str, str | float]]:
    """(act, what with)"""
    made = parse_script(text, "s.txt", folder)
    return [
        (act.act, act.words or act.keys or (act.sound.name if act.sound else act.seconds)) for act in made
    ]


def test_every_line_does_what_it_says(tmp_path: Path) -> None:
    (tmp_path / "a question.wav").touch()
    text = """
        # a caller
        listen            # until they are quiet
        Play "a question.wav"
        say what are your opening hours?
        say 'press # if you like'
        press 12*#
        wait 1.5          # thinks
        at 20
        interrupt
        interrupt .5
        hold 3
        hang up           # and goes
    """
    assert acts(text, tmp_path) == [
        ("listen", 0.0),
        ("play", "a question.wav"),
        ("say", "what are your opening hours?"),
        ("say", "press # if you like"),
        ("press", "12*#"),
        ("wait", 1.5),
        ("at", 20.0),
        ("interrupt", 1.0),
        ("interrupt", 0.5),
        ("hold", 3.0),
        ("hang up", 0.0),
    ]


def test_what_is_repeated_is_done_so_often_and_repeats_may_stand_in_repeats() -> None:
    text = "repeat 2\nsay a\nrepeat 3\npress 1\nend\nend\nhang up"
    said = [what for _, what in acts(text)]
    assert said == ["a", "1", "1", "1", "a", "1", "1", "1", 0.0]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("listen\npres 1", r"s\.txt, line 2: 'pres' is not a step; did you mean `press KEYS`\?"),
        ("sing", r"line 1: 'sing' is not a step; .*a line is one of: listen, play FILE\.wav, "),
        ("hang", r"line 1: 'hang' is not a step; did you mean `hang up`\?"),
        ("\n\nplay no.wav", r"line 3: .*no\.wav does not exist; a sound is sought beside the script"),
        ("play", r"line 1: `play` says too little; write `play FILE\.wav`"),
        ("press 12x", r"line 1: '12x' are not keys of a telephone: 0-9, \*, #, A-D"),
        ("wait long", r"line 1: 'long' is not a number of seconds from 0 to 3600; .*`wait 2\.5`"),
        ("wait nan", r"line 1: 'nan' is not a number of seconds"),
        ("hold 0.2", r"line 1: '0\.2' is not a number of seconds from 1 to 600"),
        ("listen 5", r"line 1: nothing stands after `listen`, and here is '5'; take it away"),
        ("hang up now", r"line 1: nothing stands after `hang up`, and here is 'now'; take it away"),
        ("repeat\nlisten\nend", r"line 1: '' is not how often; write `repeat` with a number from 1 to 1000"),
        ("repeat 0\nlisten\nend", r"line 1: '0' is not how often"),
        ("listen\nend", r"line 2: there is nothing to end: no `repeat` stands before it"),
        ("listen\nrepeat 2\nlisten", r"line 2: this `repeat` has no `end`; write `end` after its last line"),
        ("repeat 1000\nrepeat 1000\nlisten\nend\nend", r"line 5: that makes more than 10,000 steps"),
        ("# nothing", r"s\.txt: nothing is done in this script; its lines are: listen, "),
    ],
)
def test_a_line_that_is_wrong_is_named_with_what_to_do(text: str, why: str) -> None:
    with pytest.raises(CallerError, match=why):
        parse_script(text, "s.txt", HERE)


def test_a_script_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(CallerError, match=r"cannot read the script .*no\.txt: No such file"):
        load_script(tmp_path / "no.txt")
    (tmp_path / "raw").write_bytes(b"\xff\xfe")
    with pytest.raises(CallerError, match="it is not UTF-8 text"):
        load_script(tmp_path / "raw")


def test_files_and_keys_wait_for_their_turn_and_acts_are_done_as_they_are() -> None:
    acts = in_turn([Path("a.wav"), CallerAct("wait", seconds=1), "12"])
    assert [act.act for act in acts] == ["listen", "play", "wait", "listen", "press"]
