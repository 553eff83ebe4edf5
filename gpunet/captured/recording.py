"""One recording: the step, run once on buffers of its own, and what a replay of it does."""

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
from gpunet.captured.explain import Explanation, explain_calls, explain_launches, untimed
from gpunet.captured.generated import compile_source
from gpunet.captured.guards import Surroundings, tensors
from gpunet.captured.ir import tree_leaves, tree_map
from gpunet.captured.lowering import REFS_OF_LIST_ITEM, Lowering, share
from gpunet.captured.trace import owner_of
from gpunet.errors import CaptureError
from gpunet.launch.tape import ANY, Split, Tape, record


class _Output:
    """Stands for a tensor in what the step returned."""


_OUTPUT = _Output()


class Recording:
    """A step as it ran for arguments of certain shapes.

    Making it runs the step once: a step like any other, whose results are in ``first``.

    Raises:
        CaptureError: the step cannot be recorded; the message names the op and the user's line.
    """

    def __init__(
        self, function: Callable[..., Any], args: tuple[Any, ...], options: dict[str, Any], key: Any, backend: str = "numpy",
        fullgraph: bool = True,
    ) -> None:  # fmt: skip
        self.key, self.backend, self.fullgraph = key, backend, fullgraph
        #: arrays of arguments that are tensors in a row like the recorded ones, None for others: a slower look decides;
        #: ``takes_rows`` takes tensors of which so many rows are like the recorded ones
        self.takes, self.takes_rows = _like(args, options), _like(args, options, "(rows, *{}.shape[1:])", ", rows")
        modes = is_grad_enabled(), get_default_dtype()
        #: what must be so for a replay
        self.conditions = Surroundings(function, (args, options)).conditions
        # of its own: a context cannot be entered twice, and another step may run in another thread
        self._context = contextvars.copy_context()
        self._context.run(numpy.seterr, all="ignore")
        self._alone = threading.Lock()
        given = [t.array for t in tensors((args, options))]
        check_arguments(args, options)
        self.inputs = [_copied(a) for a in given]
        self._strided = {index for index, a in enumerate(given) if not a.flags.c_contiguous}  # as they will be again, mostly
        #: without ``fullgraph`` what cannot be recorded, and where: then this is no recording, but the step ran
        self.splits: list[Split] = []
        tape = Tape(strict=True, splits=None if fullgraph else self.splits)
        try:
            outputs = self._record(function, tape, args, options)
        except BaseException:
            if not fullgraph:  # the step ran so far, on copies of its arguments
                self._note_written(tape)
                self._hand_back(given)
            raise
        changed = self.conditions.broken()
        if changed and not self.splits:
            way_out = "keep it in a tensor that the step changes in place, or change it outside"
            self._refuse(f"the step changes {changed!r}, which its code also reads, and a replay runs no Python", way_out)
        self._note_written(tape)
        if not fullgraph:
            self.rows = [untimed(launch) for launch in tape.launches]
        if self.splits:
            self._hand_back(given)
            return
        leaves = [(weakref.ref(leaf), before, leaf._grad) for leaf, before in tape.leaves.items()]
        tape.leaves.clear()
        gc.collect(1)
        alive = [(leaf, before, gradient) for reference, before, gradient in leaves if (leaf := reference()) is not None]
        del leaves  # those that the step made for itself are gone
        self._gradients = [(leaf, gradient) for leaf, _, gradient in alive]
        self._lower(tape, outputs)
        if self.splits:
            self._hand_back(given)
            return
        self._add_conditions(tape, modes, [(leaf, before) for leaf, before, _ in alive if before is not ANY])
        self._changed = list(tape.changed.values())
        #: the step again, on the arrays of new arguments; returns what the step returned, in memory of its own
        self.replay = self._replays(rows=False)
        self._hand_back(given)

    def _note_written(self, tape: Tape) -> None:
        self._written = {
            id(owner_of(a)) for x in tape.launches for a in tree_leaves(x.arrays[: x.kernel.outputs], devices.is_array)
        }
        self._written_inputs = {index for index, a in enumerate(self.inputs) if id(a) in self._written}

    def _hand_back(self, given: list[Array]) -> None:
        """Change the arguments as the first run changed the copies of them."""
        _check_aliases(given, self._written, self._written_inputs)
        for index in self._written_inputs:
            with devices.on_device_of(given[index]):
                given[index][...] = self.inputs[index]

    def _refuse(self, what: str, way_out: str) -> None:
        if self.fullgraph:
            raise CaptureError(f"{what}: {way_out}")
        self.splits.append(Split(what, "", way_out))

    def _record(self, function: Any, tape: Tape, args: Any, options: Any) -> list[Array]:
        """Run the step; the arrays of what it returned."""
        buffers = iter(self.inputs)
        inputs, settings = tree_map((args, options), lambda t: Tensor(next(buffers)), Tensor)
        with record(tape):
            result = function(*inputs, **settings)
        if self.splits:
            own = {id(copy): t for copy, t in zip(tensors((inputs, settings)), tensors((args, options)))}
            self.first = tree_map(result, lambda t: own.get(id(t), t), Tensor)
        else:  # what this first run returned gets memory of its own, since the buffers belong to the replays
            self.first = tree_map(result, lambda t: Tensor(_copied(t.array)), Tensor)
        self._structure = tree_map(result, lambda t: _OUTPUT, Tensor)
        return [t.array for t in tensors(result)]

    # -- lowerings
    def _lower(self, tape: Tape, outputs: list[Array]) -> None:
        """Make the function of a replay, on planned memory."""
        self.lines = [(launch.kernel.name, launch.line) for launch in tape.launches]
        allocated = {id(owner_of(a)) for a in tape.allocated}
        constants = {id(owner_of(a)) for a in tape.constants}
        gradients = [g for _, g in self._gradients if g is not None and id(owner_of(g.array)) in allocated]
        lowering = self.lowering = Lowering(tape.launches, [*outputs, *(g.array for g in gradients)], self.backend)
        inputs = {id(a): index for index, a in enumerate(self.inputs)}
        objects, origins = _outside_arrays(tape, allocated | inputs.keys())
        # from here on, what nobody else holds is the step's own memory
        values = [_copied(g.array) for g in gradients]
        for gradient in gradients:
            gradient.array = None
        del outputs[:], tape.launches[:], tape.allocated[:], tape.constants[:]
        gc.collect(1)
        own = []
        arguments: dict[int, bool] = {}  # by number of the buffer, and whether somebody else holds it
        numbers: dict[int, int] = {}  # of the arguments
        for number, buffer in enumerate(lowering.buffers):
            key = id(buffer.array)
            # held by: the buffer, getrefcount, the objects or the inputs
            held = getrefcount(buffer.array) > 2 + (key in objects or key in inputs)
            own.append(key in allocated and not held)
            if key in inputs and inputs[key] not in self._strided:
                arguments[number], numbers[number] = held, inputs[key]
            if not (held or buffer.constant or buffer.temporary or key in allocated or key in constants or key in inputs):
                for gradient, value in zip(gradients, values):
                    gradient.array = value
                what = f"{origins.get(key, 'the step')} uses an array that was computed outside of launches; a replay would "
                self._refuse(f"{what}see it as it is now", "make it outside the step, or pass it as an argument")
                return
        # held by: the objects, and the buffer where it is its own owner
        buffers = {id(b.array) for b in lowering.buffers}
        counts = dict(zip(objects, map(getrefcount, objects.values())))
        self._outside = [
            share(a) for key, a in objects.items()
            if counts[key] > REFS_OF_LIST_ITEM + (key in buffers) and id(owner_of(a)) not in constants
        ]  # fmt: skip
        for shared in self._outside:
            shared.of_recording = True
        objects.clear()
        try:
            self._run, kept = lowering.finish(own, arguments)
        except CaptureError as error:  # of a card
            for gradient, value in zip(gradients, values):
                gradient.array = value
            self._refuse(str(error), "look at such values outside the step")
            return
        self._taken = [numbers[number] for number in lowering.taken]  # arguments that the function takes itself
        self._outputs = kept[: len(kept) - len(gradients)]
        for gradient, array, value in zip(gradients, kept[len(self._outputs) :], values):
            gradient.array = array
            with devices.on_device_of(array):
                array[...] = value
        self._written_inputs = {index for key, index in inputs.items() if key in lowering.written}
        self._written = lowering.written

    # -- replays
    def _add_conditions(self, tape: Tape, modes: tuple[bool, Any], entry: list[tuple[Tensor, Any]]) -> None:
        """Under which the launches are what the step would do.

        Args:
            entry: leaves whose gradient the step found, and what it was.
        """
        add = self.conditions.add
        add("({}.enabled, {}()) == {}", (mode.current, get_default_dtype, modes), "grad mode or the default dtype")
        for leaf, before in entry:
            add("{}._grad is {}", (leaf, before), f"the gradient of a tensor of shape {leaf.shape}")
        for condition in tape.relied:
            add(*condition)
        for options in tape.options:
            values = options[0], options, functools.partial(_options_hold, options)
            add("({}.changes == {}[1] or {}())", values, functools.partial(_changed_options, options))
        for shared in self._outside:
            # held by: the recordings' one reference, the call's stack
            reason = f"a tensor of shape {shared.array.shape} that the step found outside"
            add("{}({}.array) > 2", (getrefcount, shared), reason)

    @functools.cached_property
    def replay_rows(self) -> Callable[..., Any]:
        """``replay`` where the arguments are rows of what is given: the second argument says which."""
        return self._replays(rows=True)

    def _replays(self, rows: bool) -> Callable[..., Any]:
        names: dict[str, Any] = {
            "Tensor": Tensor, "gather": gather, "alone": self._alone, "run": self._run, "in_context": self._context.run,
            "check": _check_aliases, "written": self._written, "changed": self._written_inputs, "current": devices.on_device_of,
        }  # fmt: skip
        lines: list[str] = []

        def name(kind: str, number: int, value: Any) -> str:
            names[f"{kind}{number}"] = value
            return f"{kind}{number}"

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
            elif number not in self._taken:
                lines.append(f"{buffer_name}[...] = {array}")
        taken = [f"{'buffer' if rows else 'given'}{number}" for number in self._taken]
        lines.append(f"in_context({', '.join(('run', *taken))})")
        lines += [f"{name('version', n, version)}[0] += 1" for n, version in enumerate(self._changed)]
        for number, (leaf, gradient) in enumerate(self._gradients):
            lines.append(f"{name('leaf', number, leaf)}._grad = {name('gradient', number, gradient)}")
        lines += [f"given{n}[{'rows' if rows else '...'}] = buffer{n}" for n in sorted(self._written_inputs)]
        if self._structure is _OUTPUT:
            names["output"] = self._outputs[0]
            lines.append("return Tensor(output.copy())")
        else:
            names |= {"result": _result, "structure": self._structure, "outputs": self._outputs}
            lines.append("return result(structure, outputs)")
        lines = ["with alone:", *(f"    {line}" for line in lines)]
        if (on_card := next((a for a in (*self.inputs, *self._outputs) if devices.of(a).type == "cuda"), None)) is not None:
            names["on_card"] = on_card
            lines = ["with current(on_card):", *(f"    {line}" for line in lines)]
        return compile_source("given, rows" if rows else "given", lines, names)[0]

    def explain(self) -> Explanation:
        """Time what a replay does; its tensors are as before afterwards."""
        with self._alone:
            explain = explain_calls if self.lowering.tape is None else explain_launches
            return self._context.run(explain, self.lowering, self.lines)


def _like(args: tuple[Any, ...], options: dict[str, Any], shape: str = "{}.shape", parameters: str = "") -> Callable[..., Any]:
    """A function of arguments: their arrays, if they are nothing but tensors in a row like these, else None.

    Args:
        shape: what an array's shape is compared with, as source.
    """
    if options or not all(isinstance(t, Tensor) for t in args):
        return lambda *_: None
    names: dict[str, Any] = {"Tensor": Tensor}
    terms = [f"not options and len(args) == {len(args)}"]
    arrays = [f"a{index}" for index in range(len(args))]
    for index, (name, tensor) in enumerate(zip(arrays, args)):
        names |= {f"shape{index}": tensor.array.shape, f"dtype{index}": tensor.array.dtype, f"kind{index}": type(tensor.array)}
        terms.append(f"isinstance(t := args[{index}], Tensor) and type({name} := t.array) is kind{index}")
        terms.append(f"{shape.format(name)} == shape{index} and {name}.dtype == dtype{index}")
    line = f"return [{', '.join(arrays)}] if {' and '.join(terms)} else None"
    return compile_source(f"args, options{parameters}", [line], names)[0]


def _check_aliases(given: list[Array], written: set[int], changed: set[int]) -> None:
    """Refuse arguments that share memory, where one of them is changed: the copies would not.

    Args:
        written: ids of the arrays outside that the step changes.
        changed: numbers of the arguments that it changes.

    Raises:
        CaptureError: which of them.
    """
    owners = [id(owner_of(a)) for a in given]
    changed_owners = {owners[i] for i in changed}
    for index, owner in enumerate(owners):
        if owner in written or (owner in changed_owners and owners.count(owner) > 1):
            raise CaptureError(
                f"argument {index} of shape {given[index].shape} shares memory with what the step changes in place; "
                "its copy would not follow. Pass a .clone(), or let the step find the tensor outside"
            )


def _result(structure: Any, outputs: list[Array]) -> Any:
    """What the step returned, in memory of its own."""
    values = iter(outputs)
    return tree_map(structure, lambda _: Tensor(next(values).copy()), _Output)


def _options_hold(entry: list[Any]) -> bool:
    """Whether a group of an optimizer has the options it had, though some were set."""
    group, _, settings = entry
    changes = group.changes
    if group.settings() != settings:
        return False
    entry[1] = changes
    return True


def _changed_options(entry: list[Any]) -> str:
    """Which options are others now, and what they were."""
    group, _, before = entry
    now = group.settings()
    changed = [name for name in now | before if before.get(name) != now.get(name)]
    return f"an option of an optimizer ({', '.join(f'{n} was {before.get(n)} and is {now.get(n)}' for n in changed)})"


def _outside_arrays(tape: Tape, own: set[int]) -> tuple[dict[int, Array], dict[int, str]]:
    """The arrays that launches name and that don't lie in memory of the step's own, and where each memory is used first.

    Args:
        own: ids of the owners of the step's own memory.
    """
    objects: dict[int, Array] = {}
    origins: dict[int, str] = {}
    for launch in tape.launches:
        for array in tree_leaves((launch.arrays, launch.options), devices.is_array):
            owner = id(owner_of(array))
            origins.setdefault(owner, f"{launch.kernel.name} ({launch.line})")
            if owner not in own:
                objects[id(array)] = array
    return objects, origins


def _copied(array: Array) -> Array:
    with devices.on_device_of(array):
        return array.copy()


def gather(buffer: Array, source: Array, rows: Any) -> None:
    """buffer = source[rows], without a copy in between on the CPU."""
    if type(buffer) is numpy.ndarray and type(rows) is numpy.ndarray:
        numpy.take(source, rows, axis=0, out=buffer, mode="clip")  # "raise" would copy; the rows are a permutation's
    else:
        buffer[...] = source[rows]


def check_arguments(args: Any, options: Any) -> None:
    """Refuse arguments that require grad.

    Raises:
        CaptureError: one of them does.
    """
    for tensor in tensors((args, options)):
        if tensor.requires_grad:
            raise CaptureError(
                f"an argument of shape {tensor.shape} requires grad: arguments are copied, so no gradient would reach it. "
                "Let the step find it outside, as it finds its parameters, or pass .detach()"
            )
