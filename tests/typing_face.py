"""Writes gpunet/autograd/methods.pyi, what type checkers and editors see of Tensor's methods.

    python -m tests.typing_face            # prints the file; tests/autograd/test_methods.py holds it to the library
"""

from __future__ import annotations

import inspect
import types

import gpunet
from gpunet.autograd import Tensor

HEAD = '''"""What type checkers and editors see of Tensor's methods.  Written by tests/typing_face.py; never imported at run time.

The methods themselves are attached to Tensor by the ops that they are (see ``gpunet.autograd.primitive``).
"""

import builtins
from collections.abc import Sequence
from typing import Any

from gpunet.autograd import Tensor
from gpunet.backend.devices import Array
from gpunet.ops.dims import Dims
from gpunet.ops.reduce import ValuesIndices

class TensorMethods:
'''


def _annotation(annotation: object, default: str) -> str:
    if annotation is inspect.Parameter.empty:
        return default
    text = annotation if isinstance(annotation, str) else getattr(annotation, "__name__", str(annotation))
    # inside the class, method names such as float and int hide the builtins
    for name in ("float", "int", "bool"):
        text = " | ".join(f"builtins.{name}" if part == name else part for part in text.split(" | "))
    return text.replace("Sequence[int]", "Sequence[builtins.int]").replace("tuple[int, ...]", "tuple[builtins.int, ...]")


def _method(name: str, function: types.FunctionType) -> str:
    signature = inspect.signature(function)
    primitive = hasattr(function, "op")
    parts, star = ["self"], False
    for parameter in list(signature.parameters.values())[1:]:
        if parameter.kind is parameter.VAR_POSITIONAL:
            parts.append(f"*{parameter.name}: {_annotation(parameter.annotation, 'Any')}")
            star = True
            continue
        if parameter.kind is parameter.VAR_KEYWORD:
            parts.append(f"**{parameter.name}: Any")
            continue
        if parameter.kind is parameter.KEYWORD_ONLY and not star:
            parts.append("*")
            star = True
        default = "" if parameter.default is parameter.empty else f" = {parameter.default!r}"
        parts.append(f"{parameter.name}: {_annotation(parameter.annotation, 'Any')}{default}")
    result = "Tensor" if primitive else _annotation(signature.return_annotation, "Tensor")
    ignore = "  # type: ignore[override]" if name in ("__eq__", "__ne__") else ""
    return f"    def {name}({', '.join(parts)}) -> {result}: ...{ignore}\n"


def face() -> str:
    """The text of gpunet/autograd/methods.pyi."""
    lines = []
    for name, value in sorted(vars(Tensor).items()):
        if isinstance(value, property) and value.fget is not None and value.fget.__module__.startswith("gpunet.ops"):
            lines.append(f"    @property\n    def {name}(self) -> Tensor: ...\n")
        elif isinstance(value, types.FunctionType) and value.__module__ != Tensor.__module__:
            lines.append(_method(name, value))
    return HEAD + "".join(lines)


if __name__ == "__main__":
    assert gpunet.Tensor is Tensor  # which attached the methods
    print(face(), end="")
