"""What alert rules and the dashboard ask Prometheus for is what `/metrics` says, and each says what to do."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from gateway.front.house.metrics import ALARMS, EDGE_HOLDS, HALL_COUNTERS, Metrics
from gateway.front.http.boundary import WHY
from gateway.hall.calls.load_gauge import LoadGauge
from gateway.hall.calls.pass_times import PassTimes
from gateway.ipc.ending import Party
from gateway.ipc.front_messages import TrunkState
from gateway.ipc.hall_messages import CallRated, HallHealth, WayRated

DEPLOY = Path(__file__).resolve().parents[1] / "deploy"
RULES = DEPLOY / "prometheus" / "voicegate.rules.yml"
BOARD = DEPLOY / "grafana" / "voicegate.json"
OF_PROMETHEUS = {"up": {"job", "instance"}}
TARGETS = {"job", "instance"}
"""Labels that Prometheus gives to whatever it scrapes."""
WORDS = {
    "sum", "min", "max", "count", "by", "rate", "increase", "histogram_quantile", "and", "or", "unless",
    "offset", "label_values",
}  # fmt: skip
"""Of the query language, what these files use."""
LEAST = 20
"""Letters of a description that can say what to do."""


@cache
def shown() -> dict[str, set[str]]:
    """The names in `/metrics` of a house that has one of everything, each with its labels."""
    metrics = Metrics()
    metrics.call_ended("hung up", lasted_s=1.0)
    metrics.turn({"whole": 0.5})
    way = WayRated(4.2, 0.0, 0.01)
    metrics.call_rated(CallRated("c1", way, way, 0.1))
    metrics.refused(503, "udp")
    metrics.web_refused("lines busy")
    metrics.http_refused("token")
    metrics.grant_refused("revoked")
    metrics.rtp_moved("followed")
    gauge = LoadGauge(PassTimes(), {}, lambda: 0.0, {}, time)
    counters = {**dict.fromkeys(HALL_COUNTERS, 1.0), **gauge.snapshot(), "poor_calls": 0.0}
    sessions = {"living": 1, "waiting": 0, "lost": 0}
    metrics.hall("hall0", HallHealth(counters=counters, sessions=sessions, task_failures={"hall.judge": 1}))
    metrics.memory({"front": 1})
    metrics.front(
        calls=1,
        lines=2,
        web_lines=1,
        web_slots=(8, 7),
        edge={"slots_free": 3, "refused": {"503": 1}},
        feeds={"hall0": {"in_doubt": 0.0, "forged": 0.0}},
        trunks=[TrunkState("out", None, None, answers={"200": 1}, not_let_out={"rate": 1})],
        receivers={"crm": (1, 0)},
    )
    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(metrics.expose().decode()):
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


def rules() -> Iterator[dict[str, Any]]:
    for group in yaml.safe_load(RULES.read_text())["groups"]:
        assert set(group) == {"name", "rules"}
        yield from group["rules"]


def queries() -> dict[str, str]:
    """Every query of both files, by where it stands."""
    board = json.loads(BOARD.read_text())
    found = {f"rule {rule['alert']}": rule["expr"] for rule in rules()}
    for panel in board["panels"]:
        for target in panel["targets"]:
            found[f"panel {panel['title']} {target['refId']}"] = target["expr"]
    for variable in board["templating"]["list"]:
        if variable["type"] == "query":
            found[f"variable {variable['name']}"] = variable["query"]
    return found


def wrong_in(query: str) -> list[str]:
    """What the query names and no gateway has; and brackets that do not close."""
    wrong = [] if balanced(re.sub(r'"[^"]*"', "", query)) else ["brackets"]
    had: set[str] = set()
    for name, matchers in re.findall(r"([a-z_][a-z0-9_]*)\s*(\{[^}]*\})?", _without_words(query)):
        labels = OF_PROMETHEUS.get(name, shown().get(name))
        if labels is None:
            wrong.append(name)
            continue
        labels = labels | TARGETS
        had |= labels
        named = re.findall(r'([a-z_]+)\s*(?:=~|!~|!=|=)\s*"', matchers)
        wrong += [f"{name}{{{label}}}" for label in named if label not in labels]
    for group in re.findall(r"\bby\s*\(([^)]*)\)", query):
        wrong += [f"by {label}" for label in re.split(r"\s*,\s*", group.strip()) if label not in had]
    return wrong


def _without_words(query: str) -> str:
    """Names of metrics with their matchers, and nothing else that could be taken for one."""
    bare = re.sub(r"\bby\s*\([^)]*\)", " ", query)
    bare = re.sub(r"\[[0-9]+[smhd]\]|\boffset\s+[0-9]+[smhd]", " ", bare)
    bare = re.sub(r"label_values\(([^,]*),[^)]*\)", r"\1", bare)
    return re.sub(rf"\b(?:{'|'.join(sorted(WORDS))})\b", " ", bare)


def balanced(text: str) -> bool:
    """Whether each bracket closes."""
    open_ones = []
    pairs = {")": "(", "]": "[", "}": "{"}
    for letter in text:
        if letter in pairs.values():
            open_ones.append(letter)
        elif letter in pairs and (not open_ones or open_ones.pop() != pairs[letter]):
            return False
    return not open_ones


def test_each_query_names_what_the_metrics_have() -> None:
    assert {place: wrong for place, query in queries().items() if (wrong := wrong_in(query))} == {}


@pytest.mark.parametrize(
    ("query", "wrong"),
    [
        ("rate(voicegate_cals_total[5m])", ["voicegate_cals_total"]),
        ('voicegate_calls_total{why="failed"}', ["voicegate_calls_total{why}"]),
        ("sum by (status) (voicegate_calls_total)", ["by status"]),
        ("sum(voicegate_turns_total", ["brackets"]),
        ("label_values(voicegate_lives, instance)", ["voicegate_lives"]),
        ('sum by (how, instance) (increase(voicegate_calls_total{job="x"}[1h])) > 0', []),
    ],
    ids=["name", "matcher", "by", "brackets", "variable", "sound"],
)
def test_what_is_not_there_is_noticed(query: str, wrong: list[str]) -> None:
    assert wrong_in(query) == wrong


def test_values_that_rules_look_for_are_ones_that_are_counted() -> None:
    known = {
        "kind": set(ALARMS),
        "how": {party.value for party in Party},
        "why": set(WHY.values()),
        "what": {"forged", "lost", "waiting", "slots_free"} & (EDGE_HOLDS | {"forged", "lost", "waiting"}),
    }
    for place, query in queries().items():
        for label, values in known.items():
            for asked in re.findall(rf'[{{,]{label}=~?"([^"]*)"', query):
                assert set(asked.split("|")) <= values, place


def test_each_rule_has_its_parts_and_says_what_to_do() -> None:
    names = [rule["alert"] for rule in rules()]
    assert len(names) == len(set(names))
    for rule in rules():
        assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}, rule["alert"]
        assert re.fullmatch(r"Voicegate[A-Z][A-Za-z]+", rule["alert"])
        assert re.fullmatch(r"[0-9]+[smh]", rule.get("for", "0s"))
        assert rule["labels"]["severity"] in ("page", "ticket")
        assert set(rule["annotations"]) == {"summary", "description"}
        assert len(rule["annotations"]["description"]) > LEAST
        had = set().union(*(shown().get(name, set()) for name in shown() if name in rule["expr"])) | TARGETS
        used = re.findall(r"\$labels\.([a-z_]+)", " ".join(rule["annotations"].values()))
        assert set(used) <= had, rule["alert"]


def test_each_panel_says_what_to_do_and_none_lies_on_another() -> None:
    board = json.loads(BOARD.read_text())
    taken: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        assert len(panel["description"]) > LEAST, panel["title"]
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= 24
        taken |= cells
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
