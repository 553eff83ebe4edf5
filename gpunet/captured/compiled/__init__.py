"""The compiled lowering: a program as loops, in functions that Numba compiles (``pip install 'gpunet[jit]'``).

    expressions   NumPy's universal functions as source
    nests         loop nests of elementwise calls and reductions, joined into one pass where they can be
    forms         other calls: products, losses, random numbers, by functions in ``loops``
    fuse          from calls to such units
    given         arrays that the step is called with: read where they lie, or copied
    seams         calls on a vector of parts cut where these begin
    regions       large loops cut into chunks that several threads take
    module        the source of a step, and the module that is made of it
    access, atomics, functions, loops, names     what that source is made of; they import Numba, and only it imports them

Calls that have no form are made by NumPy, between two compiled parts.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy

from gpunet.captured.compiled import module
from gpunet.captured.compiled.arguments import WRITTEN, Given, copier, taken, written_spans
from gpunet.captured.compiled.fuse import fused, without_dead_stores
from gpunet.captured.compiled.library_calls import WORK, Form, Opaque
from gpunet.captured.compiled.nests import Unit
from gpunet.captured.compiled.regions import LEAST_PART, STATE, Team, part_work
from gpunet.captured.generated import compile_source
from gpunet.captured.ir import View
from gpunet.captured.numpy_calls import Bound, line


def function(
    units: Sequence[Unit], array: Callable[[View], numpy.ndarray], keepers: dict[int, tuple[Any, int]],
    place: Callable[[Any], Any], given: Sequence[Given],
) -> tuple[Callable[..., None], str]:  # fmt: skip
    """The function that does all units, and its source.

    Args:
        array: the array of a view.
        keepers: what keeps the memory of a buffer, and its address.
        place: a view, or a nest's operand, where it lies now.
        given: what the function takes arrays for.
    """
    writer = module.Writer(place, given)
    arrays = [f"given{number}" for number in range(len(given))]
    bound = Bound(array, {g.whole.buffer: (name, g.whole) for g, name in zip(given, arrays) if g.alignment})
    checks: list[Callable[[], None]] = []
    body: list[str] = []
    team = Team()
    parts = 0

    def begin(threaded: bool) -> None:
        nonlocal parts
        writer.begin(threaded)
        if threaded:
            body.append("step_team.summon()")
        taken = [] if parts else arrays
        called = f"part{parts}({', '.join(('table', *(f'id({name})' for name in taken)))})"
        body.append(f"failure = {called}")
        if taken:
            names = f"{', '.join(taken)},"
            body.extend(["if failure < 0:", f"    {names} = copied(-failure, ({names}))", f"    failure = {called}"])
        body.extend(["if failure:", "    check(failure)"])
        parts += 1

    if given and isinstance(units[0], Opaque):  # a part that only takes the arrays
        begin(threaded=False)
        writer.end()
    for number, unit in enumerate(units):
        if isinstance(unit, Opaque):
            writer.end()
            body.append(line(unit.call.replaced(place), bound))
            continue
        if not writer.open:
            part = list(itertools.takewhile(lambda u: not isinstance(u, Opaque), units[number:]))
            begin(part_work(part) >= LEAST_PART)
        failure = 0
        if isinstance(unit, Form) and unit.checks:
            checks.append(_twin(unit, array, place))
            failure = len(checks)
        writer.unit(unit, failure)
    writer.end()
    text = writer.text()
    work = numpy.empty(max(writer.work, 1) + 64, numpy.uint8)
    spans = numpy.array(written_spans(units, place, keepers), numpy.int64)
    known = {WORK: work.ctypes.data + -work.ctypes.data % 64, STATE: team.address, WRITTEN: spans.ctypes.data}
    table = numpy.array(writer.table(keepers, known), numpy.int64)
    memory = (table, work, spans, [keepers[buffer][0] for buffer in writer.buffers])
    names = {**bound.values, "table": table.ctypes.data, "copied": copier([array(g.whole) for g in given])}
    if parts:
        made = module.load(text)
        names |= {f"part{number}": getattr(made, f"part{number}") for number in range(parts)}
        if writer.threaded:
            team.bind(made.assist, table.ctypes.data, memory)
            names["step_team"] = team
            body = ["step_team.begin()", *body, "step_team.end()"]

    def check(failure: int) -> None:
        checks[failure - 1]()

    names["check"] = check
    replay, source = compile_source(", ".join(arrays), body, names)
    replay.memory = memory  # type: ignore[attr-defined]
    return replay, text + "\n\n" + source


def _twin(unit: Form, array: Callable[[View], numpy.ndarray], place: Callable[[Any], Any]) -> Callable[[], None]:
    """Calls what a form stands for: it says what is wrong with its input."""
    bound = Bound(array)
    text = line(unit.call.replaced(place), bound)
    namespace: dict[str, Any] = dict(bound.values)
    code = compile(text, "<recorded step>", "eval")

    def call() -> None:
        eval(code, namespace)

    return call


__all__ = ["Unit", "function", "fused", "taken", "without_dead_stores"]
