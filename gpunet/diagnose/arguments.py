"""Checks of arguments and writing of files, for all of diagnose."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from gpunet.errors import ArgumentError
from gpunet.nn import Module


def check_model(model: Any, function: str) -> None:
    """Check that a network is a module.

    Raises:
        ArgumentError: it is none.
    """
    if not isinstance(model, Module):
        raise ArgumentError(f"{function}: model is a {type(model).__name__}; expected a Module")


def check_every(every: Any, function: str) -> None:
    """Check a number of steps.

    Raises:
        ArgumentError: it is not a positive integer.
    """
    if not isinstance(every, int) or isinstance(every, bool) or every < 1:
        raise ArgumentError(f"{function}: every={every!r}; expected a positive integer")


def write_text(path: str | os.PathLike[str], text: str, function: str) -> None:
    """Write a file in UTF-8.

    Raises:
        ArgumentError: the file cannot be written.
    """
    try:
        Path(path).write_text(text, encoding="utf-8")
    except OSError as error:
        raise ArgumentError(f"{function}: cannot write {os.fspath(path)!r}: {error.strerror}") from None


def check_svg(path: str | os.PathLike[str], function: str) -> None:
    """Check the extension of a file.

    Raises:
        ArgumentError: it is not ".svg".
    """
    if Path(path).suffix.lower() != ".svg":
        raise ArgumentError(f"{function}: {os.fspath(path)!r}; expected a file name that ends in .svg")
