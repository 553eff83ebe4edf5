"""The replay function of a compiled step: it calls the compiled parts, and NumPy between them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy

from gpunet.captured import numpy_calls
from gpunet.captured.codegen import compile_source
from gpunet.captured.compiled.arguments import WRITTEN_SPANS, Argument, copy_rejected, written_spans
from gpunet.captured.compiled.expressions import TYPE_NAMES
from gpunet.captured.compiled.interpreter import help_regions, starter
from gpunet.captured.compiled.library_calls import SCRATCH, NumpyUnit
from gpunet.captured.compiled.nests import Unit
from gpunet.captured.compiled.program import Program
from gpunet.captured.compiled.regions import Team, is_worth_helpers
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
    program = Program(place, arguments)
    parameters = [f"argument{number}" for number in range(len(arguments))]
    bound = Bound(array, {a.whole.buffer: (name, a.whole) for a, name in zip(arguments, parameters)})
    body: list[str] = []
    groups = [[*group] for _, group in itertools.groupby(units, lambda unit: isinstance(unit, NumpyUnit))]
    if arguments and isinstance(units[0], NumpyUnit):
        groups.insert(0, [])  # a part that only checks the arguments
    parts: list[bool] = []  # whether helpers may take part
    for group in groups:
        if calls := [unit.call for unit in group if isinstance(unit, NumpyUnit)]:
            body += [line(call.replaced(place), bound) for call in calls]
            continue
        is_threaded = is_worth_helpers(group)
        if is_threaded:
            body.append("step_team.summon()")
        checked = [] if parts else parameters  # the first part checks the arguments for all
        number = program.add_part(group, is_threaded)
        parts.append(is_threaded)
        call = f"start{number}({', '.join((f'part{number}', *checked))})"
        body.append(f"failure = {call}")
        if checked:
            arrays = f"{', '.join(checked)},"
            body.append("if failure < 0:")
            body.extend([f"    {arrays} = copy_rejected(-failure, ({arrays}), buffers)", f"    failure = {call}"])
        body.extend(["if failure:", "    checks[failure - 1]()"])
    team = Team()
    scratch = numpy.empty(max(program.scratch_bytes, 1) + 64, numpy.uint8)
    spans = numpy.array(written_spans(units, place, keepers), numpy.int64)
    named: dict[Any, int] = {SCRATCH: scratch.ctypes.data + -scratch.ctypes.data % 64, WRITTEN_SPANS: spans.ctypes.data}

    def address(key: Any) -> int:
        return named[key] if key in named else keepers[key][1]

    words, addresses = program.build(address, team.address)
    memory = (words, scratch, spans, [keepers[buffer][0] for buffer in program.buffers])
    # the calls that the units with checks replace: they raise the error for invalid input
    checks = [numpy_calls.function([unit.call.replaced(place)], array)[0] for unit in program.checked]
    names: dict[str, Any] = {
        **bound.values, "checks": checks, "copy_rejected": copy_rejected, "buffers": [array(a.whole) for a in arguments],
    }  # fmt: skip
    signature = tuple((TYPE_NAMES[a.whole.dtype], len(a.whole.shape)) for a in arguments)
    for number, (is_threaded, part) in enumerate(zip(parts, addresses)):
        names |= {f"part{number}": part, f"start{number}": starter(() if number else signature, is_threaded)}
    if program.has_regions:
        team.bind(help_regions(), words.ctypes.data, memory)
        names["step_team"] = team
        body = ["step_team.begin()", *body, "step_team.end()"]
    replay, source = compile_source(", ".join(parameters), body, names)
    replay.memory = memory  # type: ignore[attr-defined]
    return replay, program.text() + "\n\n" + source
