"""What docs and docstrings name exists: files, modules and what is in them, commands, settings, targets."""

from __future__ import annotations

import ast
import builtins
import io
import re
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import click
import pytest

from gateway.cli.main import COMMANDS, cli
from gateway.config.settings import Settings

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("gateway", "model", "consent", "watermark", "benchmarks", "tests")
PLACES = (*PACKAGES, "docs", "dialplans", "deploy")
WIDEST = 120
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
FOREIGN = {"CONTENT_TYPE_LATEST", "RtpPacket"}
"""Names in docstrings that other packages define and no line here uses."""


@dataclass
class Module:
    """One source file, as its syntax tree has it."""

    path: Path
    names: set[str] = field(default_factory=set)
    """What stands at its top: functions, classes, constants, imports."""
    classes: dict[str, tuple[set[str], list[str]]] = field(default_factory=dict)
    """Class -> (its members, its bases)."""
    docstrings: list[tuple[int, str]] = field(default_factory=list)
    """(line, text), those under fields and constants too."""


@cache
def modules() -> dict[str, Module]:
    """Every source file by its dotted name."""
    found = {}
    for package in (*PACKAGES, "deploy"):
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            found[name] = _module(path)
    return found


def _module(path: Path) -> Module:
    module = Module(path)
    tree = ast.parse(path.read_text())
    for statement in tree.body:
        module.names |= _bound(statement)
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            members = {name for inner in ast.walk(node) for name in _bound(inner)}
            members |= {
                inner.attr
                for inner in ast.walk(node)
                if isinstance(inner, ast.Attribute) and isinstance(inner.ctx, ast.Store)
            }
            module.classes[node.name] = members, [ast.unparse(base) for base in node.bases]
        body = getattr(node, "body", None)
        for inner in body if isinstance(body, list) else ():
            if isinstance(inner, ast.Expr) and isinstance(inner.value, ast.Constant):
                module.docstrings.append((inner.lineno, str(inner.value.value)))
    return module


def _bound(node: ast.AST) -> set[str]:
    """The names that a statement makes where it stands."""
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        return {node.name}
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        return {alias.asname or alias.name for alias in node.names}
    if isinstance(node, (ast.Assign, ast.AnnAssign)):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        return {name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)}
    return set()


@cache
def words() -> set[str]:
    """Every name in the code and every word in its strings, docstrings left out."""
    found = FOREIGN | set(dir(builtins))
    for module in modules().values():
        text = module.path.read_text()
        doc_lines = {line for line, _ in module.docstrings}
        found |= set(module.path.relative_to(ROOT).with_suffix("").parts)
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type == tokenize.NAME:
                found.add(token.string)
            elif token.type == tokenize.STRING and token.start[0] not in doc_lines:
                found |= set(re.findall(r"[A-Za-z_]\w*", token.string))
    return found


@cache
def members_of(name: str) -> set[str] | None:
    """All members of our classes of that name, with those they inherit; None when a base is not ours."""
    known: set[str] = set()
    for module in modules().values():
        if name in module.classes:
            own, bases = module.classes[name]
            known |= own
            for base in bases:
                base = base.partition("[")[0].rpartition(".")[2]
                if base in ("Protocol", "Generic", "ABC"):
                    continue
                inherited = members_of(base)
                if inherited is None:
                    return None
                known |= inherited
    return known or None


def spans(text: str) -> Iterator[str]:
    """What stands between backticks, in one line or over two."""
    for match in re.finditer(r"(?<!`)`([^`]+)`(?!`)", text):
        yield " ".join(match[1].split())


def written() -> Iterator[tuple[str, str]]:
    """(where, text) of every page and of every docstring outside the tests."""
    for page in PAGES:
        yield str(page.relative_to(ROOT)), page.read_text()
    for name, module in modules().items():
        if not name.startswith("tests"):
            for line, text in module.docstrings:
                yield f"{module.path.relative_to(ROOT)}:{line}", text


@cache
def missing_file(span: str) -> bool:
    if not re.fullmatch(r"[\w./-]+\.(?:py|js|html|css|md|yaml|png)|(?:[\w-]+/)+", span):
        return False
    if span.startswith(tuple(f"{place}/" for place in PLACES)):
        return not (ROOT / span).exists()
    return span.endswith(".py") and "/" not in span and not any(ROOT.glob(f"[a-z]*/**/{span}"))


def missing_module(span: str) -> bool:
    if not re.fullmatch(rf"(?:{'|'.join(PACKAGES)})(?:\.\w+)+(?:\(\))?", span):
        return False
    if re.search(r"\.(?:toml|html|js|json|md|safetensors)$", span):
        return False
    parts = span.removesuffix("()").split(".")
    for cut in range(len(parts), 0, -1):
        if (module := modules().get(".".join(parts[:cut]))) is not None:
            rest = parts[cut:]
            if not rest:
                return False
            if rest[0] in module.classes and len(rest) > 1:
                members = members_of(rest[0])
                return members is not None and rest[1] not in members
            return rest[0] not in module.names
    return not (ROOT / Path(*parts)).is_dir()


def missing_member(span: str) -> bool:
    match = re.fullmatch(r"([A-Z]\w*)\.(\w+)(?:\(.*\))?", span)
    if match is None or (members := members_of(match[1])) is None:
        return False
    return match[2] not in members


def missing_name(span: str) -> bool:
    match = re.fullmatch(r"(?:[A-Za-z_]\w*\.)*([A-Za-z_]\w*)(?:\(\))?", span)
    return match is not None and match[1] not in words()


def test_what_does_not_exist_is_noticed() -> None:
    assert missing_file("gateway/hall/never.py")
    assert missing_file("never.py")
    assert missing_module("gateway.hall.never")
    assert missing_module("watermark.pcm.never")
    assert missing_module("watermark.keys.KeyRing.never")
    assert missing_member("KeyRing.never")
    assert missing_name("_".join(("a", "name", "that", "nobody", "gave")))
    assert wrong_in("voicegate never") == "no command 'never'"
    assert wrong_in("voicegate doctor --never") == "no option --never"
    assert not missing_file("watermark/pcm.py")
    assert not missing_module("watermark.keys.KeyRing.load")
    assert not missing_member("KeyRing.load()")
    assert wrong_in("voicegate doctor --json") is None


@pytest.mark.parametrize("missing", [missing_file, missing_module, missing_member])
def test_what_is_named_exists(missing: object) -> None:
    wrong = [
        f"{where}: `{span}`"
        for where, text in written()
        for span in spans(text)
        if missing(span)  # type: ignore[operator]  # one of the functions above
    ]
    assert wrong == []


def test_a_docstring_names_what_stands_in_the_code() -> None:
    wrong = [
        f"{where}: `{span}`"
        for where, text in written()
        if ".py:" in where
        for span in spans(text)
        if missing_name(span)
    ]
    assert wrong == []


# ── commands, settings, targets ──────────────────────────────────────────────────────────────────────────


def commands() -> Iterator[tuple[str, str]]:
    """(where, command line) wherever a page or a docstring writes `voicegate …`."""
    for where, text in written():
        for span in spans(text):
            if span.startswith("voicegate "):
                yield where, span
        for line in text.splitlines():
            match = re.match(r"(?: {4}|\$ )(?:\.venv/bin/)?(voicegate [a-z].*)", line)
            if match:
                yield where, match[1].partition("  #")[0]


def wrong_in(line: str) -> str | None:
    """What of a command line does not exist."""
    command: click.Command = cli
    context = click.Context(cli)
    parts = re.sub(r"[\[\]…]", " ", line).split()[1:]
    while parts and isinstance(command, click.Group) and re.fullmatch(r"[a-z][a-z-]*", parts[0]):
        name = parts.pop(0)
        try:
            found = command.get_command(context, name)
        except click.ClickException:
            return None  # it needs a package that is not installed here
        if found is None:
            return f"no command {name!r}"
        command = found
    known = {
        option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)
    }
    for part in parts:
        if part in ("|", "&&", ";", "#", ">", "<"):
            break
        if part.startswith("--") and part.partition("=")[0] not in known | {"--help"}:
            return f"no option {part}"
    return None


def test_every_command_that_is_written_exists() -> None:
    found = list(commands())
    assert len(found) > 30
    wrong = [f"{where}: `{line}`: {why}" for where, line in found if (why := wrong_in(line)) is not None]
    assert wrong == []


def test_every_command_is_written_somewhere() -> None:
    told = {line.split()[1] for _, line in commands() if len(line.split()) > 1}
    assert set(COMMANDS) <= told


def test_every_setting_that_is_written_exists() -> None:
    known = {f"VOICEGATE_{name.upper()}" for name in Settings.model_fields}
    for module in modules().values():
        known |= set(re.findall(r"VOICEGATE_[A-Z0-9_]+", _without_docstrings(module)))
    for other in (*ROOT.glob("Makefile"), *(ROOT / ".ci").glob("*")):
        known |= set(re.findall(r"VOICEGATE_[A-Z0-9_]+", other.read_text()))
    wrong = [
        f"{where}: {name}"
        for where, text in written()
        for name in re.findall(r"VOICEGATE_[A-Z0-9_]*[A-Z0-9](?![A-Z0-9_*])", text)
        if name not in known
    ]
    assert wrong == []


def _without_docstrings(module: Module) -> str:
    text = module.path.read_text()
    for _, doc in module.docstrings:
        text = text.replace(doc, "")
    return text


def test_every_make_target_that_is_written_exists() -> None:
    targets = set(re.findall(r"^([a-z][\w-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    wrong = []
    for where, text in written():
        for line in (*spans(text), *(line[4:] for line in text.splitlines() if line.startswith("    make "))):
            match = re.match(r"make ((?:[a-z][\w-]*(?: |$))+)", line.partition("  #")[0].strip())
            named = match[1].split() if match else []
            wrong += [f"{where}: make {target}" for target in named if target not in targets]
    assert wrong == []


def test_no_line_of_the_pages_is_wider_than_a_screen() -> None:
    """Rows of tables cannot be broken; the changelog's entries stay as they were written."""
    wide = [
        f"{page.relative_to(ROOT)}:{number}: {len(line)} characters"
        for page in PAGES
        if page.name != "CHANGELOG.md"
        for number, line in enumerate(page.read_text().splitlines(), start=1)
        if len(line) > WIDEST and not line.lstrip().startswith("|")
    ]
    assert wide == []


def _said(module: Module) -> Iterator[tuple[int, str]]:
    """(line, text) of each text of the code that is not a docstring."""
    documentation = {text for _, text in module.docstrings}
    for node in ast.walk(ast.parse(module.path.read_text())):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value not in documentation:
            yield node.lineno, node.value


def test_what_a_user_reads_says_is_not_a_and_never_is_no() -> None:
    """`demo is no SIP URI` has to be read twice; "there is no …" says what is missing, and is plain."""
    told = [
        f"{module.path.relative_to(ROOT)}:{line}: {text!r}"
        for name, module in modules().items()
        if name.split(".")[0] in ("gateway", "watermark", "consent", "model")
        for line, text in _said(module)
        if re.search(r"(?<!\bthere )(?<!\bThere )\b(is|are) no (?!longer\b|more\b)\w", text)
    ]
    assert told == []
