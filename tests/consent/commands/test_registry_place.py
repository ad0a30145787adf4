"""Where commands look for the registry of calls, when consent has a database of its own and when not."""

from __future__ import annotations

import click
import pytest
from click.testing import CliRunner

from consent.commands.house import CONSENT_SQL_URL, SQL_URL, House, in_house


@click.command()
@in_house
def told(house: House) -> None:
    click.echo(f"{house.sql_url} {house.calls_url}")


@pytest.mark.parametrize(
    ("consent", "calls", "argv", "said"),
    [
        (None, None, [], "sqlite:////d/voicegate.db sqlite:////d/voicegate.db"),
        (None, "sqlite:///g", [], "sqlite:///g sqlite:///g"),
        (None, "sqlite:///g", ["--sql", "sqlite:///x"], "sqlite:///x sqlite:///x"),
        ("sqlite:///c", "sqlite:///g", [], "sqlite:///c sqlite:///g"),
        ("sqlite:///c", None, [], "sqlite:///c sqlite:////d/voicegate.db"),
    ],
)
def test_the_registry_stays_with_the_gateway(
    monkeypatch: pytest.MonkeyPatch, consent: str | None, calls: str | None, argv: list[str], said: str
) -> None:
    for name, url in ((CONSENT_SQL_URL, consent), (SQL_URL, calls)):
        monkeypatch.delenv(name, raising=False)
        if url is not None:
            monkeypatch.setenv(name, url)
    done = CliRunner().invoke(told, ["--data-dir", "/d", *argv])
    assert done.output.strip() == said
