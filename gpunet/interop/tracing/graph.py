"""The form of a traced forward pass."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy


class Dim(NamedTuple):
    """An integer that depends on the sizes of dynamic dimensions: factor * the product of the sizes + offset.

    The names are those of dynamic dimensions of the inputs, and of sizes that ops make, see :attr:`Graph.made`.
    """

    factor: int
    names: tuple[str, ...]
    offset: int = 0

    def at(self, sizes: Mapping[str, int]) -> int:
        """The integer for these sizes."""
        return self.factor * math.prod(sizes[name] for name in self.names) + self.offset

    def __str__(self) -> str:
        product = " * ".join(([str(self.factor)] if self.factor != 1 else []) + [*self.names])
        return f"{product} {'-' if self.offset < 0 else '+'} {abs(self.offset)}" if self.offset else product


#: A size: an integer, or one that depends on dynamic dimensions.
Size = int | Dim
Shape = tuple[Any, ...]


class Ref(NamedTuple):
    """A reference to a value.

    Attributes:
        kind: "input", "parameter", "constant" or "result".
        key: the number of the input, the name of the parameter or buffer, the number of the constant, or the number of the node.
        output: which result of the node.
    """

    kind: str
    key: Any
    output: int = 0


class Spec(NamedTuple):
    """Shape and dtype of a value."""

    shape: Shape
    dtype: numpy.dtype[Any]


@dataclass(eq=False)
class Node:
    """One op.

    Attributes:
        op: its name, that of :data:`gpunet.autograd.OPS` without leading underscore; of launches that are no ops, such as
            comparisons, the name in ``UFUNCS`` or ``SHIMS`` of the recorder.
        inputs: references, Python numbers, and None.
        options: its keyword arguments.
        outputs: shapes and dtypes of the results.
        function: the public function that the user called, for messages.
        module: the path of the module that called it, and its class: "features.0 (Conv2d)".
        values: copies of the results if they depend on no input of the model.
        is_opaque: it is a launch whose function is not known.
    """

    op: str
    inputs: tuple[Any, ...]
    options: dict[str, Any]
    outputs: list[Spec]
    function: str = ""
    module: str = ""
    values: list[numpy.ndarray] | None = None
    is_opaque: bool = False

    @property
    def references(self) -> Iterator[Ref]:
        return (value for value in self.inputs if isinstance(value, Ref))


class Repeated(NamedTuple):
    """A constant whose elements are the same along dynamic dimensions."""

    value: numpy.ndarray  # broadcasts to the shape
    shape: Shape


class Counting(NamedTuple):
    """A constant that counts 0, 1, 2, ... along one dimension, whose size is dynamic; the other dimensions have size 1."""

    dtype: numpy.dtype[Any]
    shape: Shape
    dim: int


@dataclass
class Graph:
    """A forward pass.

    Attributes:
        inputs: name and specification of each input.
        outputs: what is returned, in order.
        nodes: the ops, each after those that it reads.
        parameters: the arrays of parameters and buffers by their names in the state_dict, and what was computed of them.
        reshaped: of parameters that are others in another shape, the names of these.
        constants: arrays, or the form of constants whose shape is dynamic.
        variants: the sizes of the dynamic dimensions, and of what ops made of them, each time that the model ran.
        made: of sizes that follow from others by a division, such as those behind a strided convolution, the result and its
            dimension that has this size.
    """

    inputs: list[tuple[str, Spec]]
    outputs: list[Ref]
    nodes: list[Node]
    parameters: dict[str, numpy.ndarray]
    constants: list[numpy.ndarray | Repeated | Counting]
    variants: list[dict[str, int]] = field(default_factory=lambda: [{}])
    made: dict[str, tuple[Ref, int]] = field(default_factory=dict)
    reshaped: dict[str, str] = field(default_factory=dict)

    def spec(self, ref: Ref) -> Spec:
        """Shape and dtype of a value."""
        if ref.kind == "input":
            return self.inputs[ref.key][1]
        if ref.kind == "result":
            return self.nodes[ref.key].outputs[ref.output]
        value = self.parameters[ref.key] if ref.kind == "parameter" else self.constants[ref.key]
        if isinstance(value, Repeated):
            return Spec(value.shape, value.value.dtype)
        return Spec(tuple(value.shape), value.dtype)


def is_static(value: Any) -> bool:
    """Whether no :class:`Dim` is in an option or shape."""
    if isinstance(value, Dim):
        return False
    if isinstance(value, dict):
        return all(map(is_static, value.values()))
    return all(map(is_static, value)) if isinstance(value, (tuple, list)) else True
