"""CUDA sources: finds them and splices their headers into one text.

A ``.cu`` file is compiled as one text that contains its headers.  So the compiler needs no include path, and a changed
header changes the text that keys the cache.
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
    """Return the folder of the CUDA sources: inside the package in a wheel, at the top of the repository in a checkout.

    Raises:
        CompileError: the folder does not exist.
    """
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "cuda_kernels", package.parent / "cuda_kernels"):
        if folder.is_dir():
            return folder
    raise CompileError(f"the CUDA sources are missing: no folder cuda_kernels/ in {package} or {package.parent}; reinstall gpunet")


def kernel_files() -> list[str]:
    """List the names of the ``.cu`` files, sorted."""
    return sorted(path.name for path in kernel_directory().glob("*.cu"))


class Source(NamedTuple):
    """A CUDA source from outside ``cuda_kernels/``: its name in messages, and its text with the headers spliced in."""

    name: str
    text: str


def splice(code: str | os.PathLike[str], name: str = "source.cu", options: Sequence[str] = ()) -> Source:
    """Splice a user's CUDA source with its headers.

    ``#include "..."`` is searched in the folder of the including file, in the ``-I`` folders, and in ``cuda_kernels/``;
    ``#include <...>`` is left to the compiler.

    Args:
        code: the source as text, or the path of a file.
        name: the name of a text in messages; a file is named by its path.
        options: ``-Ifolder`` and ``-Dname=value``; other options are ignored.

    Raises:
        CompileError: the file, or a header that it includes, does not exist.
    """
    flags = [(option[:2], option[2:]) for option in options]
    splicer = _Splicer([Path(value) for flag, value in flags if flag == "-I"])
    splicer.lines += [f"#define {' '.join((*value.split('=', 1), '1')[:2])}" for flag, value in flags if flag == "-D"]
    if isinstance(code, str):
        splicer.add_text(code, name)
    else:
        name = Path(code).as_posix()
        splicer.add_file(Path(code), name, f"cannot read the CUDA source {name!r}")
    return Source(name, splicer.text())


def spliced(file: str | Path | Source) -> str:
    """Return the text of a source with every ``#include "..."`` replaced by the header, each header once.

    ``#line`` directives keep the file names and line numbers in the compiler's messages right.

    Args:
        file: the name of a file in ``cuda_kernels/``, or the path of a source elsewhere, whose headers are searched first
            in its own folder, then in ``cuda_kernels/``.

    Raises:
        CompileError: the file, or a header that it includes, does not exist.
    """
    if isinstance(file, Source):
        return file.text
    splicer = _Splicer([])
    path = kernel_directory() / file if isinstance(file, str) else file
    splicer.add_file(path, name_of(file), f"cannot read the CUDA source {str(file)!r}")
    return splicer.text()


def spliced_text(text: str, file: str, folders: Sequence[Path]) -> str:
    """Splice a source given as text; see :func:`spliced`.

    Args:
        file: the name of the source in messages.
        folders: where its headers are searched, before ``cuda_kernels/``.

    Raises:
        CompileError: a header that it includes does not exist.
    """
    splicer = _Splicer(list(folders))
    splicer.add_text(text, file)
    return splicer.text()


class _Splicer:
    """Collects the lines of a source and its headers, each file once."""

    def __init__(self, folders: list[Path]) -> None:
        self.folders = folders
        self.lines: list[str] = []
        self.seen: set[Path] = set()

    def text(self) -> str:
        return "\n".join(self.lines) + "\n"

    def add_file(self, path: Path, name: str, context: str, searched: Sequence[Path] = ()) -> None:
        try:
            text = path.read_text(encoding="utf-8")
        except OSError:
            folders = " or ".join(map(str, searched or [path.parent]))
            raise CompileError(f"{context}: there is no such file in {folders}") from None
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
            path = next((header for header in (f / include[1] for f in searched) if header.is_file()), own / include[1])
            header = (path.relative_to(own) if path.is_relative_to(own) else path).as_posix()
            self.add_file(path, header, f"{name}:{number} includes {include[1]!r}", searched)
            self.lines.append(f'#line {number + 1} "{name}"')


def name_of(file: str | Path | Source) -> str:
    """Return the name of a source in messages."""
    return file if isinstance(file, str) else file.name
