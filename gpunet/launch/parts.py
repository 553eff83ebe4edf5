"""What a launch computes in a network, as kernels declare it (:meth:`gpunet.launch.launchable.Launchable.computes`).

Arrays are those of the launch: in a recorded step :class:`gpunet.captured.ir.View`.  A reader of parts knows no kernel by name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple


class Layer(NamedTuple):
    """y = act(x w^T + b).  z is the pre-activation, or None; b may be None."""

    y: Any
    z: Any
    x: Any
    w: Any
    b: Any
    activation: str
    alpha: float


class Activation(NamedTuple):
    """y = act(z)."""

    y: Any
    z: Any
    activation: str
    alpha: float


class Dropout(NamedTuple):
    """y = x scale with ``probability``, else x 0, forward or backward.

    ``state`` is the place in a stream of random numbers; a launch that ``advances`` it leaves its old value in ``start``.
    """

    y: Any
    x: Any
    state: Any
    start: Any
    probability: float
    scale: float
    advances: bool


class Loss(NamedTuple):
    """value = the mean or the sum of losses of x and target; slope = their derivatives by x, before ``factor``, 1 / count.

    ``loss`` is a key of ``ELEMENTWISE_LOSSES``, or "cross_entropy" against labels; ``options`` are its other numbers.
    """

    value: Any
    slope: Any
    factor: Any
    fault: Any
    x: Any
    target: Any
    loss: str
    reduction: str
    options: Mapping[str, Any]


class Scaling(NamedTuple):
    """y = x factor."""

    y: Any
    x: Any
    factor: Any


class InputGradient(NamedTuple):
    """dx = (dy w) act'(saved)."""

    dx: Any
    dy: Any
    w: Any
    saved: Any
    activation: str
    alpha: float


class ActivationGradient(NamedTuple):
    """dz = dy act'(saved)."""

    dz: Any
    dy: Any
    saved: Any
    activation: str
    alpha: float


class WeightGradient(NamedTuple):
    """dw = scale dy^T x, db = scale (column sums of dy); without scale, 1."""

    dw: Any
    db: Any
    dy: Any
    x: Any
    scale: Any


class Norm(NamedTuple):
    """norm = (sum of |g|^order)^(1/order) over all gradients."""

    grads: Sequence[Any]
    norm: Any
    order: float


class Clip(NamedTuple):
    """g *= min(1, max_norm / (norm + 1e-6)) of all gradients."""

    grads: Sequence[Any]
    norm: Any
    max_norm: float


class Update(NamedTuple):
    """A step of an optimizer.

    ``rule`` is its struct in common/update_rules.cuh or small_net.cu, ``apply`` the twin of a step (see
    :class:`gpunet.ops.small_net.Rule`), ``skip`` an array that says whether to do nothing, or None.
    """

    params: Sequence[Any]
    states: Sequence[Sequence[Any] | None]
    steps: Sequence[Any] | None
    grads: Sequence[Any]
    hyperparameters: Any
    skip: Any
    rule: str
    maximize: bool
    apply: Callable[..., None]


# ---- of many nets at once ---------------------------------------------------------------------------------------------


class StackedUpdate(NamedTuple):
    """A step of an optimizer on one parameter of all nets.

    The ``numbers`` are hyperparameters, or those of a launch that declares :class:`StackedNumbers`, which has the rule then.
    """

    param: Any
    states: Sequence[Any]
    grad: Any
    numbers: Any
    active: Any
    rule: str | None = None
    apply: Callable[..., None] | None = None


class StackedNumbers(NamedTuple):
    """The numbers of a step, of hyperparameters and counters that all parameters share."""

    numbers: Any
    counters: Any
    hyperparameters: Any
    active: Any
    rule: str
    apply: Callable[..., None]


class StackedLayer(NamedTuple):
    """y = x w^T + b of each net; nets that are not ``active`` are stopped."""

    y: Any
    x: Any
    w: Any
    b: Any
    active: Any


class StackedMean(NamedTuple):
    """value = the mean of each net's losses."""

    value: Any
    each: Any
    active: Any


class StackedDropout(NamedTuple):
    """y = x 2^32 / kept[s] for ``kept`` of 2^32 numbers, else x 0; ``state`` and ``start`` as of :class:`Dropout`, for each net."""

    y: Any
    x: Any
    state: Any
    start: Any
    kept: Any
    advances: bool


class Sum(NamedTuple):
    """y = the sum of all elements of x."""

    y: Any
    x: Any


class Copy(NamedTuple):
    """y = x, broadcast."""

    y: Any
    x: Any


class Fill(NamedTuple):
    """y = value."""

    y: Any
    value: float
