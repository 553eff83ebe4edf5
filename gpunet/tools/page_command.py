"""The command line of the generators of pages in docs/: print the page, or write it with ``--write``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path


def print_or_write(page: Callable[[], str], path: Path, module: str, arguments: Sequence[str] | None = None) -> int:
    """Run the command of the module ``module``; return its exit code.

    Args:
        page: makes the text.
        arguments: those of the command line; ``sys.argv[1:]`` if None.
    """
    parser = argparse.ArgumentParser(prog=f"python -m {module}", description=f"Print the generated page {path.name}.")
    parser.add_argument("--write", action="store_true", help=f"write {path.parent.name}/{path.name} instead")
    if parser.parse_args(arguments).write:
        text = page()
        path.write_text(text, encoding="utf-8")
    else:
        sys.stdout.write(page())
    return 0
