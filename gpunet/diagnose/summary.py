"""``diagnose.summary``: the modules of a network with their output shapes, parameters, multiply-adds and memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from gpunet import nn
from gpunet.autograd import Tensor, enable_grad, wrap
from gpunet.autograd.graph import Node
from gpunet.backend import devices
from gpunet.backend.devices import Array
from gpunet.captured.ir import tree_leaves
from gpunet.diagnose.arguments import check_model
from gpunet.diagnose.launches import Observer, multiply_adds_of
from gpunet.errors import ArgumentError
from gpunet.launch.tape import record
from gpunet.ops.creation import zeros
from gpunet.train.keeping import everything_kept

__all__ = ["Summary", "SummaryRow", "summary"]


@dataclass
class SummaryRow:
    """A module in a :class:`Summary`.

    Attributes:
        name: its path in the model, "" for the model itself.
        kind: the name of its class.
        depth: of its nesting.
        shapes: of the tensors that its last run returned; empty if it did not run.
        num_parameters: of the module itself, without submodules; a parameter that several modules share counts once.
        multiply_adds: of all its runs, with submodules.
        num_runs: how often it ran.
    """

    name: str
    kind: str
    depth: int
    shapes: list[tuple[int, ...]] = field(default_factory=list)
    num_parameters: int = 0
    multiply_adds: int = 0
    num_runs: int = 0


@dataclass
class Summary:
    """The modules of a network; prints as a table.

    Attributes:
        rows: the modules, in the order of ``model.named_modules()``.
        num_parameters, num_trainable: elements of all parameters, and of those that require grad.
        multiply_adds: of a forward pass.
        parameter_bytes, buffer_bytes: their memory.
        residual_bytes: memory that the forward pass keeps for the backward pass, without parameters and inputs.
        input_bytes: memory of the inputs.
    """

    rows: list[SummaryRow]
    num_parameters: int
    num_trainable: int
    multiply_adds: int
    parameter_bytes: int
    buffer_bytes: int
    residual_bytes: int
    input_bytes: int

    def __str__(self) -> str:
        table = [("module", "output", "parameters", "multiply-adds")]
        for row in self.rows:
            last = row.name.rpartition(".")[2]
            label = "  " * row.depth + row.kind + (f" ({last})" if last else "")
            shapes = ", ".join("×".join(map(str, shape)) or "1" for shape in row.shapes) if row.num_runs else "not run"
            runs = f", {row.num_runs} runs" if row.num_runs > 1 else ""
            table.append((label, shapes + runs, _count(row.num_parameters), _count(row.multiply_adds)))
        widths = [max(len(line[at]) for line in table) for at in range(4)]
        lines = [f"{a:{widths[0]}}  {b:{widths[1]}}  {c:>{widths[2]}}  {d:>{widths[3]}}".rstrip() for a, b, c, d in table]
        rule = "─" * (sum(widths) + 6)
        lines = [lines[0], rule, *lines[1:], rule]
        frozen = self.num_parameters - self.num_trainable
        lines.append(f"{self.num_parameters:,} parameters" + (f", {frozen:,} of them frozen" if frozen else "")
                     + f"; {self.multiply_adds:,} multiply-adds forward")  # fmt: skip
        parts = {"parameters": self.parameter_bytes, "buffers": self.buffer_bytes, "kept for backward": self.residual_bytes,
                 "inputs": self.input_bytes}  # fmt: skip
        lines.append("memory: " + ", ".join(f"{name} {_size(count)}" for name, count in parts.items() if count))
        return "\n".join(lines)


def summary(model: nn.Module, input: Any) -> Summary:
    """Run a network once, and list its modules with output shapes, parameters, multiply-adds and memory.

        print(diagnose.summary(model, (32, 1, 28, 28)))

    The network runs forward in the mode that it is in; weights, buffers, gradients and random numbers are as before afterwards.
    Multiply-adds are those of the matrix products that are launched: linear layers, convolutions, attention, recurrence.  A lazy
    layer has its parameters from then on.

    Args:
        model: the network.
        input: a tensor or an array; a tuple or list of them for several arguments; or a shape, a tuple of integers, for zeros on
            the device and of the dtype of the first parameter.

    Raises:
        ArgumentError: ``model`` is no module, or ``input`` is of another type.
    """
    check_model(model, "summary")
    inputs = _inputs(model, input)
    rows = {
        id(module): SummaryRow(name, type(module).__name__, name.count(".") + bool(name)) for name, module in model.named_modules()
    }
    counter = _Counter()
    handles = []
    for module in model.modules():
        handles.append(module.register_forward_pre_hook(lambda module, args: counter.begin()))
        handles.append(module.register_forward_hook(lambda module, args, output: counter.end(rows[id(module)], output)))
    try:
        # a submodule may make parameters of a lazy layer, so it runs before they are looked at
        with everything_kept([model], []), enable_grad(), record(counter):
            output = model(*inputs)
    finally:
        for handle in handles:
            handle.remove()
    seen: set[int] = set()
    for module in model.modules():
        own = [p for p in module._parameters.values() if p is not None and id(p) not in seen]
        seen.update(map(id, own))
        rows[id(module)].num_parameters = sum(p.numel() for p in own)
    parameters, buffers = [*model.parameters()], [*model.buffers()]
    known = [t.array for t in (*parameters, *buffers, *inputs)]
    return Summary(
        [*rows.values()], sum(p.numel() for p in parameters), sum(p.numel() for p in parameters if p.requires_grad),
        rows[id(model)].multiply_adds, _bytes(t.array for t in parameters), _bytes(t.array for t in buffers),
        _bytes(_saved(output), known), _bytes(t.array for t in inputs),
    )  # fmt: skip


def _inputs(model: nn.Module, input: Any) -> list[Tensor]:
    if isinstance(input, (tuple, list)) and input and all(isinstance(n, int) for n in input):
        like = next(model.parameters(), None)
        options = {} if like is None else {"device": like.device, "dtype": like.dtype}
        return [zeros(tuple(input), **options)]
    given = input if isinstance(input, (tuple, list)) else (input,)
    for value in given:
        if not isinstance(value, Tensor) and not devices.is_array(value):
            raise ArgumentError(f"summary: input={input!r}; expected a tensor, an array, a tuple of them, or a shape of integers")
    return [wrap(value, "summary") for value in given]


class _Counter(Observer):
    """Counts multiply-adds, of the modules that are running, too."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0
        self.starts: list[int] = []

    def observe(self, kernel: Any, arrays: tuple[Any, ...], options: dict[str, Any]) -> None:
        kernel.launch(arrays, options)
        self.total += multiply_adds_of(kernel, arrays, options)

    def begin(self) -> None:
        self.starts.append(self.total)

    def end(self, row: SummaryRow, output: Any) -> None:
        row.multiply_adds += self.total - self.starts.pop()
        row.num_runs += 1
        row.shapes = [tuple(t.shape) for t in tree_leaves(output, Tensor)]


def _saved(output: Any) -> Iterator[Array]:
    """The arrays that the graph of an output keeps for backward."""
    nodes = [tensor._node for tensor in tree_leaves(output, Tensor) if tensor._node is not None]
    seen: set[Node] = set()
    while nodes:
        node = nodes.pop()
        if node in seen:
            continue
        seen.add(node)
        nodes += [edge[0] for edge in node.edges if edge is not None and isinstance(edge[0], Node)]
        for value in tree_leaves((node.saved, tuple(node.inputs)), _is_value):
            yield value.array if isinstance(value, Tensor) else value


def _is_value(value: Any) -> bool:
    return isinstance(value, Tensor) or devices.is_array(value)


def _bytes(arrays: Iterable[Array], known: Iterable[Array] = ()) -> int:
    """Bytes of the memory of arrays; views of the same memory, and of that of ``known``, count once and not at all."""
    seen = {id(devices.owner_of(array)) for array in known}
    count, alive = 0, []
    for array in arrays:
        owner = devices.owner_of(array)
        if id(owner) not in seen:
            seen.add(id(owner))
            alive.append(owner)  # so that its id stays its own
            count += owner.nbytes
    return count


def _count(number: int) -> str:
    return f"{number:,}" if number else ""


def _size(count: float) -> str:
    """Format bytes with a unit: 1.5 MB."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            return f"{count:.0f} B" if unit == "B" else f"{count:.3g} {unit}"
        count /= 1000
    return ""
