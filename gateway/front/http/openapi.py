"""The API described by OpenAPI 3.1, from the table of operations; `docs/api/openapi.json` is kept by it.

python -m gateway.front.http.openapi > docs/api/openapi.json
"""

from __future__ import annotations

import json
import re
from functools import cache
from http import HTTPStatus
from typing import Any, Final

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from gateway.front.admission.rights import RIGHTS, ROLES
from gateway.front.http.api_shapes import Problem
from gateway.front.http.operations import OPERATIONS, PATH_PARAMETERS, Operation
from gateway.front.http.problems import PROBLEM
from model import __version__

ANY_REQUEST: Final = (403, 413, 421, 500)
"""Problems that any request may meet: another page's, too large, asked for by a strange name, our fault."""
WITH_TOKEN: Final = (401, 429, 503)
"""Those of a request that shows who asks: nobody, too many wrong tokens, whose it is cannot be looked up."""
ABOUT: Final = (
    "Calls, and who may do what with them. A token (`voicegate token add`) has one role, a named set of "
    "rights; each operation names the right that it needs. While the gateway is bound to loopback, "
    "`calls.read` needs no token there. An error is a problem (RFC 9457)."
)


@cache
def description() -> dict[str, Any]:
    """The document."""
    shapes = {shape for one in OPERATIONS for shape in (one.takes, one.gives) if shape} | {Problem}
    ordered = sorted(shapes, key=lambda shape: shape.__name__)
    _, schemas = models_json_schema(
        [(shape, "validation") for shape in ordered], ref_template="#/components/schemas/{model}"
    )
    paths: dict[str, Any] = {}
    for one in OPERATIONS:
        paths.setdefault(one.path, {})[one.method.lower()] = _operation(one)
    return {
        "openapi": "3.1.0",
        "info": {"title": "voicegate", "version": __version__, "description": ABOUT},
        "paths": paths,
        "components": {
            "schemas": schemas["$defs"],
            "responses": {str(status): _problem(status) for status in sorted(_statuses())},
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "x-rights": list(RIGHTS),
        "x-roles": {role: sorted(rights) for role, rights in ROLES.items()},
    }


def _statuses() -> set[int]:
    return {*ANY_REQUEST, *WITH_TOKEN, *(status for one in OPERATIONS for status in one.refuses)}


def _operation(one: Operation) -> dict[str, Any]:
    statuses = sorted({*one.refuses, *ANY_REQUEST, *(() if one.needs == "nothing" else WITH_TOKEN)})
    told: dict[str, Any] = {
        "operationId": one.name,
        "summary": one.does,
        "x-right": one.needs,
        "security": [] if one.needs == "nothing" else [{"token": []}],
        "responses": {
            str(one.status): _answer(one),
            **{str(status): {"$ref": f"#/components/responses/{status}"} for status in statuses},
        },
    }
    if one.name == "ready":
        told["responses"]["503"] = _answer(one)
    if one.name == "trickle":
        fragment = {one.takes_also[0]: {"schema": {"type": "string"}}}
        told["responses"]["200"] = {"description": "OK", "content": fragment}
    parameters = [
        {
            "name": name, "in": "path", "required": True, "description": PATH_PARAMETERS[name][0],
            "schema": PATH_PARAMETERS[name][1],
        }
        for name in re.findall(r"{(\w+)}", one.path)
    ]  # fmt: skip
    parameters += [
        {"name": name, "in": "query", "description": what, "schema": schema}
        for name, what, schema in one.query
    ]
    if one.asks is not None:
        asked = one.asks.model_json_schema()["properties"]
        parameters += [{"name": name, "in": "query", "schema": asked[name]} for name in asked]
    parameters += [
        {"name": name, "in": "header", "required": True, "description": what, "schema": {"type": "string"}}
        for name, what in one.headers
    ]
    if parameters:
        told["parameters"] = parameters
    takes = {"application/json": {"schema": _ref(one.takes)}} if one.takes else {}
    takes |= {kind: {"schema": {"type": "string"}} for kind in one.takes_also}
    if takes:
        told["requestBody"] = {"required": True, "content": takes}
    return told


def _answer(one: Operation) -> dict[str, Any]:
    content = {"application/json": {"schema": _ref(one.gives)}} if one.gives else {}
    content |= {kind: {"schema": {"type": "string"}} for kind in one.gives_also}
    told: dict[str, Any] = {"description": HTTPStatus(one.status).phrase}
    return {**told, "content": content} if content else told


def _problem(status: int) -> dict[str, Any]:
    return {"description": HTTPStatus(status).phrase, "content": {PROBLEM: {"schema": _ref(Problem)}}}


def _ref(shape: type[BaseModel]) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{shape.__name__}"}


def text() -> str:
    """The document as the file has it."""
    return json.dumps(description(), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    print(text(), end="")
