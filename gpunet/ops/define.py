"""Decorators that define an elementwise function: its primitive, public function, methods and in-place methods."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

from gpunet.autograd import Tensor, method, primitive
from gpunet.backend.devices import Array
from gpunet.launch.shims import Ufunc
from gpunet.ops.broadcast import launch_unary, ufunc
from gpunet.ops.face import public
from gpunet.ops.in_place import in_place

F = TypeVar("F", bound=Callable[..., Any])


def elementwise(
    names: str, operators: str = "", *, launch: Ufunc | None = None, numbers: bool = False, autocast: str = "",
    takes_complex: bool = False,
) -> Callable[[F], F]:  # fmt: skip
    """Decorator of a :func:`public` function that also gets in-place methods: ``add_`` beside ``add``.

    Args:
        names: the names of its methods, separated by spaces.
        operators: further names of the in-place method, such as ``__iadd__``.
        launch: see :func:`in_place`.
        numbers, autocast, takes_complex: see :func:`public`.  In-place methods do not autocast.
    """

    def decorate(function: F) -> F:
        changes = [f"{name}_" for name in names.split()]
        method(" ".join([*changes, operators]))(in_place(function, changes[0], launch, takes_complex))
        return public(names, numbers=numbers, autocast=autocast, takes_complex=takes_complex)(function)

    return decorate


def unary(
    derivative: Callable[..., Tensor],
    *,
    aliases: str = "",
    function: str = "",
    same_dtype: bool = False,
    forward: Callable[[Tensor], Array] | None = None,
    autocast: str = "",
    is_method: bool = True,
    takes_complex: bool = False,
) -> Callable[[Callable[..., Any]], Any]:
    """Decorator of the declaration of a function of one tensor; its body is only a docstring.

        @unary(lambda g, out: g * out)
        def exp(input):
            \"\"\"e^x.\"\"\"

    It computes the ufunc of its name.  The result has the input's dtype if that is floating, else the default dtype.

    Args:
        derivative: the rule of the gradient, see :func:`gpunet.autograd.primitive`.
        aliases: further names of the method.
        function: the ufunc, if NumPy names it differently.
        same_dtype: integers and booleans keep their dtype.
        forward: computes the result instead of the ufunc.
        autocast: see :func:`public`.
        is_method: whether it is a method as well, with an in-place method.
        takes_complex: see :func:`gpunet.autograd.primitive`; the ufunc computes complex numbers, too.
    """

    def decorate(declaration: Callable[..., Any]) -> Any:
        name = declaration.__name__
        launch = ufunc(function or name) if forward is None else None

        def compute(input: Tensor) -> Array:
            if forward is not None:
                return forward(input)
            assert launch is not None
            return launch_unary(launch, input, input.dtype if same_dtype else None)

        compute.__name__, compute.__qualname__ = f"_{name}", name  # the qualified name is Python's in messages
        op = primitive(compute, takes_complex=takes_complex)
        op.derivatives(input=derivative)
        op.__name__, op.__wrapped__ = name, declaration  # whose signature the in-place method has
        options: dict[str, Any] = {"autocast": autocast, "takes_complex": takes_complex}
        methods = elementwise(f"{name} {aliases}", launch=launch, **options) if is_method else public(**options)
        return functools.update_wrapper(methods(op), declaration)

    return decorate
