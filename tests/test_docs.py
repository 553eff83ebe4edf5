"""Check the documentation: its Python code runs, its quotations match the sources, its links and paths exist.

The paths that comments, docstrings and messages of the sources name must exist, too.
"""

from __future__ import annotations

import pkgutil
import re
import shlex
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import pytest

from gpunet import emulator
from gpunet.cli.main import main
from tests import course

ROOT = Path(__file__).resolve().parents[1]
#: A path of this repository, from its root; not a part of a longer path, and not a pattern.
NAMED_PATH = re.compile(r"(?<![\w./{-])(?:gpunet|cuda_kernels|tests|bench|docs|examples)/[\w./-]*\w(?![\w{*])")
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


class Block(NamedTuple):
    """A fenced code block."""

    where: str  # "file:line"
    kind: str  # the info string of the fence
    text: str


def blocks(path: Path) -> list[Block]:
    found = []
    text = path.read_text(encoding="utf-8")
    for match in re.finditer(r"^```([^\n]*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        line = text[: match.start()].count("\n") + 1
        found.append(Block(f"{path.relative_to(ROOT)}:{line}", match[1].strip(), match[2]))
    return found


#: The blocks of a chapter run together, in tests/test_course.py.
BLOCKS = [block for page in PAGES if page not in course.CHAPTERS for block in blocks(page)]
QUOTED = [b for b in BLOCKS if re.match(r"(#|//) [\w/]+\.\w+\n", b.text)]
CONSOLE = [b for b in BLOCKS if b.kind == "console"]
RUNNABLE = [b for b in BLOCKS if b.kind == "python" and b not in QUOTED]


def identity(block: Block) -> str:
    return block.where


def test_pages_have_blocks_to_check() -> None:
    assert len(RUNNABLE) >= 4
    assert len(QUOTED) >= 4


@pytest.mark.parametrize("block", RUNNABLE, ids=identity)
def test_python_block_runs(block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if "sklearn" in block.text:
        pytest.importorskip("sklearn")
    monkeypatch.chdir(tmp_path)
    exec(compile(block.text, block.where, "exec"), {"__name__": "__example__"})


@pytest.mark.skipif(not emulator.available(), reason="g++ is not installed")
@pytest.mark.parametrize("block", CONSOLE, ids=identity)
def test_console_block_shows_the_output_of_its_commands(
    block: Block, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Supported commands: ``cd FOLDER`` (relative to the repository's root), ``gpunet ...`` and ``echo $?``."""
    code = None
    for part in re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]:
        command, _, shown = part.replace("\\\n", "").partition("\n")
        words = shlex.split(command)
        if words[0] == "cd":
            monkeypatch.chdir(ROOT / words[1])
        elif words[0] == "echo":
            assert shown == f"{code}\n"
        else:
            assert words[0] == "gpunet"
            code = main(words[1:])
            assert capsys.readouterr().out == shown


@pytest.mark.parametrize("block", QUOTED, ids=identity)
def test_quoted_block_matches_the_source(block: Block) -> None:
    first, _, quotation = block.text.partition("\n")
    source = (ROOT / first.split()[1]).read_text(encoding="utf-8")
    assert quotation.strip() in source, f"{block.where}: the quotation differs from {first.split()[1]}"


def test_twenty_line_example_learns(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("sklearn")
    [example] = [b for b in RUNNABLE if "load_digits" in b.text and b.where.startswith("README.md")]
    assert len([line for line in example.text.splitlines() if line.strip()]) <= 20
    exec(compile(example.text, example.where, "exec"), {})
    accuracy = float(capsys.readouterr().out.split()[-1])
    assert accuracy > 0.9


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_and_paths_exist(page: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in link]
    paths = re.findall(r"`((?:gpunet|cuda_kernels|tests|bench|docs)/[\w./]*)`", text)
    missing = [link for link in links if not (page.parent / link).exists()] + [
        p for p in paths if not (ROOT / p).exists()
    ]
    assert not missing


def test_paths_in_sources_exist() -> None:
    missing = []
    for folder in ("gpunet", "cuda_kernels", "tests", "bench", "examples"):
        for path in sorted((ROOT / folder).rglob("*")):
            # tests/driver names the files of CuPy's test suite, tests/mutation/survivors.txt is a list of expressions
            if path.suffix not in (".py", ".cu", ".cuh", ".cpp", ".h") or "driver" in path.relative_to(ROOT).parts:
                continue
            for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
                for name in NAMED_PATH.findall(line):
                    if not (ROOT / name).exists():
                        missing.append(f"{path.relative_to(ROOT)}:{number}: {name}")
    assert not missing


def test_api_pages_list_the_files_of_all_public_names() -> None:
    """The rooms of the table in docs/api/index.md; the names of a room stand in the files where they are defined."""
    pages = (ROOT / "docs" / "api").glob("*.md")
    listed = {name for page in pages for name in re.findall(r"^::: (\S+)$", page.read_text(encoding="utf-8"), re.MULTILINE)}
    table = (ROOT / "docs" / "api" / "index.md").read_text(encoding="utf-8").partition("|---|")[2]
    missing = set()
    for name in re.findall(r"`([\w.]+)`", table):
        room = pkgutil.resolve_name(name)
        names = getattr(room, "__all__", None) or dir(room) if isinstance(room, ModuleType) else []
        for public in [room, *(getattr(room, n) for n in names if not n.startswith("_"))]:
            module = getattr(public, "__module__", None) or ""
            if module.startswith("gpunet.") and module not in listed:
                missing.add(f"{name}: {module}")
    assert missing == set()


def test_readme_has_two_commands() -> None:
    commands = [line for b in blocks(ROOT / "README.md") if b.kind == "bash" for line in b.text.splitlines()]
    assert sum(line.endswith("gpunet train") and "-m venv" in line for line in commands) == 1
    assert sum("-m pytest" in line and "-m venv" in line for line in commands) == 1
