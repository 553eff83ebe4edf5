"""PyTorch equivalents of the kernels, written as a user would write them for speed, for the comparison on a GPU.

Each is a function (torch, tensors, options) -> callable. The tensors are those of a ``kernels.Launch``, on PyTorch's device.
Kernels without an equivalent (the parts of a split-K product, the random counter) have no row.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy

Make = Callable[[Any, list[Any], dict[str, Any]], Callable[[], object]]
_equivalents: dict[str, Make] = {}


def _equivalent(make: Make) -> Make:
    _equivalents[make.__name__] = make
    return make


def find(name: str, arrays: list[Any], options: dict[str, Any], device: str) -> Callable[[], object] | None:
    """The PyTorch equivalent of a launch, ready to call; None if there is none or PyTorch is not installed.

    Args:
        name: name of the kernel.
        arrays: the arguments of the launch: NumPy arrays, None, or lists of arrays.
        options: the options of the launch.
        device: device of PyTorch, "cuda" or "cpu".
    """
    make = _equivalents.get(name)
    if make is None:
        return None
    try:
        import torch
    except ImportError:
        return None
    if device == "cuda" and not torch.cuda.is_available():
        return None

    def tensor(array: Any) -> Any:
        if isinstance(array, list):
            return [tensor(a) for a in array]
        if array is None or array.dtype.kind == "u":
            return None
        return torch.from_numpy(numpy.ascontiguousarray(array)).to(device)

    return make(torch, [tensor(a) for a in arrays], options)


@_equivalent
def linear_forward(torch: Any, t: list[Any], options: dict[str, Any]) -> Callable[[], object]:
    y, _, x, w, b = t
    return lambda: torch.addmm(b, x, w.T, out=y).relu_()


@_equivalent
def linear_backward_input(torch: Any, t: list[Any], options: dict[str, Any]) -> Callable[[], object]:
    dx, dy, w, saved = t
    return lambda: torch.ops.aten.threshold_backward(torch.mm(dy, w, out=dx), saved, 0)


@_equivalent
def linear_backward_weight(torch: Any, t: list[Any], options: dict[str, Any]) -> Callable[[], object]:
    dw, db, dy, x, _ = t

    def run() -> None:
        torch.mm(dy.T, x, out=dw)
        torch.sum(dy, 0, out=db)

    return run


@_equivalent
def matmul_forward(torch: Any, t: list[Any], options: dict[str, Any]) -> Callable[[], object]:
    out, a, b = t
    return lambda: torch.bmm(a, b, out=out)


@_equivalent
def activation_forward(torch: Any, t: list[Any], options: dict[str, Any]) -> Callable[[], object]:
    return lambda: torch.nn.functional.gelu(t[1])


@_equivalent
def activation_backward(torch: Any, t: list[Any], options: dict[str, Any]) -> Callable[[], object]:
    return lambda: torch.ops.aten.gelu_backward(t[1], t[2])


@_equivalent
def dropout_apply(torch: Any, t: list[Any], options: dict[str, Any]) -> Callable[[], object]:
    return lambda: torch.ops.aten.native_dropout_backward(t[1], t[2], options["scale"])


@_equivalent
def erf_forward(torch: Any, t: list[Any], options: dict[str, Any]) -> Callable[[], object]:
    return lambda: torch.erf(t[1], out=t[0])


@_equivalent
def elementwise_loss(torch: Any, t: list[Any], options: dict[str, Any]) -> Callable[[], object]:
    return _value_and_gradient(torch, torch.nn.functional.mse_loss, t[5], t[6])


@_equivalent
def cross_entropy_labels(torch: Any, t: list[Any], options: dict[str, Any]) -> Callable[[], object]:
    return _value_and_gradient(torch, torch.nn.functional.cross_entropy, t[6], t[7])


@_equivalent
def cross_entropy_soft(torch: Any, t: list[Any], options: dict[str, Any]) -> Callable[[], object]:
    return _value_and_gradient(torch, torch.nn.functional.cross_entropy, t[5], t[6])


def _value_and_gradient(torch: Any, loss: Any, x: Any, y: Any) -> Callable[[], object]:
    x = x.detach().requires_grad_()
    return lambda: torch.autograd.grad(loss(x, y), x)


@_equivalent
def random_uniform(torch: Any, t: list[Any], options: dict[str, Any]) -> Callable[[], object]:
    return lambda: t[0].uniform_(0.0, 1.0)


@_equivalent
def random_normal(torch: Any, t: list[Any], options: dict[str, Any]) -> Callable[[], object]:
    return lambda: t[0].normal_()


@_equivalent
def random_integers(torch: Any, t: list[Any], options: dict[str, Any]) -> Callable[[], object]:
    return lambda: t[0].random_(options["low"], options["high"])


@_equivalent
def random_bernoulli(torch: Any, t: list[Any], options: dict[str, Any]) -> Callable[[], object]:
    return lambda: t[0].bernoulli_(options["probability"])


@_equivalent
def sgd_step(torch: Any, t: list[Any], options: dict[str, Any]) -> Callable[[], object]:
    return _optimizer(torch, t[0], t[3], torch.optim.SGD, lr=1e-3, momentum=0.9)


@_equivalent
def adam_step(torch: Any, t: list[Any], options: dict[str, Any]) -> Callable[[], object]:
    return _optimizer(torch, t[0], t[5], torch.optim.Adam, lr=1e-3)


def _optimizer(
    torch: Any, parameters: list[Any], gradients: list[Any], make: Any, **options: Any
) -> Callable[[], object]:
    for p, g in zip(parameters, gradients):
        p.grad = g
    step: Callable[[], object] = make(parameters, fused=True, **options).step
    return step
