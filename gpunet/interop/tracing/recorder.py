"""Record the ops of a forward pass.

A :class:`Recorder` is the tape of the pass.  It sees each op by its name and options, and each launch.  Values are known by their
memory: an op's result, and an array that a launch has written, is the value of that piece of memory until another launch writes
there.  So in-place changes and ``detach()`` need no care.  Launches outside of ops, such as comparisons, are nodes of their own.
A launch whose function is not known, and that reads what depends on the inputs, is an opaque node: an error if the outputs need it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy
from numpy import ndarray
from numpy.lib.array_utils import byte_bounds

from gpunet.autograd import COPY, Tensor
from gpunet.autograd.op import Op, observers
from gpunet.backend import devices
from gpunet.errors import ExportError
from gpunet.interop.tracing.graph import Node, Ref, Spec
from gpunet.launch.launchable import Launchable
from gpunet.launch.shims import Ufunc
from gpunet.launch.tape import Tape, active
from gpunet.nn import Module
from gpunet.ops.custom_kernel import CustomKernel
from gpunet.ops.index import CHECKED_COPY
from gpunet.ops.order import ARG
from gpunet.ops.reduce import ANY_ALL

#: Functions of NumPy that are nodes if no op made them -> the op.
UFUNCS = {
    "equal": "equal", "not_equal": "not_equal", "greater": "greater", "greater_equal": "greater_equal", "less": "less",
    "less_equal": "less_equal", "logical_and": "logical_and", "logical_or": "logical_or", "logical_xor": "logical_xor",
    "logical_not": "logical_not", "bitwise_and": "bitwise_and", "bitwise_or": "bitwise_or", "bitwise_xor": "bitwise_xor",
    "invert": "invert", "isnan": "isnan", "isinf": "isinf", "isfinite": "isfinite", "add": "add", "subtract": "sub",
    "multiply": "mul", "divide": "div", "negative": "neg", "absolute": "abs", "maximum": "maximum", "minimum": "minimum",
    "power": "pow",
}  # fmt: skip
#: Other launches that are nodes -> the op.  They are known themselves, since kernels of the user may have any name.
SHIMS: dict[Launchable, str] = {
    COPY: "copy", CHECKED_COPY: "copy", **{shim: name for name, shim in (ARG | ANY_ALL).items()},
}  # fmt: skip
#: Ops whose result has the value of their input.
_SAME_VALUE = ("alias", "clone", "move")

Key = tuple[int, tuple[int, ...], tuple[int, ...], str]


def _key(array: ndarray) -> Key:
    return array.__array_interface__["data"][0], array.shape, array.strides, array.dtype.str


class _Memory:
    """The values in the memory of one array that owns it."""

    def __init__(self) -> None:
        self.values: dict[Key, tuple[Ref, tuple[int, int]]] = {}
        #: where something depends on inputs that is known under no key
        self.tainted: list[tuple[int, int]] = []

    def overwrite(self, array: ndarray, dependent: set[Ref]) -> None:
        """Forget the values that a write to ``array`` changes; what it may leave of those that depend on inputs stays tainted."""
        bounds = byte_bounds(array)
        changed = [item for item in self.values.values() if _meet(item[1], bounds)]
        self.values = {key: item for key, item in self.values.items() if not _meet(item[1], bounds)}
        self.tainted += [item[1] for item in changed if item[0] in dependent]
        if array.flags.c_contiguous:
            self.tainted = [item for item in self.tainted if not (bounds[0] <= item[0] and item[1] <= bounds[1])]


def _meet(a: tuple[int, int], b: tuple[int, int]) -> bool:
    return a[0] < b[1] and b[0] < a[1]


class Recorder(Tape):
    """The tape of one forward pass.

    Args:
        model: whose parameters and buffers are named.
        supports: (op, options) -> whether the export translates it.  Other fused ops are recorded as their composition.
    """

    def __init__(self, model: Module, supports: Callable[[str, dict[str, Any]], bool]) -> None:
        super().__init__()
        self.supports = supports
        self.nodes: list[Node] = []
        self.constants: list[ndarray] = []
        self.inputs: list[Spec] = []
        self.parameters: dict[str, ndarray] = {}
        self._memory: dict[int, _Memory] = {}
        self._alive: list[Any] = []
        self._depends: set[Ref] = set()
        self._modules = {id(module): name for name, module in model.named_modules()}
        self._stack: list[str] = []
        self._of_launches: set[int] = set()
        for name, tensor in [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]:
            ref = Ref("parameter", name)
            if self._find(tensor.array) is None:
                self._set(tensor.array, ref)
            self.parameters[name] = tensor.array

    # ---- the pass ---------------------------------------------------------------------------------------------------

    def add_input(self, tensor: Tensor) -> None:
        """Let a tensor be the next input."""
        ref = Ref("input", len(self.inputs))
        self.inputs.append(Spec(tuple(tensor.array.shape), tensor.array.dtype))
        self._depends.add(ref)
        self._set(tensor.array, ref)

    @contextmanager
    def recording(self, model: Module) -> Iterator[None]:
        """Inside the block, this thread's ops and launches are recorded.

        Hooks of the modules know which one runs; modules with hooks are not fused, so each op belongs to one.
        """
        handles = [
            handle
            for module in model.modules()
            for handle in (module.register_forward_pre_hook(self._enter), module.register_forward_hook(self._leave))
        ]
        previous, active.tape = active.tape, self
        observers.append(self._observe)
        try:
            yield
        finally:
            observers.remove(self._observe)
            active.tape = previous
            for handle in handles:
                handle.remove()

    def _enter(self, module: Module, args: Any) -> None:
        path = self._modules.get(id(module), "")
        self._stack.append(f"{path} ({type(module).__name__})" if path else f"the model ({type(module).__name__})")

    def _leave(self, module: Module, args: Any, output: Any) -> None:
        self._stack.pop()

    @property
    def module(self) -> str:
        """The module that runs."""
        return self._stack[-1] if self._stack else "the model"

    def graph_break(self, action: str, way_out: str) -> None:
        if action.endswith("reads a tensor's value,"):
            way_out = "compute with tensors, as by where()"
        raise ExportError(
            f"{action.rstrip(',')} cannot be exported (in {self.module}): the graph is the same for all values of the inputs. "
            f"{way_out[:1].upper()}{way_out[1:]}, or call the export on the part of the model without it"
        )

    # ---- values -----------------------------------------------------------------------------------------------------

    def _memory_of(self, array: ndarray) -> _Memory:
        owner = devices.owner_of(array)
        if id(owner) not in self._memory:
            self._alive.append(owner)  # so that no other array gets its id
            self._memory[id(owner)] = _Memory()
        return self._memory[id(owner)]

    def _set(self, array: ndarray, ref: Ref) -> None:
        self._memory_of(array).values[_key(array)] = ref, byte_bounds(array)

    def _find(self, array: ndarray) -> Ref | None:
        memory = self._memory.get(id(devices.owner_of(array)))
        if memory is None:
            return None
        key = _key(array)
        if key in memory.values:
            return memory.values[key][0]
        for whole, (ref, bounds) in memory.values.items():
            if whole[3] != key[3]:
                continue
            if array.flags.c_contiguous and bounds == byte_bounds(array) and _is_contiguous(whole, array.itemsize):
                return self._append("reshape", (ref,), {"shape": array.shape}, [array])[0]
            pattern = _slices(whole, key)
            if pattern is not None:
                return self._append("index", (ref,), {"pattern": pattern}, [array])[0]
        return None

    def _is_tainted(self, array: ndarray) -> bool:
        """Whether memory that is known under no key holds what depends on the inputs."""
        memory = self._memory.get(id(devices.owner_of(array)))
        if memory is None:
            return False
        bounds = byte_bounds(array)
        found = (item_bounds for ref, item_bounds in memory.values.values() if ref in self._depends)
        return any(_meet(other, bounds) for other in (*found, *memory.tainted))

    def value(self, operand: Any) -> Any:
        """The reference to an operand of an op: a tensor; numbers and None are returned as they are."""
        if isinstance(operand, Tensor):
            operand = operand.array
        if not devices.is_array(operand):
            return operand
        if type(operand) is not ndarray:
            raise ExportError(f"the model computes on {devices.of(operand)} (in {self.module}); export a model on the CPU")
        found = self._find(operand)
        if found is not None:
            return found
        if self._is_tainted(operand):
            return self._append("unknown view", (), {}, [operand], is_opaque=True, depends=True)[0]
        self.constants.append(operand.copy())
        return Ref("constant", len(self.constants) - 1)

    def _append(
        self, op: str, inputs: tuple[Any, ...], options: dict[str, Any], arrays: Sequence[ndarray], function: str = "",
        is_opaque: bool = False, depends: bool = False,
    ) -> list[Ref]:  # fmt: skip
        depends = depends or not self._depends.isdisjoint(value for value in inputs if isinstance(value, Ref))
        values = None if depends else [array.copy() for array in arrays]
        outputs = [Spec(tuple(array.shape), array.dtype) for array in arrays]
        number = len(self.nodes)
        self.nodes.append(Node(op, inputs, options, outputs, function or op, self.module, values, is_opaque))
        refs = [Ref("result", number, index) for index in range(len(arrays))]
        self._depends.update(refs if depends else ())
        for array, ref in zip(arrays, refs):
            self._alive.append(array)
            self._set(array, ref)
        return refs

    # ---- ops --------------------------------------------------------------------------------------------------------

    def _observe(self, op: Op, inputs: Sequence[Any], options: dict[str, Any], results: Sequence[Tensor]) -> None:
        if active.tape is not self:
            return  # of another thread
        name, arrays = op.name.lstrip("_"), [result.array for result in results]
        if name in _SAME_VALUE or (name == "cast" and inputs[0].array.dtype == arrays[0].dtype):
            ref = self.value(inputs[0])
            self._alive.append(arrays[0])
            self._set(arrays[0], ref)
            return
        if op.kind == "composite" and not self.supports(name, options):
            return
        function = op.public_name if op.name_from is None else op.name_from(options)
        if op.composed is None and not self.supports(name, options) and self._is_made_of_ops(arrays[0]):
            return
        if op.composed is not None and not self.supports(name, options):
            before = len(self.nodes)
            found = op.composed(*inputs, **options)
            for node in self.nodes[before:]:
                node.function = function
            for array, part in zip(arrays, found if isinstance(found, tuple) else (found,)):
                self._alive += (array, part.array)
                self._set(array, self.value(part))
            return
        refs = tuple(self.value(value) for value in inputs)
        if name == "linear_chain":
            self._append_linear(refs, options["activations"], arrays[0])
        elif options.get("activation", "identity") != "identity":
            (between,) = self._append(name, refs, {**options, "activation": "identity"}, [numpy.empty_like(arrays[0])], function)
            self._append_activation(between, options["activation"], options["alpha"], arrays[0])
        else:
            self._append(name, refs, options, arrays, function)

    def _is_made_of_ops(self, result: ndarray) -> bool:
        """Whether an op has computed its result by other ops, which are recorded."""
        found = self._find(result)
        return found is not None and not (found.kind == "result" and found.key in self._of_launches)

    def _append_linear(self, refs: tuple[Any, ...], activations: Sequence[tuple[str, float]], result: ndarray) -> None:
        """Append a chain of linear layers as its layers and activations."""
        x, *parameters = refs
        for number, ((name, alpha), w, b) in enumerate(zip(activations, parameters[::2], parameters[1::2])):
            is_last = number + 1 == len(activations)
            width = self.shape_of(w)[0]
            y = result if is_last else numpy.empty((result.shape[0], width), result.dtype)
            product = y if name == "identity" else numpy.empty_like(y)
            (x,) = self._append("linear", (x, w, b), {}, [product])
            if name != "identity":
                (x,) = self._append_activation(x, name, alpha, y)

    def _append_activation(self, x: Ref, name: str, alpha: float, result: ndarray) -> list[Ref]:
        return self._append("activation", (x,), {"name": name, "alpha": alpha}, [result], name)

    def shape_of(self, ref: Ref) -> tuple[int, ...]:
        """The shape of a value."""
        if ref.kind == "result":
            return self.nodes[ref.key].outputs[ref.output].shape
        return {"input": self.inputs, "parameter": self.parameters, "constant": self.constants}[ref.kind][ref.key].shape  # type: ignore[index]

    # ---- launches ---------------------------------------------------------------------------------------------------

    def launch(self, kernel: Launchable, arrays: tuple[Any, ...], options: dict[str, Any]) -> None:
        outputs, sources = _flat(arrays[: kernel.outputs]), _flat(arrays[kernel.outputs :])
        op = (UFUNCS.get(kernel.name) if type(kernel) is Ufunc else SHIMS.get(kernel)) if len(outputs) == 1 else None
        # a launch that is not known may change a part of its destination only
        depends = any(self._is_tainted(a) for a in (sources if op else sources + outputs) if type(a) is ndarray)
        refs = tuple(self.value(a) for a in sources) if op and depends else ()
        kernel.check(arrays)
        kernel.launch(arrays, options)
        for array in outputs:
            if type(array) is not ndarray:
                continue
            self._memory_of(array).overwrite(array, self._depends)
            if not depends:
                continue
            before = len(self.nodes)
            if op is None:
                name = f"cuda_op {kernel.name!r}" if isinstance(kernel, CustomKernel) else kernel.name
                self._append(name, (), {}, [array], is_opaque=True, depends=True)
            elif op == "copy":
                self._copy(array, refs[0])
            else:
                self._append(op, refs, options, [array])
            self._of_launches.update(range(before, len(self.nodes)))

    def _copy(self, target: ndarray, source: Any) -> None:
        """The value of ``target`` after a copy of ``source``, which may be broadcast and converted."""
        if not isinstance(source, Ref):
            return
        shape, dtype = self.shape_of(source), self.dtype_of(source)
        if dtype != target.dtype:
            (source,) = self._append("cast", (source,), {"dtype": target.dtype}, [numpy.empty(shape, target.dtype)])
        if shape != target.shape:
            self._append("broadcast_to", (source,), {"shape": target.shape}, [target])
        else:
            self._set(target, source)

    def dtype_of(self, ref: Ref) -> numpy.dtype[Any]:
        """The dtype of a value."""
        if ref.kind == "result":
            return self.nodes[ref.key].outputs[ref.output].dtype
        found: Any = {"input": self.inputs, "parameter": self.parameters, "constant": self.constants}[ref.kind][ref.key]  # type: ignore[index]
        return found.dtype


def _flat(items: Sequence[Any]) -> list[Any]:
    """The arrays of a launch, of which some stand in lists."""
    return [array for item in items for array in (item if isinstance(item, list) else [item])]


def _slices(whole: Key, part: Key) -> tuple[slice, ...] | None:
    """The slices, also backwards, with which an array is a part of another one; None if it is none of as many dimensions."""
    if len(whole[1]) != len(part[1]) or 0 in part[1]:
        return None
    offset, found = part[0] - whole[0], [slice(None)] * len(whole[1])
    for d in sorted(range(len(found)), key=lambda d: -abs(whole[2][d])):
        size, stride = whole[1][d], whole[2][d]
        if stride <= 0:
            return None
        first, offset = divmod(offset, stride)
        step, rest = divmod(part[2][d], stride) if part[1][d] > 1 else (1, 0)
        last = first + step * (part[1][d] - 1)
        if rest or not step or not (0 <= first < size and 0 <= last < size):
            return None
        end = last + (1 if step > 0 else -1)
        found[d] = slice(first, None if end < 0 else end, step)
    return tuple(found) if not offset else None


def _is_contiguous(piece: Key, itemsize: int) -> bool:
    """Whether a piece of memory is contiguous: then strides are products of sizes."""
    step = itemsize
    for size, stride in zip(reversed(piece[1]), reversed(piece[2])):
        if size != 1 and stride != step:
            return False
        step *= size
    return True
