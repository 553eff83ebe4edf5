"""gradcheck: gradients against finite differences."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy

from gpunet.autograd.backward import grad
from gpunet.autograd.mode import no_grad
from gpunet.autograd.tensor import Tensor
from gpunet.backend import devices
from gpunet.errors import ArgumentError, MismatchError
from gpunet.launch.tape import flush_pending

#: By bits of the dtype: step of the differences, absolute and relative tolerance.
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
    """Compare the gradients of ``func`` with central differences, element by element, as ``torch.autograd.gradcheck``.

    What is differentiated is the sum of all floating outputs under random weights, so that each input costs two calls
    an element, and not two a pair of elements.

    Args:
        func: takes ``inputs``, returns a Tensor or a tuple of them.
        inputs: those with ``requires_grad`` are checked.  float64 makes a sharp check; for float32 the defaults of
            ``eps``, ``atol`` and ``rtol`` are 1e-2 instead of 1e-6, 1e-5 and 1e-3.
        raise_exception: return False instead of raising, where this is False.
        seed: of the weights.

    Raises:
        MismatchError: the first input whose gradient is wrong, and its worst element.
        ArgumentError: no input requires a gradient, or func returns nothing that has one.
    """
    given = [inputs] if isinstance(inputs, Tensor) else list(inputs)
    checked = [i for i, x in enumerate(given) if isinstance(x, Tensor) and x.requires_grad]
    if not checked:
        raise ArgumentError("gradcheck: none of the inputs requires a gradient; make one with requires_grad=True")
    generator = numpy.random.default_rng(seed)
    outputs = _floating(func(*given))
    if not any(y.requires_grad for y in outputs):
        raise ArgumentError(
            f"gradcheck: none of the {len(outputs)} floating outputs depends on inputs that require grad"
        )
    weights = [generator.uniform(0.5, 1.5, y.shape) * generator.choice([-1.0, 1.0], y.shape) for y in outputs]
    pairs = [(y, _like(w, y)) for y, w in zip(outputs, weights) if y.requires_grad]
    gradients = grad([y for y, _ in pairs], [given[i] for i in checked], [w for _, w in pairs], allow_unused=True)

    def weighted(position: int, values: numpy.ndarray) -> float:
        moved = [*given[:position], _like(values, given[position]), *given[position + 1 :]]
        with no_grad():
            found = _floating(func(*moved))
        return float(sum((w * _host(y)).sum() for w, y in zip(weights, found)))

    for position, gradient in zip(checked, gradients):
        x = _host(given[position])
        step, absolute, relative = _DEFAULTS[32 if given[position].dtype.itemsize < 8 else 64]
        step = eps or step
        numeric = numpy.zeros(x.shape)
        for index in numpy.ndindex(x.shape):
            above, below = x.copy(), x.copy()
            above[index] += step
            below[index] -= step
            numeric[index] = (weighted(position, above) - weighted(position, below)) / (2 * step)
        analytic = numpy.zeros(x.shape) if gradient is None else _host(gradient)
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


def _floating(result: Any) -> list[Tensor]:
    outputs = result if isinstance(result, (tuple, list)) else [result]
    return [y for y in outputs if isinstance(y, Tensor) and y.is_floating_point()]


def _host(x: Tensor) -> numpy.ndarray:
    flush_pending("gradcheck()", x.array)
    return numpy.array(devices.move(x.array, devices.CPU), numpy.float64)


def _like(values: numpy.ndarray, x: Tensor) -> Tensor:
    return Tensor(devices.move(numpy.asarray(values, x.dtype), x.device))
