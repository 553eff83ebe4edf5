"""What gpunet and PyTorch both have: functions, methods, operators and properties, found by looking."""

from __future__ import annotations

import inspect
import types
from collections.abc import Iterator
from typing import Any, NamedTuple

from tests.torch_calls.schemas import Overload, Parameter, native, of_python

#: How Python spells a special method.  ``x`` is the tensor, ``y`` the other operand.
OPERATORS = {
    "__pos__": "+x", "__neg__": "-x", "__invert__": "~x", "__abs__": "abs(x)", "__len__": "len(x)", "__bool__": "bool(x)",
    "__float__": "float(x)", "__int__": "int(x)", "__index__": "operator.index(x)", "__iter__": "list(x)",
    "__complex__": "complex(x)", "__contains__": "y in x", "__format__": "f'{x:.2f}'", "__array__": "np.asarray(x)",
    "__deepcopy__": "copy.deepcopy(x)", "__getitem__": "x[i]", "__setitem__": "x[i] = y", "__divmod__": "divmod(x, y)",
    "__reversed__": "list(reversed(x))", "__round__": "round(x)", "__floor__": "math.floor(x)", "__ceil__": "math.ceil(x)",
    "__trunc__": "math.trunc(x)",
}  # fmt: skip
#: Members that tell or change the device, on which both differ in a run with ``--device cuda``, and addresses.
NOT_COMPARED = {
    "const_data_ptr", "cuda", "data_ptr", "device", "from_file", "get_device", "is_cpu", "is_cuda", "is_pinned", "is_shared",
    "new_empty", "new_tensor", "pin_memory", "record_stream", "set_", "set_rng_state", "share_memory_",
}  # fmt: skip
#: Methods whose results differ from PyTorch's on the CPU if the tensor is on another device: a name, and a copy.
DEPEND_ON_DEVICE = {"Tensor.type", "Tensor.cpu"}
_BINARY = {
    "add": "+", "sub": "-", "mul": "*", "truediv": "/", "floordiv": "//", "mod": "%", "pow": "**", "matmul": "@", "and": "&",
    "or": "|", "xor": "^", "lshift": "<<", "rshift": ">>",
}  # fmt: skip
for _name, _sign in _BINARY.items():
    OPERATORS[f"__{_name}__"] = f"x {_sign} y"
    OPERATORS[f"__r{_name}__"] = f"y {_sign} x"
    OPERATORS[f"__i{_name}__"] = f"x {_sign}= y"
for _name, _sign in {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}.items():
    OPERATORS[f"__{_name}__"] = f"x {_sign} y"


class Target(NamedTuple):
    """Something to call."""

    kind: str  # "function", "functional", "linalg", "special", "method", "operator" or "property"
    name: str
    overloads: tuple[Overload, ...]

    @property
    def full_name(self) -> str:
        prefix = {"function": "torch.", "functional": "F.", "linalg": "torch.linalg.", "special": "torch.special."}
        return prefix.get(self.kind, "Tensor.") + self.name

    @property
    def takes_out(self) -> bool:
        return self.kind == "function" and any(overload.has_out for overload in self.overloads)

    def __str__(self) -> str:
        return self.full_name


def _overloads(name: str, theirs: Any, variant: str) -> tuple[Overload, ...]:
    """The overloads under which PyTorch has a function, or none if no tensor goes in and none comes out."""
    if isinstance(theirs, types.FunctionType) and not (name in native() and variant == "function" and _is_wrapper(theirs)):
        overload = of_python(theirs)
        if name in native() and _is_wrapper(theirs):
            return tuple(o for o, kinds in native()[name] if variant in kinds)
        return (overload,) if any(p.type.startswith("Tensor") for p in overload.parameters) else ()
    wanted = {variant, "nn"} if variant == "function" else {variant}
    found = native().get(name) or native().get(theirs.__name__, ())  # F.logsigmoid is log_sigmoid
    return tuple(overload for overload, kinds in found if kinds & wanted)


def _is_wrapper(function: Any) -> bool:
    """Whether a Python function only forwards ``*args``."""
    return any(p.kind is p.VAR_POSITIONAL for p in inspect.signature(function).parameters.values())


def find_targets(gpunet: Any, torch: Any) -> list[Target]:
    """All targets, in the order of their names."""
    gpunet.Tensor  # noqa: B018 (attaches the methods)
    return sorted({t.full_name: t for t in _find(gpunet, torch)}.values(), key=lambda t: t.full_name)


def _find(gpunet: Any, torch: Any) -> Iterator[Target]:
    for name in gpunet.__all__:
        if _is_function(gpunet, torch, name) and (found := _overloads(name, getattr(torch, name), "function")):
            yield Target("function", name, found)
    ours, theirs = gpunet.nn.functional, torch.nn.functional
    for name in dir(ours):
        if _is_function(ours, theirs, name) and (found := _overloads(name, getattr(theirs, name), "function")):
            yield Target("functional", name, found)
    for room in ("linalg", "special"):
        ours, theirs = getattr(gpunet, room), getattr(torch, room)
        for name in dir(ours):
            if _is_function(ours, theirs, name) and (found := _overloads(f"{room}_{name}", getattr(theirs, name), room)):
                yield Target(room, name, found)
    for name in dir(gpunet.Tensor):
        if not hasattr(torch.Tensor, name) or (hasattr(object, name) and name not in OPERATORS):
            continue
        member = getattr(torch.Tensor, name)
        if name in OPERATORS:
            yield Target("operator", name, ())
        elif name.startswith("_") or name in NOT_COMPARED:
            continue
        elif not callable(member):
            yield Target("property", name, ())
        elif found := _overloads(name, member, "method"):
            yield Target("method", name, found)
        elif not isinstance(member, types.FunctionType):
            yield Target("method", name, (Overload((Parameter("self", "Tensor", None, False),)),))


def _is_function(ours: Any, theirs: Any, name: str) -> bool:
    if name.startswith("_") or name in NOT_COMPARED or not hasattr(theirs, name):
        return False
    return callable(getattr(ours, name)) and not isinstance(getattr(theirs, name), (type, types.ModuleType))
