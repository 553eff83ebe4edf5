"""What a launch computes in a network, as kernels declare it (:meth:`gpunet.launch.launchable.Launchable.computes`).

Arrays are those of the launch: in a recorded step :class:`gpunet.captured.ir.View`.  A reader of parts knows no kernel by name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    """A step of an optimizer: ``rule`` is its struct in common/update_rules.cuh, ``skip`` an array or None."""

    kernel: Any
    rule: str
    params: Sequence[Any]
    states: Sequence[Sequence[Any] | None]
    steps: Sequence[Any]
    grads: Sequence[Any]
    hyperparameters: Any
    skip: Any
    options: Mapping[str, Any]
