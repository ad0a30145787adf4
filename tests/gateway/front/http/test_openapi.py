"""The description of the API is that of the code: its file, its routes, its rights, its shapes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.config.settings import Settings
from gateway.front.admission.rights import RIGHTS
from gateway.front.http.app import build_app
from gateway.front.http.boundary import OPEN_FOLDER, OPEN_PATHS
from gateway.front.http.openapi import description, text
from gateway.front.http.operations import OPERATIONS, PATH_PARAMETERS
from tests.gateway.front.http.test_app import TOKEN, FakeHouse

PAGES = ("/", "/house", "/login", "/logout", "/calls", "/calls/{call_id}")
FILE = Path(__file__).parents[4] / "docs" / "api" / "openapi.json"


def test_the_file_is_what_is_served() -> None:
    assert FILE.read_text() == text(), "run: python -m gateway.front.http.openapi > docs/api/openapi.json"


def test_every_route_of_the_api_is_an_operation_and_the_other_way_round() -> None:
    app = build_app(FakeHouse(), Settings(host="127.0.0.1"), TOKEN)
    served = {
        (route.path, method)
        for route in app.routes
        if isinstance(route, Route) and route.path not in PAGES
        for method in (route.methods or set()) - {"HEAD"}
    }
    assert served == {(one.path, one.method) for one in OPERATIONS if not one.is_door}
    assert len({one.name for one in OPERATIONS}) == len(OPERATIONS)


def test_a_door_below_the_api_is_one_of_the_table_or_the_front_does_not_start() -> None:
    async def serve(_: Request) -> Response:
        raise AssertionError("nobody comes here")

    for path in ("/api/anything", "/api/calls", "/api/"):
        with pytest.raises(KeyError):
            build_app(FakeHouse(), Settings(host="127.0.0.1"), TOKEN, [Route(path, serve)])


def test_every_operation_has_a_right_or_says_that_it_needs_none() -> None:
    for one in OPERATIONS:
        is_open = one.path in OPEN_PATHS or one.path.startswith(OPEN_FOLDER)
        assert (one.needs == "nothing") == is_open, one.name
        if one.method != "GET":
            assert one.needs in RIGHTS, f"{one.name} changes something"
        for parameter in re.findall(r"{(\w+)}", one.path):
            assert parameter in PATH_PARAMETERS


def test_it_points_at_nothing_that_is_not_there() -> None:
    told = description()

    def look(part: Any) -> None:
        if isinstance(part, dict):
            if "$ref" in part:
                where: Any = told
                for step in part["$ref"].removeprefix("#/").split("/"):
                    where = where[step]
            for one in part.values():
                look(one)
        elif isinstance(part, list):
            for one in part:
                look(one)

    look(told)
    assert told["openapi"].startswith("3.1")
    assert json.loads(text()) == told


@pytest.mark.parametrize("one", OPERATIONS, ids=lambda one: one.name)
def test_every_operation_tells_its_errors_as_problems(one: Any) -> None:
    answers = description()["paths"][one.path][one.method.lower()]["responses"]
    for status in one.refuses:
        assert str(status) in answers
    if one.needs != "nothing":
        assert {"401", "403", "429"} <= set(answers)
