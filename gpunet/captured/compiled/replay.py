"""The replay function of a compiled step: it calls the compiled parts, and NumPy between them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy

from gpunet.captured import numpy_calls
from gpunet.captured.codegen import compile_source
from gpunet.captured.compiled import module
from gpunet.captured.compiled.arguments import WRITTEN_SPANS, Argument, copy_rejected, written_spans
from gpunet.captured.compiled.library_calls import SCRATCH, NumpyUnit
from gpunet.captured.compiled.nests import Unit
from gpunet.captured.compiled.regions import RUN_CHUNK, STATE, Team, is_worth_helpers
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
    body: list[str] = []
    groups = [[*group] for _, group in itertools.groupby(units, lambda unit: isinstance(unit, NumpyUnit))]
    if arguments and isinstance(units[0], NumpyUnit):
        groups.insert(0, [])  # a part that only checks the arguments
    parts: list[str] = []
    for group in groups:
        if calls := [unit.call for unit in group if isinstance(unit, NumpyUnit)]:
            body += [line(call.replaced(place), bound) for call in calls]
            continue
        is_threaded = is_worth_helpers(group)
        if is_threaded:
            body.append("step_team.summon()")
        checked = [] if parts else parameters  # the first part checks the arguments for all
        parts.append(writer.add_part(group, is_threaded))
        call = f"{parts[-1]}({', '.join(('table', *checked))})"
        body.append(f"failure = {call}")
        if checked:
            arrays = f"{', '.join(checked)},"
            body.append("if failure < 0:")
            body.extend([f"    {arrays} = copy_rejected(-failure, ({arrays}), buffers)", f"    failure = {call}"])
        body.extend(["if failure:", "    checks[failure - 1]()"])
    text, team = writer.text(), Team()
    scratch = numpy.empty(max(writer.scratch_bytes, 1) + 64, numpy.uint8)
    spans = numpy.array(written_spans(units, place, keepers), numpy.int64)
    scratch_address = scratch.ctypes.data + -scratch.ctypes.data % 64
    named = {SCRATCH: scratch_address, STATE: team.address, WRITTEN_SPANS: spans.ctypes.data}
    step: Any = module.load(text) if parts else None
    if writer.regions:
        named[RUN_CHUNK] = step.run_chunk.address
    table = numpy.array(writer.table(keepers, named), numpy.int64)
    memory = (table, scratch, spans, [keepers[buffer][0] for buffer in writer.buffers])
    # the calls that the units with checks replace: they raise the error for invalid input
    checks = [numpy_calls.function([unit.call.replaced(place)], array)[0] for unit in writer.checked]
    names: dict[str, Any] = {
        **bound.values, "table": table.ctypes.data, "checks": checks, "copy_rejected": copy_rejected,
        "buffers": [array(a.whole) for a in arguments],
    }  # fmt: skip
    names |= {part: getattr(step, part) for part in parts}
    if writer.regions:
        team.bind(step.help_regions, table.ctypes.data, named[RUN_CHUNK], memory)
        names["step_team"] = team
        body = ["step_team.begin()", *body, "step_team.end()"]
    replay, source = compile_source(", ".join(parameters), body, names)
    replay.memory = memory  # type: ignore[attr-defined]
    return replay, text + "\n\n" + source
