"""One recording of a step: run the step once on buffers of its own, lower its launches, compile a replay of them."""

from __future__ import annotations

import contextvars
import functools
import gc
import threading
import weakref
from collections.abc import Callable, Mapping
from typing import Any

import numpy

from gpunet.autograd import Tensor, get_default_dtype, is_grad_enabled, make_tensor, mode
from gpunet.backend import devices
from gpunet.backend.compiler import max_shared_bytes
from gpunet.backend.devices import Array, owner_of
from gpunet.captured.check import Described, compare, describe
from gpunet.captured.codegen import compile_source
from gpunet.captured.explain import Explanation, explain
from gpunet.captured.ir import tree_leaves, tree_map
from gpunet.captured.lowering import Lowering
from gpunet.captured.small_net import SmallNet, UnfitStepError, read_net
from gpunet.captured.watch import Watch
from gpunet.errors import CaptureError
from gpunet.launch.tape import ANY, GraphBreak, Launch, Tape, record


class _Output:
    """Stands for a tensor in the structure that the step returned."""

    def __init__(self, kind: type[Tensor], facts: Any) -> None:
        self.kind, self.facts = kind, facts


_OUTPUT = _Output(Tensor, None)


def _output_of(tensor: Tensor) -> _Output:
    return _OUTPUT if (facts := tensor._facts()) is None else _Output(type(tensor), facts)


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
        check: a replay runs the step itself, and compares its launches with the recorded ones.

    Raises:
        CaptureError: the step cannot be recorded; the message names the operation and the user's line.
    """

    def __init__(
        self, function: Callable[..., Any], args: tuple[Any, ...], options: dict[str, Any], key: Any, backend: str = "numpy",
        fullgraph: bool = True, check: bool = False,
    ) -> None:  # fmt: skip
        self.key, self.backend, self.fullgraph = key, backend, fullgraph
        #: fast path: the arrays of positional tensors of the recorded shapes and dtypes, else None
        self.match = _compile_match(args, options)
        modes = is_grad_enabled(), mode.current.autocast, get_default_dtype()
        watch = Watch(function, (args, options))
        self.guards = watch.guards
        # one for each recording: a context cannot be entered twice, and another step may run in another thread
        self._context = contextvars.copy_context()
        self._context.run(numpy.seterr, all="ignore")
        self._lock = threading.Lock()
        given = [t.array for t in tree_leaves((args, options), Tensor)]
        check_arguments(args, options)
        self.inputs = [devices.copy(a) for a in given]
        # copied at each replay: later arguments are probably not contiguous either
        self._strided = {index for index, a in enumerate(given) if not a.flags.c_contiguous}
        #: without ``fullgraph``, the graph breaks
        self.breaks: list[GraphBreak] = []
        tape = Tape(strict=True, breaks=None if fullgraph else self.breaks)
        try:
            with watch.watching():
                result = _run(function, tape, self.inputs, (args, options))
        except BaseException:
            if not fullgraph:  # the step ran up to here, on copies of its arguments
                self._find_written(tape)
                self._write_back(given)
            raise
        self._keep_result(result, (args, options))
        launches = describe(tape, self.inputs, result) if check else []
        outputs = [t.array for t in tree_leaves(result, Tensor)]
        del result
        self._find_written(tape)
        leaves = [(weakref.ref(leaf), before, leaf._grad) for leaf, before in tape.leaves.items()]
        tape.leaves.clear()
        gc.collect(1)
        alive = [(leaf, before, gradient) for reference, before, gradient in leaves if (leaf := reference()) is not None]
        del leaves  # leaves that only the step referred to are gone now
        self._gradients = [(leaf, gradient) for leaf, _, gradient in alive]
        watch.finish()
        self._guard_memory(tape, watch, [before for _, before, _ in alive if isinstance(before, Tensor)])
        del watch  # its references would keep memory of the step
        changed = self.guards.find_change()
        if changed and not self.breaks:
            way_out = "keep it in a tensor that the step changes in place, or change it outside the step"
            self._graph_break(f"the step changes {changed!r}, which it also reads, and a replay runs no Python", way_out)
        for array, _, line in tape.guarded:
            if array() is None:
                what = f"{line} indexes with a NumPy array made inside the step"
                self._graph_break(f"{what}; a replay would not make it again", "make it outside the step, or use a list")
        self._write_back(given)
        self._written.clear()  # its references would keep memory of the step
        if not self.breaks:
            for leaf, before, _ in alive:
                if before is not ANY:  # not checked above, because the step sets it
                    self.guards.add("{}._grad is {}", (leaf, before), f"the gradient of a tensor of shape {leaf.shape}")
            self._add_guards(tape, modes)
            self._versions = list(tape.changed.values())
            self._lower(tape, outputs)
        if not self.breaks:
            #: replay the step on the arrays of new arguments; returns a copy of its results
            self.replay = self._compile_replay()
        if check:
            self.replay = functools.partial(self._check, function, (args, options), launches)

    def _find_written(self, tape: Tape) -> None:
        """Find the arrays, and the inputs among them, that the launches write."""
        written = (a for x in tape.launches for a in tree_leaves(x.arrays[: x.kernel.outputs], devices.is_array))
        self._written: dict[int, Array] = {id(owner): owner for owner in map(owner_of, written)}
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

    def _keep_result(self, result: Any, arguments: Any) -> None:
        """Keep the result of the first call, and its structure."""
        if self.breaks:
            originals = dict(zip(map(id, self.inputs), tree_leaves(arguments, Tensor)))
            self.first = tree_map(result, lambda t: originals.get(id(t.array), t), Tensor)
        else:  # copied, since replays overwrite the buffers
            self.first = _copy_tensors(result)
        self._structure = tree_map(result, _output_of, Tensor)

    def _check(self, function: Any, arguments: Any, recorded: list[Described], given: list[Array]) -> Any:
        """Run the step instead of a replay, and compare its launches with the recorded ones."""
        _check_aliases(given, self._written, self._written_inputs)
        inputs, tape = [devices.copy(a) for a in given], Tape(strict=True)
        result = _run(function, tape, inputs, arguments)
        compare(recorded, describe(tape, inputs, result))
        for index in self._written_inputs:
            devices.assign(given[index], inputs[index])
        return _copy_tensors(result)

    # -- guards
    def _guard_memory(self, tape: Tape, watch: Watch, gradients: list[Tensor]) -> None:
        """Guard memory from outside of the step that launches use, and refuse memory that no guarded name leads to.

        Args:
            tape: of the recording.
            watch: has the tensors and arrays that guarded names lead to.
            gradients: of leaves before the step.
        """
        own = {id(owner_of(a)) for a in (*tape.allocated, *tape.constants, *self.inputs)}
        used: dict[int, tuple[Array, Launch]] = {}  # id of an owner -> its first use
        for launch in tape.launches:
            for array in tree_leaves((launch.arrays, launch.options), devices.is_array):
                if id(owner := owner_of(array)) not in own:
                    used.setdefault(id(owner), (array, launch))
        reached = {id(owner_of(m)) for m in (*tape.memory, *(a for a, _ in watch.arrays.values())) if not isinstance(m, Tensor)}
        named = [*watch.tensors.values(), *(m for m in tape.memory if isinstance(m, Tensor))]
        for tensor in (*named, *gradients):
            description = f"a tensor of shape {tensor.shape} from outside the step, which was replaced"
            self.guards.add("{}.array is {}", (tensor, tensor.array), description)
            reached.add(id(owner_of(tensor.array)))
        for tensor in named:
            gradient = tensor._grad
            if gradient is not None and (owner := id(owner_of(gradient.array))) in used and owner not in reached:
                condition = "({}._grad is {} and {}.array is {})"
                places = tensor, gradient, gradient, gradient.array
                self.guards.add(condition, places, f"the gradient of a tensor of shape {tensor.shape}")
                reached.add(owner)
        for owner, (array, launch) in used.items():
            if owner not in reached:
                what = f"{launch.kernel.name} ({launch.line}) reads an array of shape {array.shape}, which is computed by NumPy or "
                what += "CuPy inside the step, or from outside and under no name that the step's code reads"
                way_out = "create it outside the step and read it from a closure, global or attribute, or pass it as an argument"
                self._graph_break(f"{what}; a replay would not find it again", way_out)
                return
        for array, values in watch.arrays.values():
            if values is not None and id(owner_of(array)) not in used:
                self.guards.add("{}({}, {})", (_has_values, weakref.ref(array), values), "the values of a NumPy array")

    def _add_guards(self, tape: Tape, modes: tuple[Any, ...]) -> None:
        """Add guards for ``modes``, grad mode, autocast mode and default dtype, and for the state on which launches rely."""
        add = self.guards.add
        of_modes = "({0}.enabled, {0}.autocast, {1}()) == {2}"
        add(of_modes, (mode.current, get_default_dtype, modes), "grad mode, autocast mode or the default dtype")
        for condition in tape.guards:
            add(*condition)
        for array, values, line in tape.guarded:
            add("{}({}, {})", (_has_values, array, values), f"the values of a NumPy array ({line})")

    # -- lowering
    def _lower(self, tape: Tape, outputs: list[Array]) -> None:
        """Build the function that runs the launches on planned memory; empties ``outputs`` and the tape.

        The step's own memory is what the tape allocated and nothing refers to once the references of the recording are gone.
        """
        self.lines = [(launch.kernel.name, launch.line) for launch in tape.launches]
        allocated = {id(owner_of(a)) for a in tape.allocated}
        gradients = [g for _, g in self._gradients if g is not None and id(owner_of(g.array)) in allocated]
        lowering = self.lowering = Lowering(tape.launches, [*outputs, *(g.array for g in gradients)], self.backend)
        of_constants = {id(owner_of(a)) for a in tape.constants}
        constants = {number for number, b in enumerate(lowering.buffers) if id(b.array) in of_constants}
        values = [devices.copy(g.array) for g in gradients]
        copies = [devices.copy(a) for a in self.inputs]
        inputs = {id(a): index for index, a in enumerate(self.inputs)}
        input_of = {number: inputs[id(b.array)] for number, b in enumerate(lowering.buffers) if id(b.array) in inputs}
        buffers = {number: b for number, b in enumerate(lowering.buffers) if id(b.array) in allocated or number in input_of}
        references = {number: weakref.ref(b.array) for number, b in buffers.items()}
        input_references = [weakref.ref(a) for a in self.inputs]
        for owner in (*buffers.values(), *gradients):
            owner.array = None
        for arrays in (outputs, tape.launches, tape.allocated, tape.arguments, tape.constants, self.inputs):
            arrays.clear()
        gc.collect(1)
        held = [reference() for reference in input_references]
        self.inputs += [copy if array is None else array for array, copy in zip(held, copies)]
        for number, buffer in buffers.items():
            buffer.array = self.inputs[input_of[number]] if number in input_of else references[number]()
        own = [number in buffers and buffer.array is None for number, buffer in enumerate(lowering.buffers)]
        self._own = constants | {number for number, is_own in enumerate(own) if is_own}
        # buffer of an input -> whether something else refers to it
        arguments = {n: held[index] is not None for n, index in input_of.items() if index not in self._strided}
        try:
            self._run, kept = lowering.finish(own, arguments)
        except CaptureError as error:  # a launch cannot be part of a CUDA graph
            for gradient, value in zip(gradients, values):
                gradient.array = value
            self._graph_break(str(error), "read values outside the step")
            return
        self._zero_copy = [input_of[number] for number in lowering.zero_copy_inputs]
        self._input_of = {buffer: (number, self.inputs[number].shape) for buffer, number in input_of.items()}
        self._outputs = kept[: len(kept) - len(gradients)]
        for gradient, array, value in zip(gradients, kept[len(self._outputs) :], values):
            gradient.array = array
            devices.assign(array, value)
        self._written = lowering.written
        self._written_inputs = {index for index, a in enumerate(self.inputs) if id(a) in self._written}

    # -- replays
    def _compile_replay(self) -> Callable[..., Any]:
        in_host_memory = all(isinstance(a, numpy.ndarray) for a in (*self.inputs, *self._outputs))
        names: dict[str, Any] = {
            "make_tensor": make_tensor, "lock": self._lock, "run": self._run, "in_context": self._context.run,
            "check": _check_aliases, "written": self._written, "views": devices.owner_of_view, "changed": self._written_inputs,
            "copy": numpy.ndarray.copy if in_host_memory else devices.copy, "assign": devices.assign,
        }  # fmt: skip
        lines: list[str] = []

        def name(kind: str, number: int, value: Any) -> str:
            names[f"{kind}{number}"] = value
            return f"{kind}{number}"

        def write(target: str, source: str) -> str:
            return f"{target}[...] = {source}" if in_host_memory else f"assign({target}, {source})"

        given = [f"given{index}" for index in range(len(self.inputs))]
        if given:
            lines.append(f"{', '.join(given)}, = given")
        if self._written_inputs:
            lines.append("check(given, written, changed)")
        elif self._written and given:
            shares = " or ".join(f"{a}.base is not None or id({a}) in written or id({a}) in views" for a in given)
            lines += [f"if {shares}:", "    check(given, written, changed)"]
        for number, (array, buffer) in enumerate(zip(given, self.inputs)):
            buffer_name = name("buffer", number, buffer)
            if number not in self._zero_copy:
                lines.append(write(buffer_name, array))
        lines.append(f"in_context({', '.join(('run', *(f'given{number}' for number in self._zero_copy)))})")
        lines += [f"{name('version', n, version)}[0] += 1" for n, version in enumerate(self._versions)]
        for number, (leaf, gradient) in enumerate(self._gradients):
            lines.append(f"{name('leaf', number, leaf)}._grad = {name('gradient', number, gradient)}")
        lines += [write(f"given{n}", f"buffer{n}") for n in sorted(self._written_inputs)]
        if self._structure is _OUTPUT:
            names["output"] = self._outputs[0]
            lines.append("return make_tensor(copy(output))")
        else:
            names |= {"copy_outputs": _copy_outputs, "structure": self._structure, "outputs": self._outputs}
            lines.append("return copy_outputs(structure, outputs, copy)")
        lines = ["with lock:", *(f"    {line}" for line in lines)]
        return compile_source("given", lines, names)[0]

    def explain(self) -> Explanation:
        """Time the launches of a replay, and restore the arrays that they change."""
        with self._lock:
            return self._context.run(explain, self.lowering, self.lines)._replace(epoch=self.describe_epoch())

    # -- many steps in one launch
    @functools.cached_property
    def small_net(self) -> SmallNet | str:
        """The step as a small net whose steps can be one launch, or why it is none."""
        if self.lowering.backend != "launches":
            return "the step is on the CPU"
        if self._structure is not _OUTPUT:
            return "the step returns something else than its loss"
        devices_used = {devices.of(array) for array in self.inputs}
        if len(devices_used) != 1:
            return "the step takes no tensors, or those of several devices"
        try:
            found = read_net(*self.lowering.recorded, self._input_of, self._own)
            return SmallNet(found, self.lowering.array_of, max_shared_bytes(devices_used.pop()))
        except UnfitStepError as reason:
            return str(reason)

    def run_steps(self, losses: Array, data: list[Array], order: Array | None) -> None:
        """Run many steps of :attr:`small_net` in one launch, with all effects of as many replays.

        Args:
            losses: (nets, num_steps), for the results of the steps; one net if it is no stack.
            data: the arguments of the step for all samples.
            order: the samples of the steps, int64; None for the order of the data.
        """
        net = self.small_net
        assert isinstance(net, SmallNet)
        with self._lock:
            self._context.run(net.run, losses, data[net.inputs], data[net.target], order)
            for version in self._versions:
                version[0] += 1
            for leaf, gradient in self._gradients:
                leaf._grad = gradient

    def describe_epoch(self) -> str:
        """Return how ``epoch`` runs the step."""
        net = self.small_net
        return net.describe() if isinstance(net, SmallNet) else f"a replay for each step, because {net}"


def _compile_match(args: tuple[Any, ...], options: dict[str, Any]) -> Callable[..., list[Array] | None]:
    """Compile ``match(args, options)``, which returns the arrays of positional tensors like ``args``, else None.

    It always returns None if the recorded arguments were not positional tensors alone, or if these have ``_facts``.
    """
    if options or not all(isinstance(t, Tensor) and t._facts() is None for t in args):
        return lambda *_: None
    names: dict[str, Any] = {}
    terms = [f"not options and len(args) == {len(args)}"]
    arrays = [f"a{index}" for index in range(len(args))]
    for index, (name, tensor) in enumerate(zip(arrays, args)):
        names |= {f"shape{index}": tensor.array.shape, f"dtype{index}": tensor.array.dtype, f"kind{index}": type(tensor.array)}
        names[f"class{index}"] = type(tensor)
        terms.append(f"type(t := args[{index}]) is class{index} and type({name} := t.array) is kind{index}")
        if not isinstance(tensor.array, numpy.ndarray):
            terms.append(f"{name}.device.id == {tensor.array.device.id}")
        terms.append(f"{name}.shape == shape{index} and {name}.dtype == dtype{index}")
    line = f"return [{', '.join(arrays)}] if {' and '.join(terms)} else None"
    return compile_source("args, options", [line], names)[0]


def _run(function: Callable[..., Any], tape: Tape, inputs: list[Array], arguments: Any) -> Any:
    """Run a step and record its launches.

    Args:
        function: the step.
        tape: for the launches.
        inputs: arrays that take the place of those of the tensors in ``arguments``.
        arguments: positional arguments, and keyword arguments.
    """
    tape.arguments += inputs
    arrays = iter(inputs)
    args, options = tree_map(arguments, lambda t: t._from_facts(next(arrays), t._facts()), Tensor)
    with record(tape):
        result = function(*args, **options)
        for check in tape.at_end.values():
            check()
    return result


def _copy_tensors(result: Any) -> Any:
    return tree_map(result, lambda t: t._from_facts(devices.copy(t.array), t._facts()), Tensor)


def _check_aliases(given: list[Array], written: Mapping[int, Array], changed: set[int]) -> None:
    """Raise if an argument shares memory that the step changes in place: its copy would not change with it.

    Args:
        given: arrays of the arguments.
        written: owners of memory that the step writes, by id.
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
    return tree_map(structure, lambda output: output.kind._from_facts(copy(next(values)), output.facts), _Output)


def _has_values(array: weakref.ref[numpy.ndarray], values: numpy.ndarray) -> bool:
    """Whether an array exists and has these values."""
    now = array()
    return now is not None and (numpy.array_equal(now, values) or now.tobytes() == values.tobytes())  # NaN is NaN


def check_arguments(args: Any, options: Any) -> None:
    """Raise if an argument requires grad.

    Raises:
        CaptureError: names its shape.
    """
    for tensor in tree_leaves((args, options), Tensor):
        if tensor.requires_grad:
            raise CaptureError(
                f"an argument of shape {tensor.shape} requires grad, but a captured step works on copies of its arguments, "
                "so no gradient would reach it. Pass .detach(), or let the step read the tensor from a closure or global "
                "instead, as it reads its parameters"
            )
