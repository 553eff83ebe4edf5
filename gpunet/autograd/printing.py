"""How a tensor is printed: the layout of numbers is PyTorch's, with PyTorch's options."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy

from gpunet.backend.dtypes import is_complex
from gpunet.errors import ArgumentError

__all__ = ["set_printoptions"]


class Options(NamedTuple):
    precision: int = 4  # digits behind the point
    threshold: float = 1000  # elements of which all are printed
    edgeitems: int = 3  # printed at each end of a dimension of a larger tensor
    linewidth: int = 80
    sci_mode: bool | None = None  # None chooses by the numbers


_PROFILES = {
    "default": Options(), "short": Options(precision=2, edgeitems=2), "full": Options(threshold=math.inf),
}  # fmt: skip
_options = Options()


def set_printoptions(
    precision: int | None = None, threshold: float | None = None, edgeitems: int | None = None, linewidth: int | None = None,
    profile: str | None = None, sci_mode: bool | None = None,
) -> None:  # fmt: skip
    """Set how tensors are printed; None keeps an option.

    Args:
        precision: digits behind the point, 4 at first.
        threshold: a tensor of more elements is printed in part, 1000 at first.
        edgeitems: elements at each end of a dimension that are printed then, 3 at first.
        linewidth: characters of a line, 80 at first.
        profile: "default", "short" or "full" sets all of them.
        sci_mode: True for powers of ten, False for none; None chooses by the numbers.

    Raises:
        ArgumentError: an unknown profile.
    """
    global _options
    if profile is not None and profile not in _PROFILES:
        raise ArgumentError(f"set_printoptions: profile={profile!r}; expected one of {', '.join(map(repr, _PROFILES))}")
    base = _options if profile is None else _PROFILES[profile]
    given: dict[str, Any] = {"precision": precision, "threshold": threshold, "edgeitems": edgeitems, "linewidth": linewidth}
    _options = base._replace(sci_mode=sci_mode, **{name: value for name, value in given.items() if value is not None})


class _Numbers:
    """The format of the numbers of an array: all with the same width."""

    def __init__(self, shown: numpy.ndarray, options: Options, is_floating: bool) -> None:
        self.precision, self.is_floating, self.width = options.precision, is_floating, 1
        self.is_scientific = False
        self.is_integral = True
        if not is_floating:
            self.width = max((len(str(value)) for value in shown.tolist()), default=1)
            return
        numbers = shown[numpy.isfinite(shown) & (shown != 0)]
        if not numbers.size:
            return
        smallest, largest = float(numpy.abs(numbers).min()), float(numpy.abs(numbers).max())
        self.is_integral = bool((numbers == numpy.ceil(numbers)).all())
        self.is_scientific = largest / smallest > 1000 or largest > 1e8 or (not self.is_integral and smallest < 1e-4)
        if options.sci_mode is not None:
            self.is_scientific = options.sci_mode
        self.width = max(len(self._text(value)) for value in numbers.tolist())

    def _text(self, value: Any) -> str:
        if not self.is_floating:
            return str(value)
        if self.is_scientific:
            return f"{value:.{self.precision}e}"
        if self.is_integral:
            return f"{value:.0f}." if math.isfinite(value) else f"{value:.0f}"
        return f"{value:.{self.precision}f}"

    def __call__(self, value: Any) -> str:
        return self._text(value).rjust(self.width)


class _ComplexNumbers:
    """The format of complex numbers: that of their real and that of their imaginary parts."""

    def __init__(self, shown: numpy.ndarray, options: Options) -> None:
        self.real, self.imag = (_Numbers(part, options, True) for part in (shown.real, shown.imag))
        self.width = self.real.width + self.imag.width + 1

    def __call__(self, value: complex) -> str:
        imag = self.imag(value.imag).lstrip()
        return f"{self.real(value.real)}{'' if imag.startswith('-') else '+'}{imag}j"


def _ends(array: numpy.ndarray, edge: int) -> numpy.ndarray:
    """The elements of a large array that are printed."""
    for dim, count in enumerate(array.shape):
        if count > 2 * edge:
            array = array.take([*range(edge), *range(count - edge, count)], dim)
    return array


def _nested(array: numpy.ndarray, indent: int, text: _Numbers | _ComplexNumbers, edge: int | None, linewidth: int) -> str:
    """The brackets of an array whose first line begins at column ``indent``; ``edge`` is None to print all elements."""
    if array.ndim == 0:
        return text(array.item())
    is_cut = edge is not None and len(array) > 2 * edge
    if array.ndim == 1:
        items = [text(value) for value in (array[:edge].tolist() if is_cut else array.tolist())]
        if is_cut and edge is not None:
            items += [" ...", *(text(value) for value in array[len(array) - edge :].tolist())]
        count = max(1, (linewidth - indent) // (text.width + 2))
        lines = [", ".join(items[start : start + count]) for start in range(0, len(items), count)]
        return "[" + (",\n" + " " * (indent + 1)).join(lines) + "]"
    rows = [*range(len(array))] if not is_cut or edge is None else [*range(edge), -1, *range(len(array) - edge, len(array))]
    parts = ["..." if row < 0 else _nested(array[row], indent + 1, text, edge, linewidth) for row in rows]
    return "[" + ("," + "\n" * (array.ndim - 1) + " " * (indent + 1)).join(parts) + "]"


def format_tensor(array: numpy.ndarray, is_floating: bool, remarks: list[str], name: str = "tensor") -> str:
    """The text of a tensor.

    Args:
        array: its values on the CPU, not of a half dtype.
        remarks: such as "requires_grad=True".
    """
    options, indent = _options, len(name) + 1
    if array.size == 0:
        body = "[]"
        remarks = [f"size={array.shape}", *remarks] if array.ndim != 1 else remarks
    else:
        edge = options.edgeitems if array.size > options.threshold else None
        shown = array.ravel() if edge is None else _ends(array, edge).ravel()
        numbers = _ComplexNumbers(shown, options) if is_complex(array.dtype) else _Numbers(shown, options, is_floating)
        body = _nested(array, indent, numbers, edge, options.linewidth)
    text = f"{name}({body}"
    column = len(text) - text.rfind("\n") + 1
    for remark in remarks:
        if column + len(remark) + 2 > options.linewidth:
            text, column = f"{text},\n{' ' * indent}{remark}", indent + len(remark)
        else:
            text, column = f"{text}, {remark}", column + len(remark) + 2
    return text + ")"
