"""CUDA sources: where they are, and their text with the headers in it.

A ``.cu`` file in ``cuda_kernels/`` and its headers are one text when they are compiled, so the compiler needs no include
path and a changed header is a changed source.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from gpunet.errors import CompileError

_INCLUDE = re.compile(r'\s*#\s*include\s*"([^"]+)"')


def kernel_directory() -> Path:
    """The folder of the CUDA sources: inside the package in a wheel, at the top of the repository in a checkout.

    Raises:
        CompileError: neither is there.
    """
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "cuda_kernels", package.parent / "cuda_kernels"):
        if folder.is_dir():
            return folder
    raise CompileError(f"cuda_kernels/ is neither in {package} nor beside it; reinstall gpunet")


def kernel_files() -> list[str]:
    """Names of the ``.cu`` files, sorted."""
    return sorted(path.name for path in kernel_directory().glob("*.cu"))


class Source(NamedTuple):
    """A CUDA source that is no file of ``cuda_kernels/``: its name in messages, and its text with the headers in it."""

    name: str
    text: str


def splice(code: str | os.PathLike[str], name: str = "source.cu", options: Sequence[str] = ()) -> Source:
    """A CUDA source from anywhere, given as text or as the path of a file.

    ``#include "..."`` finds headers beside the file that includes them, in the folders of ``options``, and in
    ``cuda_kernels/``; ``#include <...>`` is left to the compiler.

    Args:
        name: what messages call a text; a file has its path.
        options: ``-Ifolder`` and ``-Dname=value``, as compilers take them.  Others are ignored.

    Raises:
        CompileError: the file, or a header that it includes, is not there.
    """
    found = [(option[:2], option[2:]) for option in options]
    splicer = _Splicer([Path(value) for flag, value in found if flag == "-I"])
    splicer.lines += [f"#define {' '.join((*value.split('=', 1), '1')[:2])}" for flag, value in found if flag == "-D"]
    if isinstance(code, str):
        splicer.add_text(code, name)
    else:
        name = Path(code).as_posix()
        splicer.add_file(Path(code), name, f"asked for {name!r}")
    return Source(name, splicer.text())


def spliced(file: str | Path | Source) -> str:
    """The text of a source with its headers in place of ``#include "..."``, each header once.

    ``file`` is the name of one of ours, or the path of a source elsewhere: its headers are looked for beside it, then
    among ours.  ``#line`` directives keep the compiler's messages about the right file and line.

    Raises:
        CompileError: the file, or a header that it includes, is not there.
    """
    if isinstance(file, Source):
        return file.text
    splicer = _Splicer([])
    path = kernel_directory() / file if isinstance(file, str) else file
    splicer.add_file(path, name_of(file), f"asked for {str(file)!r}")
    return splicer.text()


def spliced_text(text: str, file: str, folders: Sequence[Path]) -> str:
    """The same for a source that is at hand: ``file`` is its name in messages, ``folders`` are where its headers may be.

    Raises:
        CompileError: a header that it includes is not there.
    """
    splicer = _Splicer(list(folders))
    splicer.add_text(text, file)
    return splicer.text()


class _Splicer:
    """The lines of a source so far, and the files that are in them."""

    def __init__(self, folders: list[Path]) -> None:
        self.folders = folders
        self.lines: list[str] = []
        self.seen: set[Path] = set()

    def text(self) -> str:
        return "\n".join(self.lines) + "\n"

    def add_file(self, path: Path, name: str, asked: str, searched: Sequence[Path] = ()) -> None:
        try:
            text = path.read_text(encoding="utf-8")
        except OSError:
            folders = " or ".join(map(str, searched or [path.parent]))
            raise CompileError(f"{asked}, but there is no such file in {folders}") from None
        if path.resolve() not in self.seen:
            self.seen.add(path.resolve())
            self.add_text(text, name, path.parent)

    def add_text(self, text: str, name: str, folder: Path | None = None) -> None:
        self.lines.append(f'#line 1 "{name}"')
        for number, line in enumerate(text.splitlines(), 1):
            include = _INCLUDE.match(line)
            if include is None:
                self.lines.append(line)
                continue
            own = kernel_directory()
            ours = (own, own / "common", own / "gemm")
            searched = list(dict.fromkeys([*([folder] if folder else []), *self.folders, *ours]))
            path = next((found for found in (f / include[1] for f in searched) if found.is_file()), own / include[1])
            header = (path.relative_to(own) if path.is_relative_to(own) else path).as_posix()
            self.add_file(path, header, f"{name}:{number} includes {include[1]!r}", searched)
            self.lines.append(f'#line {number + 1} "{name}"')


def name_of(file: str | Path | Source) -> str:
    """What messages call a source."""
    return file if isinstance(file, str) else file.name
