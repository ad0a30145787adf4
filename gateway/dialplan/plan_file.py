"""A route as it was read, and where: what is wrong with it is said with file and line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NoReturn

from gateway.dialplan import toml_lines
from gateway.dialplan.plan_text import PlanFile
from gateway.dialplan.routes import Route


@dataclass(frozen=True, slots=True)
class Loaded:
    """A route and where it was read, before the routes know each other."""

    route: Route
    source: PlanFile
    path: toml_lines.Path

    def fail(self, path: toml_lines.Path, message: str) -> NoReturn:
        """Raises `DialplanError` about the key at `path` within this route."""
        self.source.fail((*self.path, *path), f"route {self.route.name!r}: {message}")
