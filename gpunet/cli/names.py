"""Names of the library in help texts, which only ``gpunet SUBCOMMAND --help`` imports: ``gpunet --help`` is fast."""

from __future__ import annotations

import argparse
from collections.abc import Callable


def fill_in(parser: argparse.ArgumentParser, option: argparse.Action, names: Callable[[], str]) -> None:
    """Let the help of ``parser`` have ``names()`` in place of the ``{}`` of an option's help."""
    text, format_help = option.help or "", parser.format_help

    def format_help_with_names() -> str:
        option.help = text.format(names())
        return format_help()

    parser.format_help = format_help_with_names  # type: ignore[method-assign]
