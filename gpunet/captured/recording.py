"""One recording: the step, run once on buffers of its own, and what a replay of it does."""

from __future__ import annotations

import contextvars
import gc
import threading
import weakref
from collections.abc import Callable, Sequence
from sys import getrefcount
from typing import Any

import numpy

from gpunet import device as devices
from gpunet.autograd import Tensor, get_default_dtype, is_grad_enabled
from gpunet.captured.explanation import Explanation, explain_calls, explain_launches, untimed
from gpunet.captured.surroundings import Surroundings, tensors
from gpunet.device import Array
from gpunet.errors import CaptureError
from gpunet.runtime.lower import Lowering, share
from gpunet.runtime.lower.program import convert, found
from gpunet.runtime.lower.trace import owner_of
from gpunet.runtime.tape import ANY, Split, Tape, record


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
        #: the arguments' types, shapes and dtypes, where they are nothing but tensors in a row
        self._plain = [(t.array.shape, t.array.dtype, type(t.array)) for t in args if isinstance(t, Tensor)]
        self._plain_only = not options and len(self._plain) == len(args)
        self.modes = is_grad_enabled(), get_default_dtype()
        self.surroundings = Surroundings(function)
        # of its own: a context cannot be entered twice, and another step may run in another thread
        self._context = contextvars.copy_context()
        self._context.run(numpy.seterr, all="ignore")
        self._alone = threading.Lock()
        given = [t.array for t in tensors((args, options))]
        check_arguments(args, options)
        self.inputs = [_copied(a) for a in given]
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
        changed = self.surroundings.change()
        if changed and not self.splits:
            way_out = "keep it in a tensor that the step changes in place, or change it outside"
            self._refuse(f"the step changes {changed!r}, which its code also reads, and a replay runs no Python", way_out)
        self._note_written(tape)
        if not fullgraph:
            self.rows = [untimed(launch) for launch in tape.launches]
        if self.splits:
            self._hand_back(given)
            return
        self._relied, self._options, self._changed = tape.relied, tape.options, list(tape.changed.values())
        leaves = [(weakref.ref(leaf), before, leaf._grad) for leaf, before in tape.leaves.items()]
        tape.leaves.clear()
        gc.collect(1)
        alive = [(leaf, before, gradient) for reference, before, gradient in leaves if (leaf := reference()) is not None]
        del leaves  # those that the step made for itself are gone
        self._entry = [(leaf, before) for leaf, before, _ in alive if before is not ANY]
        self._gradients = [(leaf, gradient) for leaf, _, gradient in alive]
        self._lower(tape, outputs)
        if self.splits:
            self._hand_back(given)
            return
        self._on_card = next((a for a in (*self.inputs, *self._outputs) if devices.of(a).type == "cuda"), None)
        self._hand_back(given)

    def _note_written(self, tape: Tape) -> None:
        self._written = {
            id(owner_of(a)) for x in tape.launches for a in found(x.arrays[: x.kernel.outputs], devices.is_array)
        }
        self._written_inputs = {index for index, a in enumerate(self.inputs) if id(a) in self._written}

    def _hand_back(self, given: list[Array]) -> None:
        """Change the arguments as the first run changed the copies of them."""
        self._check_aliases(given)
        for index in self._written_inputs:
            with devices.current(given[index]):
                given[index][...] = self.inputs[index]

    def _refuse(self, what: str, way_out: str) -> None:
        if self.fullgraph:
            raise CaptureError(f"{what}: {way_out}")
        self.splits.append(Split(what, "", way_out))

    def _record(self, function: Any, tape: Tape, args: Any, options: Any) -> list[Array]:
        """Run the step; the arrays of what it returned."""
        buffers = iter(self.inputs)
        inputs, settings = convert((args, options), lambda t: Tensor(next(buffers)), Tensor)
        with record(tape):
            result = function(*inputs, **settings)
        if self.splits:
            own = {id(copy): t for copy, t in zip(tensors((inputs, settings)), tensors((args, options)))}
            self.first = convert(result, lambda t: own.get(id(t), t), Tensor)
        else:  # what this first run returned gets memory of its own, since the buffers belong to the replays
            self.first = convert(result, lambda t: Tensor(_copied(t.array)), Tensor)
        self._structure = convert(result, lambda t: _OUTPUT, Tensor)
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
        for buffer in lowering.buffers:
            key = id(buffer.array)
            held = getrefcount(buffer.array) > 2 + (key in objects)  # held by: the buffer, getrefcount, the objects
            own.append(key in allocated and not held)
            if not (held or buffer.constant or buffer.temporary or key in allocated or key in constants or key in inputs):
                for gradient, value in zip(gradients, values):
                    gradient.array = value
                what = f"{origins.get(key, 'the step')} uses an array that was computed outside of launches; a replay would "
                self._refuse(f"{what}see it as it is now", "make it outside the step, or pass it as an argument")
                return
        # held by: the objects, this variable, getrefcount, and the buffer where it is its own owner
        buffers = {id(b.array) for b in lowering.buffers}
        self._outside = [
            share(a) for a in objects.values()
            if getrefcount(a) > 3 + (id(a) in buffers) and id(owner_of(a)) not in constants
        ]  # fmt: skip
        for shared in self._outside:
            shared.of_recording = True
        objects.clear()
        self._run, kept = lowering.finish(own)
        self._outputs = kept[: len(kept) - len(gradients)]
        for gradient, array, value in zip(gradients, kept[len(self._outputs) :], values):
            gradient.array = array
            with devices.current(array):
                array[...] = value
        self._written_inputs = {index for key, index in inputs.items() if key in lowering.written}
        self._written = lowering.written

    # -- arguments
    def _check_aliases(self, given: list[Array]) -> None:
        """Refuse arguments that share memory, where one of them is changed: the copies would not.

        Raises:
            CaptureError: which of them.
        """
        owners = [id(owner_of(a)) for a in given]
        changed = {owners[i] for i in self._written_inputs}
        for index, owner in enumerate(owners):
            if owner in self._written or (owner in changed and owners.count(owner) > 1):
                raise CaptureError(
                    f"argument {index} of shape {given[index].shape} shares memory with what the step changes in place; "
                    "its copy would not follow. Pass a .clone(), or let the step find the tensor outside"
                )

    # -- replays
    def takes(self, args: Sequence[Any], options: dict[str, Any], rows: int | None = None) -> bool:
        """Whether the arguments are tensors in a row like the recorded ones; a slower look decides about others.

        Args:
            rows: where given, so many rows of each argument.
        """
        if options or not self._plain_only or len(args) != len(self._plain):
            return False
        for tensor, (shape, dtype, kind) in zip(args, self._plain):
            if not isinstance(tensor, Tensor):
                return False
            array = tensor.array
            given = array.shape if rows is None else (rows, *array.shape[1:])
            if given != shape or array.dtype != dtype or type(array) is not kind:
                return False
        return True

    def mismatch(self) -> str:
        """Why this recording no longer fits; nothing when it does."""
        if self.modes != (is_grad_enabled(), get_default_dtype()):
            return "grad mode or the default dtype"
        for leaf, before in self._entry:
            if leaf._grad is not before:
                return f"the gradient of a tensor of shape {leaf.shape}"
        for counter, value in self._relied:
            if counter[0] != value:
                return "the parameters that an optimizer steps together"
        for entry in self._options:
            group, changes, settings = entry
            if group.changes != changes:
                if group.settings() != settings:
                    return "an option of an optimizer"
                entry[1] = group.changes
        for shared in self._outside:
            if shared.references() < 1:
                return f"a tensor of shape {shared.array.shape} that the step found outside"
        return self.surroundings.change()

    def replay(self, given: list[Array], rows: Any = None) -> Any:
        """The step again, on new arguments; returns what the step returned, in memory of its own.

        Args:
            rows: where given, the arguments are these rows of ``given``.
        """
        if self._on_card is not None:
            with devices.current(self._on_card):
                return self._replay(given, rows)
        return self._replay(given, rows)

    def _replay(self, given: list[Array], rows: Any) -> Any:
        with self._alone:
            if self._written:
                self._check_aliases(given)
            for buffer, array in zip(self.inputs, given):
                if rows is None:
                    buffer[...] = array
                else:
                    gather(buffer, array, rows)
            self._context.run(self._run)
            for version in self._changed:
                version[0] += 1
            for leaf, gradient in self._gradients:
                leaf._grad = gradient
            for index in self._written_inputs:
                given[index][... if rows is None else rows] = self.inputs[index]
            if self._structure is _OUTPUT:
                return Tensor(self._outputs[0].copy())
            outputs = iter(self._outputs)
            return convert(self._structure, lambda _: Tensor(next(outputs).copy()), _Output)

    def explain(self) -> Explanation:
        """Time what a replay does; its tensors are as before afterwards."""
        with self._alone:
            explain = explain_calls if self.lowering.tape is None else explain_launches
            return self._context.run(explain, self.lowering, self.lines)


def _outside_arrays(tape: Tape, own: set[int]) -> tuple[dict[int, Array], dict[int, str]]:
    """The arrays that launches name and that don't lie in memory of the step's own, and where each memory is used first.

    Args:
        own: ids of the owners of the step's own memory.
    """
    objects: dict[int, Array] = {}
    origins: dict[int, str] = {}
    for launch in tape.launches:
        for array in found((launch.arrays, launch.options), devices.is_array):
            owner = id(owner_of(array))
            origins.setdefault(owner, f"{launch.kernel.name} ({launch.line})")
            if owner not in own:
                objects[id(array)] = array
    return objects, origins


def _copied(array: Array) -> Array:
    with devices.current(array):
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
