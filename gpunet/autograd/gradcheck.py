"""gradcheck: compare gradients with finite differences."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy

from gpunet.autograd.engine import grad
from gpunet.autograd.mode import enable_grad, no_grad
from gpunet.autograd.tensor import Tensor, make_tensor
from gpunet.backend import devices
from gpunet.backend.dtypes import is_complex, is_inexact, to_real
from gpunet.errors import ArgumentError, MismatchError

#: Step of the finite differences, absolute and relative tolerance, by the bits of the dtype.
_DEFAULTS = {64: (1e-6, 1e-5, 1e-3), 32: (1e-2, 1e-2, 1e-2)}


def gradcheck(
    func: Callable[..., Any],
    inputs: Tensor | Sequence[Any],
    *,
    eps: float | None = None,
    atol: float | None = None,
    rtol: float | None = None,
    raise_exception: bool = True,
    seed: int = 0,
) -> bool:
    """Compare the gradients of ``func`` with central differences, like ``torch.autograd.gradcheck``.

    The function that is differentiated is a randomly weighted sum of all floating outputs, so the check costs two calls
    per input element instead of two per pair of input and output elements.  Of complex numbers both parts are.

    Args:
        func: called with ``inputs``; returns a Tensor or a tuple of Tensors.
        inputs: arguments; those with ``requires_grad`` are checked.  Prefer float64, which allows tight tolerances.
        eps: step of the differences; 1e-6 by default (float32: 1e-2).
        atol: absolute tolerance; 1e-5 by default (float32: 1e-2).
        rtol: relative tolerance; 1e-3 by default (float32: 1e-2).
        raise_exception: if False, return False instead of raising MismatchError.
        seed: seed of the random weights.

    Returns:
        True if all gradients match.

    Raises:
        MismatchError: a gradient is wrong; the message names the first such input and its worst element.
        ArgumentError: no input requires a gradient, or no floating output depends on such an input.
    """
    given = [inputs] if isinstance(inputs, Tensor) else list(inputs)
    positions = [i for i, x in enumerate(given) if isinstance(x, Tensor) and x.requires_grad]
    if not positions:
        raise ArgumentError("gradcheck: none of the inputs requires grad; create an input with requires_grad=True")
    generator = numpy.random.default_rng(seed)
    outputs = _floating(func(*given))
    if not any(y.requires_grad for y in outputs):
        raise ArgumentError(
            f"gradcheck: none of the {len(outputs)} floating outputs depends on an input that requires grad"
        )
    weights = [_weights(generator, y) for y in outputs]
    pairs = [(y, _like(w, y)) for y, w in zip(outputs, weights) if y.requires_grad]
    gradients = grad([y for y, _ in pairs], [given[i] for i in positions], [w for _, w in pairs], allow_unused=True)

    def weighted_sum(position: int, values: numpy.ndarray) -> float:
        """Return the weighted sum of the outputs with the input at ``position`` replaced by ``values``."""
        arguments = [*given[:position], _like(values, given[position]), *given[position + 1 :]]
        with no_grad():
            results = _floating(func(*arguments))
        return float(sum((w.conj() * _host(y)).real.sum() for w, y in zip(weights, results)))

    for position, gradient in zip(positions, gradients):
        x = _host(given[position])
        step, absolute, relative = _DEFAULTS[32 if to_real(given[position].dtype).itemsize < 8 else 64]
        step = eps or step
        numeric = numpy.zeros_like(x)
        for index in numpy.ndindex(x.shape):
            for unit in (1.0, 1j) if numpy.iscomplexobj(x) else (1.0,):
                above, below = x.copy(), x.copy()
                above[index] += step * unit
                below[index] -= step * unit
                numeric[index] += unit * (weighted_sum(position, above) - weighted_sum(position, below)) / (2 * step)
        analytic = numpy.zeros_like(x) if gradient is None else _host(gradient)
        allowed = (absolute if atol is None else atol) + (relative if rtol is None else rtol) * numpy.abs(numeric)
        excess = numpy.where(numpy.isnan(analytic - numeric), numpy.inf, numpy.abs(analytic - numeric) - allowed)
        if excess.size and excess.max() > 0:
            if not raise_exception:
                return False
            worst = tuple(map(int, numpy.unravel_index(excess.argmax(), x.shape)))
            raise MismatchError(
                f"gradcheck: the gradient of input {position} is wrong in {int((excess > 0).sum())} of {x.size} elements: at "
                f"{worst} it is {analytic[worst]:.6g}, finite differences give {numeric[worst]:.6g} "
                f"(step {step:g}, tolerance {allowed[worst]:.2g})"
            )
    return True


def gradgradcheck(
    func: Callable[..., Any],
    inputs: Tensor | Sequence[Any],
    grad_outputs: Tensor | Sequence[Tensor] | None = None,
    *,
    eps: float | None = None,
    atol: float | None = None,
    rtol: float | None = None,
    raise_exception: bool = True,
    seed: int = 0,
) -> bool:
    """Compare the second derivatives of ``func`` with central differences of its gradients, see :func:`gradcheck`.

    Args:
        grad_outputs: gradients of the floating outputs, which are differentiated, too; random ones by default.

    Raises:
        MismatchError, ArgumentError: as of :func:`gradcheck`.
    """
    given = [inputs] if isinstance(inputs, Tensor) else list(inputs)
    positions = [i for i, x in enumerate(given) if isinstance(x, Tensor) and x.requires_grad]
    if not positions:
        raise ArgumentError("gradgradcheck: none of the inputs requires grad; create an input with requires_grad=True")
    if grad_outputs is None:
        generator = numpy.random.default_rng(seed)
        upstream = [_like(_weights(generator, y), y).requires_grad_() for y in _floating(func(*given)) if y.requires_grad]
    else:
        upstream = [grad_outputs] if isinstance(grad_outputs, Tensor) else list(grad_outputs)

    def gradients(*arguments: Any) -> tuple[Tensor, ...]:
        with enable_grad():
            leaves = list(arguments[: len(given)])
            for i in positions:
                leaves[i] = leaves[i] if leaves[i].requires_grad else leaves[i].detach().requires_grad_()
            outputs = [y for y in _floating(func(*leaves)) if y.requires_grad]
            found = grad(outputs, [leaves[i] for i in positions], arguments[len(given) :], create_graph=True, allow_unused=True)
        return tuple([g for g in found if g is not None])

    return gradcheck(
        gradients, [*given, *upstream], eps=eps, atol=atol, rtol=rtol, raise_exception=raise_exception, seed=seed
    )  # fmt: skip


def _floating(result: Any) -> list[Tensor]:
    """Return the floating and complex Tensors among the results of a function."""
    outputs = result if isinstance(result, (tuple, list)) else [result]
    return [y for y in outputs if isinstance(y, Tensor) and is_inexact(y.dtype)]


def _weights(generator: numpy.random.Generator, y: Tensor) -> numpy.ndarray:
    """Random numbers for the elements of y, none near 0; complex ones for those of complex elements."""
    real, imag = (generator.uniform(0.5, 1.5, y.shape) * generator.choice([-1.0, 1.0], y.shape) for _ in range(2))
    return real + 1j * imag if is_complex(y.dtype) else real


def _host(x: Tensor) -> numpy.ndarray:
    """Copy a tensor into a float64 or complex128 NumPy array."""
    return numpy.array(devices.move(x.array, devices.CPU), numpy.complex128 if is_complex(x.dtype) else numpy.float64)


def _like(values: numpy.ndarray, x: Tensor) -> Tensor:
    """Return the values as a tensor with the dtype and device of ``x``."""
    return make_tensor(devices.move(numpy.asarray(values, x.dtype), x.device))
