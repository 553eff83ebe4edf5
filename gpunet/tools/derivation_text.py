"""The derivation of ``gpunet explain`` as text: formulas with symbols, with numbers, and the value of the engine."""

from __future__ import annotations

import math
import re
import sys
import textwrap
from collections.abc import Iterable, Sequence

import gpunet
from gpunet.backend.devices import default_device
from gpunet.tools.derivation import Section, Step

_ASCII = {
    "∂": "d", "·": "*", "−": "-", "²": "^2", "³": "^3", "σ": "sigmoid", "η": "lr", "←": "<-", "✓": "ok", "✗": "WRONG",
    "Φ": "Phi", "φ": "phi", "√": "sqrt", "π": "pi", "…": "...", "─": "-", "═": "=", "\u00a0": " ",
}  # fmt: skip
_PLAIN = str.maketrans(_ASCII)
_UNICODE = str.maketrans({"\u00a0": " "})


def terminal_has_unicode() -> bool:
    """Whether stdout can encode the symbols of the derivation."""
    try:
        "".join(_ASCII).encode(sys.stdout.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def render(sections: Iterable[Section], precision: int, plain: bool, width: int) -> str:
    """The sections as text.

    Args:
        sections: the derivation.
        precision: digits after the decimal point.
        plain: use ASCII only.
        width: columns of the terminal; only formulas that do not fit on two lines exceed it.
    """
    table = _PLAIN if plain else _UNICODE
    lines: list[str] = []
    steps: list[Step] = []
    for section in sections:
        steps += section.steps
        lines += _heading(section.level, section.heading.translate(table), min(width, 100))
        for text in section.text:
            lines += _paragraph(text.translate(table), width)
        if section.steps:
            format_steps = _brief if section.brief else _table
            lines += format_steps(section.steps, precision, width, table)
        for text in section.remarks:
            lines += ["", *_paragraph(text.translate(table), width)]
    return "\n".join([*lines, "", *_verdict(steps), ""]).translate(table).lstrip("\n")


def _heading(level: int, heading: str, width: int) -> list[str]:
    if level == 1:
        return ["", f"═══ {heading} ".ljust(width, "═")]
    if level == 2:
        return ["", f"─── {heading} ".ljust(width, "─")]
    return [f"{heading}:"]


def _paragraph(text: str, width: int) -> list[str]:
    # non-breaking spaces around operators prevent line breaks there; render() turns them into plain spaces
    glued = re.sub(r" ([=+−<-]|←|<-) ", "\u00a0\\1\u00a0", text)
    label = re.match(r"[\w ]+:  ", text)
    indent = " " * label.end() if label else ""
    return textwrap.wrap(
        glued, min(width, 100), subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )  # fmt: skip


def _value(value: float, precision: int) -> str:
    value += 0.0  # turns -0.0 into 0.0
    if value != 0.0 and not 10.0 ** min(2 - precision, -1) <= abs(value) < 1e6 and math.isfinite(value):
        return f"{value:.{max(precision - 3, 1)}e}"
    return f"{value:.{precision}f}"


def _check(step: Step, precision: int) -> str:
    return f"{'✓' if step.agrees else '✗'} engine {_value(step.engine, precision)}"


def _table(steps: Sequence[Step], precision: int, width: int, table: dict[int, str]) -> list[str]:
    """Rows of name, formula, formula with numbers, value and the engine's value; long rows take two lines."""
    ends = [(_value(step.value, precision), _check(step, precision).translate(table)) for step in steps]
    values, checks = (max(len(end[column]) for end in ends) for column in range(2))
    for digits in (max(4, precision - 2), 3):  # use fewer digits in the formulas before breaking rows
        rows = [[cell.translate(table) for cell in (step.name, step.symbols, step.numbers(digits))] for step in steps]
        names = max(len(name) for name, _, _ in rows)
        room = width - len(f"  {'':{names}} = " + " = " + f" = {'':{values}}  {'':{checks}}")
        short = sorted(rows, key=lambda row: len(row[1]) + len(row[2]))
        while True:
            formulas, numbers = (max((len(row[column]) for row in short), default=0) for column in (1, 2))
            if formulas + numbers <= room:
                break
            short.pop()  # this row takes two lines
        if len(short) == len(rows):
            break
    left = max([formulas + 3 + numbers, *(len(row[2]) for row in rows if row not in short)])
    lines = []
    for (name, formula, with_numbers), (value, check) in zip(rows, ends):
        equals = " = " if with_numbers else "   "
        start = f"  {name:<{names}} = "
        if [name, formula, with_numbers] in short:
            start += f"{formula:<{formulas}}" + (equals + with_numbers if numbers else "")
        else:
            lines.append(start + formula)
            start = f"  {'':<{names}}{equals}{with_numbers}"
        lines.append(f"{start:<{2 + names + 3 + left}} = {value:>{values}}  {check}")
    return lines


def _brief(steps: Sequence[Step], precision: int, width: int, table: dict[int, str]) -> list[str]:
    """Names and values, several per line."""
    names = max(len(step.name.translate(table)) for step in steps)
    values = max(len(_value(step.value, precision)) for step in steps)
    cells = [
        f"{step.name.translate(table):<{names}} = {_value(step.value, precision):>{values}}  {_check(step, precision)}"
        for step in steps
    ]
    cells = [cell.translate(table) for cell in cells]
    longest = max(map(len, cells))
    columns = max(1, (width + 2) // (longest + 4))
    rows = math.ceil(len(cells) / columns)  # the order of the derivation runs down the columns
    return [
        ("  " + "    ".join(f"{cell:<{longest}}" for cell in cells[row::rows])).rstrip() for row in range(rows)
    ]  # fmt: skip


def _verdict(steps: Sequence[Step]) -> list[str]:
    wrong = [step for step in steps if not step.agrees]
    if not wrong:
        engine = f"gpunet {gpunet.__version__}, float64 on {default_device()}"
        return [
            f"✓ All {len(steps)} numbers agree with the engine ({engine}).",
            "  Numbers inside formulas are rounded; the values are computed in full precision.",
        ]
    lines = [
        f"✗ {len(wrong)} of {len(steps)} numbers differ from the engine's. That is a bug in gpunet; please report it:"
    ]
    return [*lines, *(f"    {step.name}: by hand {step.value!r}, engine {step.engine!r}" for step in wrong[:20])]
