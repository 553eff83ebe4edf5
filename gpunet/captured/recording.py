"""One recording of a step: run the step once on buffers of its own, lower its launches, compile a replay of them."""

from __future__ import annotations

import contextvars
import functools
import gc
import threading
import weakref
from collections.abc import Callable
from sys import getrefcount
from typing import Any

import numpy

from gpunet.autograd import Tensor, get_default_dtype, is_grad_enabled, mode
from gpunet.backend import devices
from gpunet.backend.devices import Array
from gpunet.captured.codegen import compile_source
from gpunet.captured.explain import Explanation, explain_calls, explain_launches
from gpunet.captured.guards import collect_guards, tensors
from gpunet.captured.ir import tree_leaves, tree_map
from gpunet.captured.lowering import REFS_OF_LIST_ITEM, Lowering, share
from gpunet.captured.trace import owner_of
from gpunet.errors import CaptureError
from gpunet.launch.tape import ANY, GraphBreak, Tape, record


class _Output:
    """Stands for a tensor in the structure that the step returned."""


_OUTPUT = _Output()


class Recording:
    """A step as it ran for arguments of certain shapes and dtypes.

    The constructor runs the step once, with all its effects; ``first`` holds the result.

    Args:
        function: the step.
        args: its positional arguments, arrays among them converted to tensors.
        options: its keyword arguments, likewise.
        key: identifies the shapes, dtypes and plain values of the arguments.
        backend: "numpy" or "numba".
        fullgraph: raise at a graph break.  If False, collect graph breaks in ``breaks`` and finish the step; with any of
            them there is nothing to replay.

    Raises:
        CaptureError: the step cannot be recorded; the message names the operation and the user's line.
    """

    def __init__(
        self, function: Callable[..., Any], args: tuple[Any, ...], options: dict[str, Any], key: Any, backend: str = "numpy",
        fullgraph: bool = True,
    ) -> None:  # fmt: skip
        self.key, self.backend, self.fullgraph = key, backend, fullgraph
        #: fast path: the arrays of positional tensors of the recorded shapes and dtypes, else None
        self.match = _compile_match(args, options)
        #: the same for tensors whose batches of ``rows`` rows have the recorded shapes
        self.match_rows = _compile_match(args, options, "(rows, *{}.shape[1:])", ", rows")
        modes = is_grad_enabled(), get_default_dtype()
        self.guards = collect_guards(function, (args, options))
        # one for each recording: a context cannot be entered twice, and another step may run in another thread
        self._context = contextvars.copy_context()
        self._context.run(numpy.seterr, all="ignore")
        self._lock = threading.Lock()
        given = [t.array for t in tensors((args, options))]
        check_arguments(args, options)
        self.inputs = [devices.copy(a) for a in given]
        # copied at each replay: later arguments are probably not contiguous either
        self._strided = {index for index, a in enumerate(given) if not a.flags.c_contiguous}
        #: without ``fullgraph``, the graph breaks
        self.breaks: list[GraphBreak] = []
        tape = Tape(strict=True, breaks=None if fullgraph else self.breaks)
        tape.arguments += self.inputs
        try:
            outputs = self._record(function, tape, args, options)
        except BaseException:
            if not fullgraph:  # the step ran up to here, on copies of its arguments
                self._find_written(tape)
                self._write_back(given)
            raise
        changed = self.guards.find_change()
        if changed and not self.breaks:
            way_out = "keep it in a tensor that the step changes in place, or change it outside the step"
            self._graph_break(f"the step changes {changed!r}, which it also reads, and a replay runs no Python", way_out)
        self._find_written(tape)
        if self.breaks:
            self._write_back(given)
            return
        leaves = [(weakref.ref(leaf), before, leaf._grad) for leaf, before in tape.leaves.items()]
        tape.leaves.clear()
        gc.collect(1)
        alive = [(leaf, before, gradient) for reference, before, gradient in leaves if (leaf := reference()) is not None]
        del leaves  # leaves that only the step referred to are gone now
        self._gradients = [(leaf, gradient) for leaf, _, gradient in alive]
        for array, _, line in tape.guarded:
            if array() is None:
                what = f"{line} indexes with a NumPy array made inside the step"
                self._graph_break(f"{what}; a replay would not make it again", "make it outside the step, or use a list")
        self._lower(tape, outputs)
        if self.breaks:
            self._write_back(given)
            return
        self._add_guards(tape, modes, [(leaf, before) for leaf, before, _ in alive if before is not ANY])
        self._versions = list(tape.changed.values())
        #: replay the step on the arrays of new arguments; returns a copy of its results
        self.replay = self._compile_replay(rows=False)
        self._write_back(given)

    def _find_written(self, tape: Tape) -> None:
        """Find the arrays, and the inputs among them, that the launches write."""
        self._written = {
            id(owner_of(a)) for x in tape.launches for a in tree_leaves(x.arrays[: x.kernel.outputs], devices.is_array)
        }
        self._written_inputs = {index for index, a in enumerate(self.inputs) if id(a) in self._written}

    def _write_back(self, given: list[Array]) -> None:
        """Copy the inputs that the first run changed in place back to the user's arguments."""
        _check_aliases(given, self._written, self._written_inputs)
        for index in self._written_inputs:
            devices.assign(given[index], self.inputs[index])

    def _graph_break(self, what: str, way_out: str) -> None:
        """Raise CaptureError, or without ``fullgraph`` add the graph break to ``breaks``."""
        if self.fullgraph:
            raise CaptureError(f"{what}: {way_out}")
        self.breaks.append(GraphBreak(what, "", way_out))

    def _record(self, function: Any, tape: Tape, args: Any, options: Any) -> list[Array]:
        """Run the step and record its launches; return the arrays of its results."""
        buffers = iter(self.inputs)
        inputs, settings = tree_map((args, options), lambda t: Tensor(next(buffers)), Tensor)
        with record(tape):
            result = function(*inputs, **settings)
        if self.breaks:
            originals = {id(copy): t for copy, t in zip(tensors((inputs, settings)), tensors((args, options)))}
            self.first = tree_map(result, lambda t: originals.get(id(t), t), Tensor)
        else:  # copied, since replays overwrite the buffers
            self.first = tree_map(result, lambda t: Tensor(devices.copy(t.array)), Tensor)
        self._structure = tree_map(result, lambda t: _OUTPUT, Tensor)
        return [t.array for t in tensors(result)]

    # -- lowering
    def _lower(self, tape: Tape, outputs: list[Array]) -> None:
        """Build the function that runs the launches on planned memory; empties ``outputs`` and the tape."""
        self.lines = [(launch.kernel.name, launch.line) for launch in tape.launches]
        allocated = {id(owner_of(a)) for a in tape.allocated}
        constants = {id(owner_of(a)) for a in tape.constants}
        gradients = [g for _, g in self._gradients if g is not None and id(owner_of(g.array)) in allocated]
        lowering = self.lowering = Lowering(tape.launches, [*outputs, *(g.array for g in gradients)], self.backend)
        inputs = {id(a): index for index, a in enumerate(self.inputs)}
        outside, first_uses = _find_outside_arrays(tape, allocated | inputs.keys())
        # from here on, memory that only the lowering refers to is the step's own
        values = [devices.copy(g.array) for g in gradients]
        for gradient in gradients:
            gradient.array = None
        del outputs[:], tape.launches[:], tape.allocated[:], tape.arguments[:], tape.constants[:]
        gc.collect(1)
        own = []
        arguments: dict[int, bool] = {}  # buffer of an input -> whether something else refers to it
        input_indices: dict[int, int] = {}  # buffer of an input -> its index
        for number, buffer in enumerate(lowering.buffers):
            key = id(buffer.array)
            # references: the buffer's, getrefcount's, and that of ``outside`` or ``self.inputs``
            held = getrefcount(buffer.array) > 2 + (key in outside or key in inputs)
            own.append(key in allocated and not held)
            if key in inputs and inputs[key] not in self._strided:
                arguments[number], input_indices[number] = held, inputs[key]
            if not (held or buffer.constant or buffer.temporary or key in allocated or key in constants or key in inputs):
                for gradient, value in zip(gradients, values):
                    gradient.array = value
                what = f"{first_uses.get(key, 'the step')} reads an array computed by NumPy or CuPy inside the step"
                way_out = "create it outside the step, or pass it as an argument"
                self._graph_break(f"{what}; a replay would not compute it again", way_out)
                return
        # references: that of ``outside``, and the buffer's if the array is an owner
        buffers = {id(b.array) for b in lowering.buffers}
        counts = dict(zip(outside, map(getrefcount, outside.values())))
        self._outside = [
            share(a) for key, a in outside.items()
            if counts[key] > REFS_OF_LIST_ITEM + (key in buffers) and id(owner_of(a)) not in constants
        ]  # fmt: skip
        for shared in self._outside:
            shared.of_recording = True
        outside.clear()
        try:
            self._run, kept = lowering.finish(own, arguments)
        except CaptureError as error:  # a launch cannot be part of a CUDA graph
            for gradient, value in zip(gradients, values):
                gradient.array = value
            self._graph_break(str(error), "read values outside the step")
            return
        self._zero_copy = [input_indices[number] for number in lowering.zero_copy_inputs]
        self._outputs = kept[: len(kept) - len(gradients)]
        for gradient, array, value in zip(gradients, kept[len(self._outputs) :], values):
            gradient.array = array
            devices.assign(array, value)
        self._written_inputs = {index for key, index in inputs.items() if key in lowering.written}
        self._written = lowering.written

    # -- replays
    def _add_guards(self, tape: Tape, modes: tuple[bool, Any], entry: list[tuple[Tensor, Any]]) -> None:
        """Add guards for the state that was used while recording.

        Args:
            tape: of the recording.
            modes: grad mode and default dtype.
            entry: leaves whose ``grad`` the step read or added to, each with its ``grad`` at the start.
        """
        add = self.guards.add
        add("({}.enabled, {}()) == {}", (mode.current, get_default_dtype, modes), "grad mode or the default dtype")
        for leaf, before in entry:
            add("{}._grad is {}", (leaf, before), f"the gradient of a tensor of shape {leaf.shape}")
        for condition in tape.guards:
            add(*condition)
        for array, values, line in tape.guarded:
            add("{}({}, {})", (_has_values, array, values), f"the values of a NumPy array ({line})")
        for options in tape.optimizer_groups:
            values = options[0], options, functools.partial(_are_options_unchanged, options)
            add("({}.changes == {}[1] or {}())", values, functools.partial(_describe_changed_options, options))
        for shared in self._outside:
            # references: that of Shared, and getrefcount's argument; a third one is the user's
            reason = f"a tensor of shape {shared.array.shape} from outside the step, which was replaced or deleted"
            add("{}({}.array) > 2", (getrefcount, shared), reason)

    @functools.cached_property
    def replay_rows(self) -> Callable[..., Any]:
        """``replay_rows(arrays, rows)``: replay on ``array[rows]`` of each array; rows are a slice or indices."""
        return self._compile_replay(rows=True)

    def _compile_replay(self, rows: bool) -> Callable[..., Any]:
        in_host_memory = all(isinstance(a, numpy.ndarray) for a in (*self.inputs, *self._outputs))
        names: dict[str, Any] = {
            "Tensor": Tensor, "gather": gather, "lock": self._lock, "run": self._run, "in_context": self._context.run,
            "check": _check_aliases, "written": self._written, "changed": self._written_inputs,
            "copy": numpy.ndarray.copy if in_host_memory else devices.copy, "assign": devices.assign,
        }  # fmt: skip
        lines: list[str] = []

        def name(kind: str, number: int, value: Any) -> str:
            names[f"{kind}{number}"] = value
            return f"{kind}{number}"

        def write(target: str, source: str, index: str) -> str:
            return f"{target}[{index}] = {source}" if in_host_memory else f"assign({target}, {source}, {index})"

        given = [f"given{index}" for index in range(len(self.inputs))]
        if given:
            lines.append(f"{', '.join(given)}, = given")
        if self._written_inputs:
            lines.append("check(given, written, changed)")
        elif self._written and given:
            shares = " or ".join(f"{a}.base is not None or id({a}) in written" for a in given)
            lines += [f"if {shares}:", "    check(given, written, changed)"]
        for number, (array, buffer) in enumerate(zip(given, self.inputs)):
            buffer_name = name("buffer", number, buffer)
            if rows:
                lines.append(f"gather({buffer_name}, {array}, rows)")
            elif number not in self._zero_copy:
                lines.append(write(buffer_name, array, "..."))
        arguments = [f"{'buffer' if rows else 'given'}{number}" for number in self._zero_copy]
        lines.append(f"in_context({', '.join(('run', *arguments))})")
        lines += [f"{name('version', n, version)}[0] += 1" for n, version in enumerate(self._versions)]
        for number, (leaf, gradient) in enumerate(self._gradients):
            lines.append(f"{name('leaf', number, leaf)}._grad = {name('gradient', number, gradient)}")
        lines += [write(f"given{n}", f"buffer{n}", "rows" if rows else "...") for n in sorted(self._written_inputs)]
        if self._structure is _OUTPUT:
            names["output"] = self._outputs[0]
            lines.append("return Tensor(copy(output))")
        else:
            names |= {"copy_outputs": _copy_outputs, "structure": self._structure, "outputs": self._outputs}
            lines.append("return copy_outputs(structure, outputs, copy)")
        lines = ["with lock:", *(f"    {line}" for line in lines)]
        return compile_source("given, rows" if rows else "given", lines, names)[0]

    def explain(self) -> Explanation:
        """Time the launches of a replay, and restore the arrays that they change."""
        with self._lock:
            explain = explain_calls if self.lowering.tape is None else explain_launches
            return self._context.run(explain, self.lowering, self.lines)


def _compile_match(
    args: tuple[Any, ...], options: dict[str, Any], shape: str = "{}.shape", parameters: str = ""
) -> Callable[..., list[Array] | None]:
    """Compile ``match(args, options)``, which returns the arrays of positional tensors like ``args``, else None.

    It always returns None if the recorded arguments were not positional tensors alone.

    Args:
        args: positional arguments of the recorded call.
        options: its keyword arguments.
        shape: source of the shape to compare with the recorded one, "{}" being the array.
        parameters: source of further parameters, which ``shape`` uses.
    """
    if options or not all(isinstance(t, Tensor) for t in args):
        return lambda *_: None
    names: dict[str, Any] = {"Tensor": Tensor}
    terms = [f"not options and len(args) == {len(args)}"]
    arrays = [f"a{index}" for index in range(len(args))]
    for index, (name, tensor) in enumerate(zip(arrays, args)):
        names |= {f"shape{index}": tensor.array.shape, f"dtype{index}": tensor.array.dtype, f"kind{index}": type(tensor.array)}
        terms.append(f"isinstance(t := args[{index}], Tensor) and type({name} := t.array) is kind{index}")
        if not isinstance(tensor.array, numpy.ndarray):
            terms.append(f"{name}.device.id == {tensor.array.device.id}")
        terms.append(f"{shape.format(name)} == shape{index} and {name}.dtype == dtype{index}")
    line = f"return [{', '.join(arrays)}] if {' and '.join(terms)} else None"
    return compile_source(f"args, options{parameters}", [line], names)[0]


def _check_aliases(given: list[Array], written: set[int], changed: set[int]) -> None:
    """Raise if an argument shares memory that the step changes in place: its copy would not change with it.

    Args:
        given: arrays of the arguments.
        written: ids of the owners of memory that the step writes.
        changed: indices of the arguments that it changes in place.

    Raises:
        CaptureError: names the argument.
    """
    owners = [id(owner_of(a)) for a in given]
    changed_owners = {owners[i] for i in changed}
    for index, owner in enumerate(owners):
        if owner in written or (owner in changed_owners and owners.count(owner) > 1):
            raise CaptureError(
                f"tensor {index} of the arguments, of shape {given[index].shape}, shares memory with a tensor that the "
                "step changes in place; a captured step works on copies of its arguments, which would not change with it. "
                "Pass a .clone(), or let the step read the tensor from a closure or global instead"
            )


def _copy_outputs(structure: Any, outputs: list[Array], copy: Callable[[Array], Array]) -> Any:
    """Return the step's results, with a copy of each output in place of the tensors."""
    values = iter(outputs)
    return tree_map(structure, lambda _: Tensor(copy(next(values))), _Output)


def _has_values(array: weakref.ref[numpy.ndarray], values: numpy.ndarray) -> bool:
    """Whether an array exists and has these values."""
    now = array()
    return now is not None and numpy.array_equal(now, values)


def _are_options_unchanged(entry: list[Any]) -> bool:
    """Whether a parameter group has the recorded options, though some were set; then remember its count of changes.

    Args:
        entry: group, its count of changes, its recorded options.
    """
    group, _, settings = entry
    changes = group.changes
    if group.settings() != settings:
        return False
    entry[1] = changes
    return True


def _describe_changed_options(entry: list[Any]) -> str:
    """Return the options that differ from the recorded ones, with their values then and now."""
    group, _, before = entry
    now = group.settings()
    changed = [name for name in now | before if before.get(name) != now.get(name)]
    return f"an option of an optimizer ({', '.join(f'{n} was {before.get(n)} and is {now.get(n)}' for n in changed)})"


def _find_outside_arrays(tape: Tape, own: set[int]) -> tuple[dict[int, Array], dict[int, str]]:
    """Find the arguments of launches whose memory is from outside the step.

    Args:
        tape: of the recording.
        own: ids of the owners of the step's own memory.

    Returns:
        The arrays by id, and for the id of each owner the launch that uses it first, as "kernel (line)".
    """
    outside: dict[int, Array] = {}
    first_uses: dict[int, str] = {}
    for launch in tape.launches:
        for array in tree_leaves((launch.arrays, launch.options), devices.is_array):
            owner = id(owner_of(array))
            first_uses.setdefault(owner, f"{launch.kernel.name} ({launch.line})")
            if owner not in own:
                outside[id(array)] = array
    return outside, first_uses


def gather(buffer: Array, source: Array, rows: Any) -> None:
    """Copy ``source[rows]`` to ``buffer``, on the CPU without a temporary array."""
    if type(buffer) is numpy.ndarray and type(rows) is numpy.ndarray:
        numpy.take(source, rows, axis=0, out=buffer, mode="clip")  # mode="raise" makes a copy; these rows are in range
    else:
        devices.assign(buffer, devices.take(source, rows))


def check_arguments(args: Any, options: Any) -> None:
    """Raise if an argument requires grad.

    Raises:
        CaptureError: names its shape.
    """
    for tensor in tensors((args, options)):
        if tensor.requires_grad:
            raise CaptureError(
                f"an argument of shape {tensor.shape} requires grad, but a captured step works on copies of its arguments, "
                "so no gradient would reach it. Pass .detach(), or let the step read the tensor from a closure or global "
                "instead, as it reads its parameters"
            )
