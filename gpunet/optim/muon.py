"""Muon, whose steps are orthogonalized momenta: for the matrices of hidden layers."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from gpunet.autograd import Tensor, make_tensor, no_grad
from gpunet.backend.devices import Array
from gpunet.backend.dtypes import accumulator
from gpunet.errors import ArgumentError, DtypeError
from gpunet.launch.memory import ticket
from gpunet.ops.creation import zeros_like
from gpunet.ops.elementwise import maximum, where
from gpunet.optim.averaging import move_averages
from gpunet.optim.optimizer import Optimizer, ParameterGroup
from gpunet.optim.sgd import sgd_step

__all__ = ["Muon"]


def _orthogonalized(matrix: Tensor, coefficients: tuple[float, float, float], steps: int, eps: Tensor, factor: float) -> Tensor:
    """Return ``factor`` times about the orthogonal matrix nearest to ``matrix``: its singular values become 0.5 to 1.5.

    Each of the steps replaces X by a X + (b X X^T + c (X X^T)^2) X, which raises the singular values of X towards 1.

    Source: Jordan et al., "Muon: An optimizer for hidden layers in neural networks" (2024); the iteration is Newton's and
    Schulz's, as in Bernstein and Newhouse, "Old Optimizer, New Norm: An Anthology" (2024).
    """
    is_tall = matrix.shape[0] > matrix.shape[1]
    x = (matrix.T if is_tall else matrix).to(accumulator(matrix.dtype))
    x = x / maximum(x.square().sum().sqrt(), eps.to(x.dtype))
    for step in range(steps):
        a, b, c = (value * factor for value in coefficients) if step == steps - 1 else coefficients
        gram = x @ x.T
        x = a * x + (b * gram + c * (gram @ gram)) @ x
    x = x if steps else x * factor
    return (x.T if is_tall else x).to(matrix.dtype).contiguous()


class Muon(Optimizer):
    """Muon (Jordan et al. 2024), as in PyTorch: momentum whose matrix is orthogonalized before the step.

    All parameters are matrices; use :class:`AdamW` for the others, and for embeddings and the last layer.  The matrices are
    orthogonalized in float32, those of float64 in float64; PyTorch rounds them to bfloat16, which changes about the third digit.

    Args:
        params: tensors of two dimensions, or dicts of parameter groups.
        lr: learning rate, >= 0.
        weight_decay: decoupled weight decay, >= 0: p *= 1 - lr * weight_decay.
        momentum: decay rate of the average gradient, >= 0.
        nesterov: mix the gradient into the momentum once more.
        ns_coefficients: a, b, c of the iteration.
        eps: the least norm that a momentum is divided by, >= 0.
        ns_steps: number of iterations, below 100.
        adjust_lr_fn: the factor of lr for a matrix (m, n): "original" or None for sqrt(max(1, m / n)), "match_rms_adamw" for
            0.2 sqrt(max(m, n)), with which learning rates of AdamW fit (Liu et al., "Muon is Scalable for LLM Training", 2025).

    Raises:
        ArgumentError: a parameter is no matrix, or an option is out of range.
        DtypeError: ``ns_coefficients`` are not three numbers.
    """

    hyperparameters = ("lr", "momentum", "eps", "weight_decay")  # as sgd_step reads them, which ignores the third here
    skips_on_device = True
    takes_complex = False

    def __init__(
        self, params: Iterable[Any], lr: float = 1e-3, weight_decay: float = 0.1, momentum: float = 0.95, nesterov: bool = True,
        ns_coefficients: tuple[float, float, float] = (3.4445, -4.775, 2.0315), eps: float = 1e-7, ns_steps: int = 5,
        adjust_lr_fn: str | None = None,
    ) -> None:  # fmt: skip
        super().__init__(
            params,
            {
                "lr": lr, "weight_decay": weight_decay, "momentum": momentum, "nesterov": nesterov,
                "ns_coefficients": ns_coefficients, "eps": eps, "ns_steps": ns_steps, "adjust_lr_fn": adjust_lr_fn,
            },
        )  # fmt: skip

    def check_options(self, options: dict[str, Any]) -> None:
        for p in options["params"]:
            if isinstance(p, Tensor) and p.ndim != 2:
                raise ArgumentError(f"Muon: a parameter of shape {tuple(p.shape)}; expected matrices. Give others to AdamW")
        self.check_not_negative(options, "momentum", "weight_decay", "eps", "ns_steps")
        if options["ns_steps"] >= 100:
            raise ArgumentError(f"Muon: ns_steps={options['ns_steps']}; expected a number below 100")
        if not isinstance(options["ns_coefficients"], (tuple, list)) or len(options["ns_coefficients"]) != 3:
            raise DtypeError(f"Muon: ns_coefficients={options['ns_coefficients']!r}; expected a tuple of three numbers")
        names = (None, "original", "match_rms_adamw")
        if options["adjust_lr_fn"] not in names:
            raise ArgumentError(f"Muon: adjust_lr_fn={options['adjust_lr_fn']!r}; expected 'original', 'match_rms_adamw' or None")

    def saved_state(self, state: dict[str, Any]) -> dict[str, Any]:
        """Leave out the step count, which PyTorch's Muon does not have."""
        return {name: tensor for name, tensor in state.items() if name != "step"}

    @no_grad()
    def update(self, group: ParameterGroup, params: list[Any], grads: list[Array]) -> None:
        steps, momenta = self.state_lists(params, ("step", "momentum_buffer"))
        assert steps is not None and momenta is not None
        last_set = group.last_set
        _, momentum, eps, _ = make_tensor(group.hyperparameters)
        gradients, averages = [make_tensor(g) for g in grads], [make_tensor(m) for m in momenta]
        weight = 1.0 - momentum
        if self._skip is not None:  # then the averages stay, and sgd_step changes nothing
            skip = make_tensor(self._skip.reshape(()))
            gradients, weight = [where(skip != 0.0, 0.0, g) for g in gradients], weight * (1.0 - skip)
        move_averages(averages, gradients, weight)
        updates = averages
        if last_set("nesterov"):
            updates = [g.clone() for g in gradients]
            move_averages(updates, averages, momentum)
        matches_adamw = last_set("adjust_lr_fn") == "match_rms_adamw"
        directions = []
        for update in updates:
            rows, columns = update.shape
            factor = 0.2 * math.sqrt(max(rows, columns)) if matches_adamw else math.sqrt(max(1.0, rows / max(columns, 1)))
            empty = not update.numel()
            direction = zeros_like(update) if empty else _orthogonalized(
                update, last_set("ns_coefficients"), last_set("ns_steps"), eps, factor
            )  # fmt: skip
            directions.append(direction.array)
        # of plain SGD, the coupled weight decay is the decoupled one
        sgd_step(
            [p.array for p in params], None, steps, directions, group.hyperparameters, self._skip, ticket(grads[0]), dampened=False,
            decays=bool(last_set("weight_decay")), nesterov=False, maximize=False,
        )  # fmt: skip
