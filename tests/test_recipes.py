"""`docs/trunks/`: what a recipe says was run is what was run, and each recipe's trunk can be read."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gateway.edge.trunks.trunk_file import read_trunks
from tests.e2e import kamailio, kamailio_edge
from tests.gateway.edge.authority import Authority

ROOT = Path(__file__).parents[1]
RECIPES = sorted(path for path in (ROOT / "docs" / "trunks").glob("*.md") if path.stem != "README")
FILLED = {
    "PASSWORD": "{password}",
    "CHAIN": "{chain}",
    "KEY": "{key}",
    "AUTHORITIES": "{ca}",
    "SHA-256": "{algorithm}",
    "sip:GATEWAY": "sip:127.0.0.1:{gateway_port};transport={transport}",
    "udp:RELAY": "udp:127.0.0.1:{rtpengine_port}",
}
"""What a reader puts in, and what the tests do."""


def lines(section: str) -> list[str]:
    """What a section of Kamailio's recipe has as configuration, line by line."""
    text = (ROOT / "docs" / "trunks" / "kamailio.md").read_text().partition(f"## {section}\n")[2]
    found = re.findall(r"^    (.+)$", text.partition("\n## ")[0], re.MULTILINE)
    return [line.partition("    #")[0].strip() for line in found]


def started(source: str) -> str:
    """A configuration as its module writes it, with the braces of a template taken away."""
    return source.replace("{{", "{").replace("}}", "}")


@pytest.mark.parametrize(
    ("section", "module"),
    [
        ("As a trunk", kamailio),
        ("With certificates on both sides", kamailio),
        ("Before the gateway", kamailio_edge),
        ("With rtpengine", kamailio_edge),
    ],
)
def test_kamailio_is_started_as_its_recipe_says(section: str, module: object) -> None:
    ran = started(Path(str(module.__file__)).read_text())  # type: ignore[attr-defined]
    said = lines(section)
    assert len(said) > 4
    for line in said:
        for word, filled in FILLED.items():
            line = line.replace(word, filled)
        if "rtpengine_offer" in line:  # each case of tests/e2e/test_rtpengine.py has words of its own
            line = "rtpengine_offer("
        assert line in ran, line


def test_the_relay_is_told_what_its_recipe_says() -> None:
    rows = re.findall(r"^\| .+ \| .+ \| `(RTP/.+)` \|$", (ROOT / "docs/trunks/kamailio.md").read_text(), re.M)
    assert len(rows) == 4
    ran = (ROOT / "tests" / "e2e" / "test_rtpengine.py").read_text()
    for row in rows:
        assert row.replace("replace-origin ICE=remove", "{USUAL}") in ran, row


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_each_recipes_trunk_is_read(recipe: Path, tmp_path: Path) -> None:
    for number, block in enumerate(re.findall(r"```toml\n(.*?)```", recipe.read_text(), re.DOTALL)):
        if "[[trunk]]" not in block:
            continue
        for secret in re.findall(r'password_file = "(.+?)"', block):
            (tmp_path / secret).write_text("geheim\n")
            (tmp_path / secret).chmod(0o600)
        authority = Authority(tmp_path, "carrier-ca")  # the name that recipes have for it
        authority.sign("us.example", to="us")
        file = tmp_path / f"{number}.toml"
        file.write_text(block)
        assert len(read_trunks(file)) == 1


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_each_recipe_says_whether_it_was_run(recipe: Path) -> None:
    first = " ".join(recipe.read_text().split("\n\n")[1].split())
    assert first.startswith(("This recipe is run: `tests/", "This recipe was not run")), first
    assert "was not run" not in first or "https://" in first, "the vendor's page is cited"
