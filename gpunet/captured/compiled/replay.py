"""The replay function of a compiled step: it calls the compiled parts, and NumPy between them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy

from gpunet.captured.codegen import compile_source
from gpunet.captured.compiled import module
from gpunet.captured.compiled.arguments import WRITTEN_SPANS, Argument, make_copier, written_spans
from gpunet.captured.compiled.library_calls import SCRATCH, LibraryUnit, NumpyUnit
from gpunet.captured.compiled.nests import Unit
from gpunet.captured.compiled.regions import STATE, Team, is_worth_helpers
from gpunet.captured.compiled.source import Writer
from gpunet.captured.ir import View
from gpunet.captured.numpy_calls import Bound, line


def function(
    units: Sequence[Unit], array: Callable[[View], numpy.ndarray], keepers: dict[int, tuple[Any, int]],
    place: Callable[[Any], Any], arguments: Sequence[Argument],
) -> tuple[Callable[..., None], str]:  # fmt: skip
    """The function that runs all units, called with an array per argument, and its source.

    Args:
        array: returns the array of a view.
        keepers: buffer -> the owner of its memory, and its address.
        place: maps a view, or a nest's operand, to the memory plan.
    """
    writer = Writer(place, arguments)
    parameters = [f"argument{number}" for number in range(len(arguments))]
    bound = Bound(array, {a.whole.buffer: (name, a.whole) for a, name in zip(arguments, parameters)})
    checks: list[Callable[[], None]] = []
    body: list[str] = []
    team = Team()
    num_parts = 0

    def begin_part(threaded: bool) -> None:
        nonlocal num_parts
        writer.begin(threaded)
        if threaded:
            body.append("step_team.summon()")
        names = [] if num_parts else parameters  # the first part checks the arguments for all
        call = f"part{num_parts}({', '.join(('table', *names))})"
        body.append(f"failure = {call}")
        if names:
            arrays = f"{', '.join(names)},"
            body.append("if failure < 0:")
            body.extend([f"    {arrays} = copy_arguments(-failure, ({arrays}))", f"    failure = {call}"])
        body.extend(["if failure:", "    check(failure)"])
        num_parts += 1

    if arguments and isinstance(units[0], NumpyUnit):  # a part that only checks the arguments
        begin_part(threaded=False)
        writer.end()
    for number, unit in enumerate(units):
        if isinstance(unit, NumpyUnit):
            writer.end()
            body.append(line(unit.call.replaced(place), bound))
            continue
        if not writer.is_open:
            begin_part(is_worth_helpers(itertools.takewhile(lambda u: not isinstance(u, NumpyUnit), units[number:])))
        failure = 0
        if isinstance(unit, LibraryUnit) and unit.checks_input:
            checks.append(_twin_call(unit, array, place))
            failure = len(checks)
        writer.add(unit, failure)
    writer.end()
    text = writer.text()
    scratch = numpy.empty(max(writer.scratch_bytes, 1) + 64, numpy.uint8)
    spans = numpy.array(written_spans(units, place, keepers), numpy.int64)
    scratch_address = scratch.ctypes.data + -scratch.ctypes.data % 64
    named = {SCRATCH: scratch_address, STATE: team.address, WRITTEN_SPANS: spans.ctypes.data}
    table = numpy.array(writer.table(keepers, named), numpy.int64)
    memory = (table, scratch, spans, [keepers[buffer][0] for buffer in writer.buffers])
    copy_arguments = make_copier([array(a.whole) for a in arguments])
    names = {**bound.values, "table": table.ctypes.data, "copy_arguments": copy_arguments}
    if num_parts:
        step = module.load(text)
        names |= {f"part{number}": getattr(step, f"part{number}") for number in range(num_parts)}
        if writer.has_regions:
            team.bind(step.help_regions, table.ctypes.data, memory)
            names["step_team"] = team
            body = ["step_team.begin()", *body, "step_team.end()"]

    def check(failure: int) -> None:
        checks[failure - 1]()

    names["check"] = check
    replay, source = compile_source(", ".join(parameters), body, names)
    replay.memory = memory  # type: ignore[attr-defined]
    return replay, text + "\n\n" + source


def _twin_call(
    unit: LibraryUnit, array: Callable[[View], numpy.ndarray], place: Callable[[Any], Any]
) -> Callable[[], None]:
    """A function that makes the call that a library unit replaces: it raises the error for invalid input."""
    bound = Bound(array)
    text = line(unit.call.replaced(place), bound)
    namespace: dict[str, Any] = dict(bound.values)
    code = compile(text, "<recorded step>", "eval")

    def call() -> None:
        eval(code, namespace)

    return call
