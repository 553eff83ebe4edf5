"""Trace a model: record it for several sizes of its dynamic dimensions, and merge the recordings."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy

from gpunet.autograd import Tensor, enable_grad, make_tensor, wrap
from gpunet.backend import devices
from gpunet.backend.dtypes import is_floating, is_inexact
from gpunet.captured.ir import tree_leaves, tree_map
from gpunet.errors import ArgumentError, ExportError, InPlaceError
from gpunet.interop.tracing.graph import Counting, Dim, Graph, Node, Ref, Repeated, Shape, Spec, is_static
from gpunet.interop.tracing.recorder import Recorder
from gpunet.nn import Module
from gpunet.nn.module import UninitializedBuffer, UninitializedParameter
from gpunet.nn.parallel import DataParallel, DistributedDataParallel
from gpunet.ops.convert import clone

#: input -> its dynamic dimensions -> their names.
Dynamic = Sequence[Mapping[int, str]]


class Call(NamedTuple):
    """A call of a model: ``model(*args, **kwargs)``."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    @classmethod
    def of(cls, args: Any, kwargs: Mapping[str, Any] | None = None) -> Call:
        """The call of a tensor or a tuple of arguments, with the tensors on the CPU."""
        given = args if isinstance(args, tuple) and not hasattr(args, "_fields") else (args,)
        return cls(*tree_map((tuple(map(_wrapped, given)), dict(kwargs or {})), Tensor.cpu, Tensor))

    @property
    def tensors(self) -> list[Tensor]:
        """The tensors among the arguments, in order."""
        return [*tree_leaves((self.args, self.kwargs), Tensor)]

    def run(self, model: Module, tensors: Sequence[Tensor]) -> list[Tensor]:
        """The tensors that the model returns for other tensors in the place of the call's."""
        remaining = iter(tensors)
        args, kwargs = tree_map((self.args, self.kwargs), lambda _: next(remaining), Tensor)
        outputs = [*tree_leaves(model(*args, **kwargs), Tensor)]
        if not outputs:
            raise ExportError("the model returns no tensor; expected a tensor, or tensors in tuples, lists and dicts")
        return outputs


def _wrapped(value: Any) -> Any:
    return wrap(value) if devices.is_array(value) else value


def on_cpu(model: Module, args: Any, kwargs: Mapping[str, Any] | None) -> tuple[Module, Call]:
    """The model and the arguments of a call on the CPU; a copy of a model on a GPU, and what is in one for several processes.

    Raises:
        ArgumentError: there is no tensor among the arguments, or a lazy module has not run.
    """
    if isinstance(model, (DataParallel, DistributedDataParallel)):
        model = model.module
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if isinstance(tensor, (UninitializedParameter, UninitializedBuffer)):
            raise ArgumentError(
                f"export: {name!r} of the model has no shape yet, since a lazy module has not run; call the model once before"
            )
    if any(not tensor.is_cpu for tensor in [*model.parameters(), *model.buffers()]):
        model = copy.deepcopy(model).cpu()
    call = Call.of(args, kwargs)
    if not call.tensors:
        raise ArgumentError("export: args has no tensor; expected the arguments of a call, such as (gpunet.randn(1, 3, 32, 32),)")
    return model, call


def resized(call: Call, dynamic: Dynamic, sizes: Mapping[str, int]) -> list[Tensor]:
    """The call's tensors with other sizes of dynamic dimensions: elements are left out, or repeated."""
    found = []
    for tensor, names in zip(call.tensors, dynamic):
        array = tensor.array
        for dim, name in names.items():
            array = numpy.take(array, numpy.arange(sizes[name]) % array.shape[dim], axis=dim)
        found.append(make_tensor(numpy.array(array, order="C")))
    return found


def sizes_of(call: Call, dynamic: Dynamic) -> dict[str, int]:
    """The size of each dynamic dimension in a call.

    Raises:
        ExportError: dimensions of one name have different sizes, or a size is 0.
    """
    sizes: dict[str, int] = {}
    for tensor, names in zip(call.tensors, dynamic):
        for dim, name in names.items():
            size = tensor.array.shape[dim]
            if not size or sizes.setdefault(name, size) != size:
                raise ExportError(
                    f"the dynamic dimension {name!r} has size {size} in an argument of shape {tuple(tensor.shape)}"
                    + (f", and {sizes[name]} in another one; name the dimensions by dynamic_axes=, such as "
                       f"dynamic_axes={{'input': {{{dim}: 'rows'}}}}, or fix their sizes by dynamic_axes={{}}" if size else
                       "; expected 1 or more")
                )  # fmt: skip
    return sizes


def trace(
    model: Module, call: Call, input_names: Sequence[str], dynamic: Dynamic, supports: Callable[[str, dict[str, Any]], bool],
    folds: bool = True,
) -> Graph:  # fmt: skip
    """The forward pass of a model as a graph.

    The model runs once, and some times more for each dynamic dimension with other sizes of it; what differs between the recordings
    depends on the size.  Sizes are at least 2, so that no dimension is broadcast by chance, and both odd and even.

    Args:
        model: on the CPU, in eval mode.
        call: its arguments.
        input_names: of the call's tensors.
        dynamic: of each tensor.
        supports: see :class:`~gpunet.interop.tracing.recorder.Recorder`.
        folds: let ops that depend on no input be constants.

    Raises:
        ExportError: something depends on a dynamic size in a way that a graph cannot express, or on values of the inputs
            outside of gpunet's functions, or is random; or the model runs with one size only.
    """
    own = sizes_of(call, dynamic)
    base = {name: max(2, size) for name, size in own.items()}
    variants: list[dict[str, int]] = []
    recordings: list[Recording] = []

    def record(sizes: dict[str, int]) -> Exception | None:
        """Add a recording; return the error of a model that does not take these sizes."""
        try:
            recordings.append(_record(model, call, resized(call, dynamic, sizes), supports))
        except ExportError:
            raise
        except Exception as error:  # of the user's model
            if sizes == own:
                raise
            return error
        variants.append(sizes)
        return None

    error = record(base)
    if error is not None:
        raise _of_one_size(base, own, error) from error
    for name, size in base.items():
        _record_sizes(record, base, name, size)
    if len(base) > 1:
        record({name: 2 * size + 2 + number for number, (name, size) in enumerate(base.items())})
    if not base:  # twice, to see what is random
        record(base)
    return _Merge(recordings, variants, input_names).graph(folds)


_LEAST_SIZES = 2  # with which a model must run beside that of the call


def _record_sizes(record: Callable[[dict[str, int]], Exception | None], base: dict[str, int], name: str, size: int) -> None:
    """Record with other sizes of one dimension; with further ones if the model does not take all, such as multiples of 8 alone."""
    usual = (size + 1, 2 * size + 1, 4 * size + 3)
    further = (2 * size, 3 * size, 5 * size, size - 1, size // 2, size + 2, size + 3, size - 2)
    errors: list[tuple[int, Exception]] = []
    count, tried = 0, {size}
    for other in (*usual, *further):
        if other < 2 or other in tried or (other not in usual and (not errors or count == len(usual))):
            continue
        tried.add(other)
        error = record({**base, name: other})
        if error is None:
            count += 1
        else:
            errors.append((other, error))
    if count < _LEAST_SIZES:
        refused, error = errors[0]
        raise _of_one_size({name: refused}, {name: size}, error) from error


def _of_one_size(refused: Mapping[str, int], taken: Mapping[str, int], error: Exception) -> ExportError:
    sizes, own = (", ".join(f"{name}={size}" for name, size in found.items()) for found in (refused, taken))
    return ExportError(
        f"the model does not run with {sizes} ({type(error).__name__}: {error}); it was given {own}. Fix the size by "
        "dynamic_axes={}, or name by dynamic_axes= the dimensions that may have other sizes"
    )


class Recording(NamedTuple):
    """One recorded pass: the nodes that the outputs need, renumbered, with the constants that they read."""

    inputs: list[Spec]
    nodes: list[Node]
    constants: list[numpy.ndarray]
    outputs: list[Ref]
    parameters: dict[str, numpy.ndarray]


def _record(
    model: Module, call: Call, tensors: Sequence[Tensor], supports: Callable[[str, dict[str, Any]], bool]
) -> Recording:
    copies = [make_tensor(numpy.array(tensor.array)) for tensor in tensors]
    try:
        return _recorded(model, call, tensors, supports, True)
    except InPlaceError as error:  # of a view, which without a gradient may be changed
        try:
            return _recorded(model, call, copies, supports, False)
        except ExportError:
            raise ExportError(f"a change in place cannot be exported: {error}") from None


def _recorded(
    model: Module, call: Call, tensors: Sequence[Tensor], supports: Callable[[str, dict[str, Any]], bool], with_gradients: bool
) -> Recording:
    """The recording; with gradients, in-place methods run ops."""
    recorder = Recorder(model, supports)
    with enable_grad(), recorder.recording(model):
        given = []
        for tensor in tensors:
            recorder.add_input(tensor)
            if is_floating(tensor.dtype):
                # neither a leaf nor a view, which could not be changed in place
                tensor = clone(tensor.requires_grad_(with_gradients))
            given.append(tensor)
        outputs = [recorder.value(output) for output in call.run(model, given)]
    return _pruned(recorder, outputs)


def _pruned(recorder: Recorder, outputs: list[Ref]) -> Recording:
    needed, pending = set(), [*outputs]
    while pending:
        ref = pending.pop()
        if ref.kind == "result" and ref.key not in needed:
            needed.add(ref.key)
            pending += recorder.nodes[ref.key].references
    numbers = {old: new for new, old in enumerate(sorted(needed))}
    constants: dict[int, int] = {}

    def renumbered(value: Any) -> Any:
        if not isinstance(value, Ref) or value.kind in ("input", "parameter"):
            return value
        if value.kind == "result":
            return value._replace(key=numbers[value.key])
        return value._replace(key=constants.setdefault(value.key, len(constants)))

    nodes = []
    for old in numbers:
        node = recorder.nodes[old]
        if node.is_opaque:
            raise ExportError(
                f"{node.function} cannot be exported (in {node.module}): its result depends on the inputs, and it is no op with a "
                "translation. Compute it from other functions, or export the part of the model without it"
            )
        node.inputs = tuple(map(renumbered, node.inputs))
        nodes.append(node)
    outputs = [*map(renumbered, outputs)]
    return Recording(recorder.inputs, nodes, [recorder.constants[old] for old in constants], outputs, recorder.parameters)


_ADVICE = "Fix the size with dynamic_axes={}, or write the model so that it is the same for all sizes"
#: Ops of windows, whose results have sizes that an operator computes from its input's, with a division.
_OF_WINDOWS = ("convolution", "conv3d", "max_pool", "avg_pool")


class _Merge:
    """Recordings of the same model with different sizes, as one graph."""

    def __init__(self, recordings: list[Recording], variants: list[dict[str, int]], input_names: Sequence[str]) -> None:
        self.recordings, self.variants, self.input_names = recordings, variants, input_names
        self.names = [*variants[0]]
        #: of each size that has a name, its number in each recording: first the dynamic dimensions, then what ops made of them
        self.numbers = {name: [sizes[name] for sizes in variants] for name in self.names}
        self.made: dict[str, tuple[Ref, int]] = {}

    def graph(self, folds: bool) -> Graph:
        first, *others = self.recordings
        for sizes, other in zip(self.variants[1:], others):
            if [node.op for node in other.nodes] != [node.op for node in first.nodes]:
                self._raise_different(other, sizes)
        nodes = [self._node(number, [r.nodes[number] for r in self.recordings]) for number in range(len(first.nodes))]
        inputs = [
            (name, self._spec([r.inputs[i] for r in self.recordings], f"input {name}")) for i, name in enumerate(self.input_names)
        ]
        users = {ref.key: f"{node.function} (in {node.module})" for node in reversed(first.nodes) for ref in node.references
                 if ref.kind == "constant"}  # fmt: skip
        constants = [
            self._constant([r.constants[i] for r in self.recordings], users.get(i, "the output"))
            for i in range(len(first.constants))
        ]
        if any(recording.outputs != first.outputs for recording in others):
            raise ExportError(f"the model returns another value for another size. {_ADVICE}")
        variants = [{name: numbers[at] for name, numbers in self.numbers.items()} for at in range(len(self.variants))]
        graph = Graph(inputs, first.outputs, nodes, first.parameters, constants, variants, self.made)
        return _folded(graph) if folds else graph

    def _raise_different(self, other: Recording, sizes: dict[str, int]) -> None:
        first = self.recordings[0].nodes
        at = next((i for i, (a, b) in enumerate(zip(first, other.nodes)) if a.op != b.op), min(len(first), len(other.nodes)) - 1)
        node = first[at]
        changed = [name for name in self.names if sizes[name] != self.variants[0][name]]
        if not changed:
            raise ExportError(f"the model runs other functions at each call, from {node.function} on (in {node.module})")
        name = changed[0]
        counts = f"{len(first)} ops with {name}={self.variants[0][name]}, and {len(other.nodes)} with {name}={sizes[name]}"
        raise ExportError(
            f"the model runs {counts}; they differ at {node.function} (in {node.module}). {_ADVICE}"
        )

    def _node(self, number: int, nodes: list[Node]) -> Node:
        first = nodes[0]
        where = f"{first.function} (in {first.module})"
        for node in nodes[1:]:
            if len(node.inputs) != len(first.inputs):
                counts = f"{len(first.inputs)} inputs for one size, and {len(node.inputs)} for another"
                raise ExportError(f"{where} has {counts}. {_ADVICE}")
        inputs = tuple(self._merged([*values], where) for values in zip(*(node.inputs for node in nodes)))
        if first.op in _OF_WINDOWS:
            self._name_sizes(number, nodes)
        options = self._merged([node.options for node in nodes], where)
        outputs = [self._spec([*specs], where) for specs in zip(*(node.outputs for node in nodes))]
        values = first.values if all(is_static(spec.shape) for spec in outputs) else None
        return Node(first.op, inputs, options, outputs, first.function, first.module, values)

    def _name_sizes(self, number: int, nodes: list[Node]) -> None:
        """Name the sizes of a result that are new."""
        for dim, sizes in enumerate(zip(*(node.outputs[0].shape for node in nodes))):
            if len({*sizes}) > 1 and [*sizes] not in self.numbers.values():
                name = "_".join([*self._changing([*sizes]), str(len(self.made) + 1)])
                while name in self.numbers:
                    name += "_"
                self.numbers[name] = [*sizes]
                self.made[name] = Ref("result", number), dim

    def _changing(self, values: Sequence[int]) -> list[str]:
        """The dynamic dimensions on which a number depends."""
        base, found = self.variants[0], []
        for name in self.names:
            others = [v for v, sizes in zip(values, self.variants) if {**sizes, name: base[name]} == base]
            found += [name] if any(value != values[0] for value in others) else []
        return found

    def _spec(self, specs: list[Spec], where: str) -> Spec:
        return Spec(self._merged([spec.shape for spec in specs], where), specs[0].dtype)

    def _merged(self, values: list[Any], where: str) -> Any:
        """One value for all sizes; integers that differ become a Dim."""
        first = values[0]
        if isinstance(first, Ref):
            if any(value != first for value in values):
                raise ExportError(f"{where} reads another value for another size. {_ADVICE}")
            return first
        if isinstance(first, (int, numpy.integer)) and not isinstance(first, bool):
            is_same = all(type(v) is type(first) and v == first for v in values)
            return first if is_same else self._dim([int(v) for v in values], where)
        if all(type(v) is type(first) for v in values):
            if isinstance(first, (tuple, list)) and all(len(v) == len(first) for v in values):
                parts = [self._merged([*items], where) for items in zip(*values)]
                return type(first)(*parts) if hasattr(first, "_fields") else type(first)(parts)
            if isinstance(first, dict) and all(v.keys() == first.keys() for v in values):
                return {key: self._merged([v[key] for v in values], where) for key in first}
            if isinstance(first, slice):
                return slice(*(self._merged([getattr(v, a) for v in values], where) for a in ("start", "stop", "step")))
            if all(v is first or v == first for v in values) or (first != first and all(v != v for v in values)):
                return first
        raise ExportError(
            f"{where} has {first!r} for {self._sizes(0)}, and another value for another size; this cannot be expressed in a graph. "
            f"{_ADVICE}"
        )

    def _sizes(self, number: int) -> str:
        return ", ".join(f"{name}={size}" for name, size in self.variants[number].items())

    def _dim(self, values: list[int], where: str) -> Dim:
        """The integer that has these values: affine in one size, or a product of sizes."""
        for name, numbers in self.numbers.items():
            at = next((i for i, number in enumerate(numbers) if number != numbers[0]), 0)
            if at:
                factor = (values[at] - values[0]) // (numbers[at] - numbers[0])
                offset = values[0] - factor * numbers[0]
                if factor and all(factor * number + offset == value for number, value in zip(numbers, values)):
                    return Dim(factor, (name,), offset)
        changing = self._changing(values)
        known = {name: self._changing(numbers) for name, numbers in self.numbers.items()}
        parts = [[name for name in known if known[name] == [one]] for one in changing]
        for names in itertools.product(*parts) if len(parts) > 1 else ():
            products = [math.prod(numbers) for numbers in zip(*(self.numbers[name] for name in names))]
            factor = values[0] // products[0]
            if all(factor * product == value for product, value in zip(products, values)):
                return Dim(factor, names)
        shown = [0, *(number for number, value in enumerate(values) if value != values[0])][:3]
        texts = " and ".join(f"{values[number]} for {self._sizes(number)}" for number in shown)
        raise ExportError(f"{where}: a number is {texts}; expected a multiple of the sizes. {_ADVICE}")

    def _constant(self, arrays: list[numpy.ndarray], user: str) -> Any:
        """A constant for all sizes, which ``user`` reads."""
        first = arrays[0]
        if all(a.shape == first.shape and numpy.array_equal(a, first, equal_nan=is_inexact(a.dtype)) for a in arrays):
            return first
        where = f"{user} reads a constant of shape {first.shape} and {first.dtype}, which"
        if all(a.shape == first.shape for a in arrays):
            raise ExportError(
                f"{where} has other values at each call: the model draws random numbers, or computes outside of gpunet's "
                "functions. Pass the array as an input"
            )
        shape: Shape = self._merged([a.shape for a in arrays], where)
        counted = [dim for dim, size in enumerate(shape) if not is_static((size,))]
        one = tuple(slice(0, 1) if dim in counted else slice(None) for dim in range(first.ndim))
        if first.size and all(numpy.array_equal(a, numpy.broadcast_to(first[one], a.shape)) for a in arrays):
            value = first[one]
            return Repeated(value if (value != value.flat[0]).any() else value.flat[0].reshape(()), shape)
        if len(counted) == 1 and all(a.size == a.shape[counted[0]] and (a.ravel() == numpy.arange(a.size)).all() for a in arrays):
            return Counting(first.dtype, shape, counted[0])
        raise ExportError(f"{where} depends on the dynamic dimension, and is neither the same along it nor 0, 1, 2, ... {_ADVICE}")


def _folded(graph: Graph) -> Graph:
    """The graph in which ops that depend on no input and no dynamic size are computed.

    Results are constants; those of parameters and buffers are named like these, such as "conv.weight_reshape".
    """
    places: dict[Ref, Ref] = {}
    nodes: list[Node] = []
    computed: dict[tuple[Any, ...], list[tuple[dict[str, Any], int]]] = {}  # by op and inputs: options and number
    for number, node in enumerate(graph.nodes):
        inputs = tuple(places.get(value, value) if isinstance(value, Ref) else value for value in node.inputs)
        is_constant = node.values is not None and is_static(node.options) and not any(
            isinstance(value, Dim) or (isinstance(value, Ref) and not _is_plain(graph, value)) for value in inputs
        )  # fmt: skip
        sources = [value for value in inputs if isinstance(value, Ref) and value.kind == "parameter"]
        if is_constant:
            same = computed.setdefault((node.op, inputs), [])
            earlier = next((other for options, other in same if options == node.options), number)
            same.append((node.options, number))
            if earlier != number:  # such as the transpose of a weight that each step of a sequence uses
                places |= {Ref("result", number, i): places[Ref("result", earlier, i)] for i in range(len(node.outputs))}
                continue
        for index in range(len(node.outputs)):
            if not is_constant:
                found = Ref("result", len(nodes), index)
            elif sources:
                assert node.values is not None
                found = _derived(graph, sources[0].key, node, node.values[index])
            else:
                assert node.values is not None
                graph.constants.append(node.values[index])
                found = Ref("constant", len(graph.constants) - 1)
            places[Ref("result", number, index)] = found
        if not is_constant:
            node.inputs = inputs
            nodes.append(node)
    graph.nodes, graph.outputs = nodes, [places.get(ref, ref) for ref in graph.outputs]
    graph.made = {name: (places.get(ref, ref), dim) for name, (ref, dim) in graph.made.items()}
    return graph


def _derived(graph: Graph, source: str, node: Node, values: numpy.ndarray) -> Ref:
    """A new parameter of the graph: what an op made of one."""
    original = graph.reshaped.get(source, source)
    name, number = f"{original}_{node.op}", 1
    while name in graph.parameters:
        number += 1
        name = f"{original}_{node.op}_{number}"
    graph.parameters[name] = values
    if node.op == "reshape":
        graph.reshaped[name] = original
    return Ref("parameter", name)


def _is_plain(graph: Graph, ref: Ref) -> bool:
    """Whether a value is an array that is known before a run."""
    return ref.kind == "parameter" or (ref.kind == "constant" and isinstance(graph.constants[ref.key], numpy.ndarray))
