"""Loop bodies: loops that a compiled step runs in place of a twin that reads values, and so cannot be traced.

    @loop_body
    def _clamp_loop(y, x, count, low, high):
        for i in range(count):
            value = load(x, i, 1)
            store(y, i, select(value < low, like(y, low), select(value > high, like(y, high), value)), 0)
        return 0

    @clamp_forward.loops
    def _(y, x, *, low, high):
        return Loops(_clamp_loop, (y, x), (y.size, float(low), float(high)))

A body takes contiguous arrays, as pointers, and then numbers (int64 or float64).  It returns 0, or 1 if it finds its input invalid
and has written nothing; then the step calls the twin, which raises.  It may call other loop bodies, the functions below,
``math`` and NumPy's number types, and refers to no other global name.

A compiled step takes the source of the body, and compiles it with the functions of the same names in
``gpunet/captured/compiled/jit``; so this module and those of the kernels need no Numba.  Here the functions have their meaning in
Python, where a pointer is a flat array, so that a body runs as it stands.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy


class LoopBody:
    """A function that compiled steps run as loops, created by the decorator :func:`loop_body`.

    Attributes:
        has_compiled_form: ``captured/compiled/jit/matmul`` has a body of the same name, which compiled steps call instead.
    """

    def __init__(self, function: Callable[..., Any], has_compiled_form: bool = False) -> None:
        self._function = function
        self.name = function.__name__
        self.has_compiled_form = has_compiled_form

    def __call__(self, *arguments: Any) -> Any:
        return self._function(*arguments)

    @property
    def parameters(self) -> list[str]:
        """Names of the parameters."""
        return list(inspect.signature(self._function).parameters)

    def source(self, first_lines: Sequence[str] = (), parameters: str | None = None) -> str:
        """Return the source without decorators, with ``first_lines`` before the lines of the function, and other ``parameters``."""
        text = textwrap.dedent(inspect.getsource(self._function))
        (function,) = ast.parse(text).body
        assert isinstance(function, ast.FunctionDef)
        lines = text.splitlines(keepends=True)
        head, rest = lines[function.lineno - 1 : function.body[0].lineno - 1], lines[function.body[0].lineno - 1 :]
        if parameters is not None:
            head = [f"def {self.name}({parameters}):\n"]
        return "".join([*head, *(f"    {line}\n" for line in first_lines), *rest])

    def called(self) -> Iterator[LoopBody]:
        """Yield the bodies that it calls, and before each those that this one calls."""
        for name in self._function.__code__.co_names:
            value = self._function.__globals__.get(name)
            if isinstance(value, LoopBody):
                yield from value.called()
                yield value


def loop_body(function: Callable[..., Any]) -> LoopBody:
    """Decorator: make a :class:`LoopBody`."""
    return LoopBody(function)


def compiled_loop_body(function: Callable[..., Any]) -> LoopBody:
    """Decorator: make a :class:`LoopBody` that has a compiled form."""
    return LoopBody(function, has_compiled_form=True)


class Loops(NamedTuple):
    """How a compiled step runs a launch: the body and its arguments.

    Attributes:
        body: called with the arrays, the scratch array if there is one, and the numbers.
        arrays: of the launch; all must be contiguous and not empty.
        numbers: ints and floats.
        scratch: number of elements of a scratch array with the dtype of the first array.
        checks_input: whether the body returns 1 for an invalid input.
        work: if not 0, the body computes independent items, its first two numbers are the first item and the end, so that
            threads may share them; and this is the number of bytes that it moves in the cache, or of its multiplications.
            Such a body has no scratch and checks nothing.
    """

    body: LoopBody
    arrays: tuple[Any, ...]
    numbers: tuple[int | float, ...] = ()
    scratch: int = 0
    checks_input: bool = False
    work: int = 0


# ---- functions for bodies -------------------------------------------------------------------------------------------


def load(pointer: Any, index: int, scope: int) -> Any:
    """The element at ``index``.

    Args:
        scope: a number below 32: arrays with different numbers do not overlap within the body.
    """
    return pointer[index]


def store(pointer: Any, index: int, value: Any, scope: int) -> None:
    """Write the element at ``index``."""
    pointer[index] = value


def advance(pointer: Any, offset: int) -> Any:
    """The pointer, moved by ``offset`` elements."""
    return pointer[offset:]


def like(pointer: Any, value: Any) -> Any:
    """A number in the dtype of the elements."""
    return pointer.dtype.type(value)


def select(condition: Any, yes: Any, no: Any) -> Any:
    """``yes`` if the condition holds, else ``no``, of the same dtype; compiled without a branch."""
    return yes if condition else no


def reduce_add(total: Any, value: Any) -> Any:
    """total + value in a sum whose order the compiler may choose, once for all runs."""
    return total + value


def reduce_maximum(total: Any, value: Any) -> Any:
    """The larger one in a maximum whose order the compiler may choose; NaN if either is NaN."""
    return numpy.maximum(total, value)


def exp(x: Any) -> Any:
    """e^x, in the dtype of x."""
    return numpy.exp(x)


def log(x: Any) -> Any:
    """The natural logarithm, in the dtype of x."""
    return numpy.log(x)


def sqrt(x: Any) -> Any:
    """The square root, in the dtype of x."""
    return numpy.sqrt(x)


def tanh(x: Any) -> Any:
    """The hyperbolic tangent, in the dtype of x."""
    return numpy.tanh(x)


@compiled_loop_body
def product(out, a, b, m, n, k, out_row, a_row, a_depth, b_depth):
    """out (m, n) = a (m, k) b (k, n), where the columns of out and of b are adjacent; the strides are in elements.

    The compiled form has tiles in registers.
    """
    for i in range(m):
        for j in range(n):
            total = like(out, 0)
            for d in range(k):
                total = reduce_add(total, load(a, i * a_row + d * a_depth, 1) * load(b, d * b_depth + j, 2))
            store(out, i * out_row + j, total, 0)
    return 0


@compiled_loop_body
def transpose(out, a, rows, columns, a_row):
    """out (columns, rows) = a (rows, columns)^T; out is contiguous, and rows of a lie ``a_row`` elements apart.

    The compiled form has blocks in registers.
    """
    for i in range(rows):
        for j in range(columns):
            store(out, j * rows + i, load(a, i * a_row + j, 1), 0)
    return 0


def multiply_high(a: Any, b: Any) -> Any:
    """The upper 64 bits of the product of two uint64."""
    return numpy.uint64(int(a) * int(b) >> 64)
