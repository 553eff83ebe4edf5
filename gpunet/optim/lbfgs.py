"""L-BFGS, which calls a closure several times in a step; its vectors stay on the device of the parameters."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy

from gpunet.autograd import Tensor, enable_grad, ignore_fp_errors, no_grad
from gpunet.errors import ArgumentError, DeviceError, DtypeError
from gpunet.launch.tape import graph_break
from gpunet.ops.creation import zeros_like
from gpunet.ops.join import cat
from gpunet.optim.optimizer import Optimizer

__all__ = ["LBFGS"]

#: Constants of the Wolfe conditions, for Newton-like methods (Nocedal and Wright, section 3.1).
_DECREASE, _CURVATURE = 1e-4, 0.9


class _Point(NamedTuple):
    """A point on the line of a search: the step along the direction, and loss, slope and gradient there."""

    step: float
    loss: float
    slope: float
    gradient: Tensor


def _interpolate(a: _Point, b: _Point, low: float, high: float) -> float:
    """Return the minimiser of the cubic through the losses and slopes of two points, clamped to [low, high].

    Source: Nocedal and Wright, "Numerical Optimization" (2006), equation 3.59; if the cubic has no minimum, the middle.
    """
    if a.step > b.step:
        a, b = b, a
    with numpy.errstate(all="ignore"):  # a quotient by zero is infinite or NaN, as of tensors
        width = numpy.float64(b.step) - a.step
        d1 = a.slope + b.slope - 3.0 * (a.loss - b.loss) / -width
        square = d1 * d1 - a.slope * b.slope
        if not square >= 0.0:
            return (low + high) / 2.0
        d2 = numpy.sqrt(square)
        minimiser = b.step - width * ((b.slope + d2 - d1) / (b.slope - a.slope + 2.0 * d2))
    return float(min(max(minimiser, low), high))


def _strong_wolfe(
    evaluate: Callable[[float], _Point], start: _Point, step: float, largest: float, max_steps: int, tolerance: float
) -> tuple[_Point, int]:
    """Search along a direction for a point that satisfies the strong Wolfe conditions.

    Source: Nocedal and Wright, "Numerical Optimization" (2006), algorithms 3.5 and 3.6; bounds and safeguards of the
    interpolation are those of Schmidt's minFunc, as in PyTorch.

    Args:
        evaluate: returns the point at a step.
        start: the point at step 0.
        step: the first step to try.
        largest: the largest component of the direction.
        max_steps: the number of points to evaluate after the first.
        tolerance: the smallest change of a parameter that is worth a point.

    Returns:
        The point, which is the lowest so far if ``max_steps`` is reached, and the number of evaluated points.
    """

    def is_too_high(point: _Point) -> bool:
        return point.loss > start.loss + _DECREASE * point.step * start.slope

    def is_flat(point: _Point) -> bool:
        return abs(point.slope) <= -_CURVATURE * start.slope

    previous, point, count = start, evaluate(step), 0
    while count < max_steps:  # widen, until a bracket has a point in it
        if is_too_high(point) or (count > 1 and point.loss >= previous.loss):
            break
        if is_flat(point):
            return point, count + 1
        if point.slope >= 0.0:
            break
        step = _interpolate(previous, point, point.step + 0.01 * (point.step - previous.step), 10.0 * point.step)
        previous, point, count = point, evaluate(step), count + 1
    bracket = [start if count == max_steps else previous, point]
    low, high = _order(bracket)
    is_stalled = False
    while count < max_steps:  # narrow the bracket
        first, last = sorted(p.step for p in bracket)
        if (last - first) * largest < tolerance:
            break
        step = _interpolate(bracket[0], bracket[1], first, last)
        margin = 0.1 * (last - first)
        is_near_end = min(last - step, step - first) < margin
        if is_near_end and (is_stalled or not first < step < last):
            step = last - margin if abs(step - last) < abs(step - first) else first + margin
            is_near_end = False
        is_stalled = is_near_end
        point, count = evaluate(step), count + 1
        if is_too_high(point) or point.loss >= bracket[low].loss:
            bracket[high] = point
            low, high = _order(bracket)
            continue
        if not is_flat(point) and point.slope * (bracket[high].step - bracket[low].step) >= 0.0:
            bracket[high] = bracket[low]
        bracket[low] = point
        if is_flat(point):
            break
    return bracket[low], count + 1


def _order(bracket: list[_Point]) -> tuple[int, int]:
    """Return the indices of the lower and the higher point."""
    return (0, 1) if bracket[0].loss <= bracket[1].loss else (1, 0)


class LBFGS(Optimizer):
    """L-BFGS (Liu and Nocedal 1989), as in PyTorch: quasi-Newton steps on the whole data set.

    ``step(closure)`` calls the closure several times.  It must zero the gradients, compute the loss, call backward, and return
    the loss.  There is one parameter group.

    Args:
        params: tensors of one dtype on one device, or one dict of them.
        lr: length of a step, >= 0; with a line search, of its first trial.
        max_iter: number of iterations of a call of ``step``.
        max_eval: number of closure calls of a call of ``step`` after which it ends; 1.25 max_iter if None.
        tolerance_grad: end if no component of the gradient is larger.
        tolerance_change: end if neither a parameter nor the loss changes by more.
        history_size: number of earlier steps that the approximation of the Hessian uses.  Each takes the memory of two gradients.
        line_search_fn: "strong_wolfe", or None for steps of length lr.

    Raises:
        ArgumentError: an option is out of range, or there are several groups.
        DtypeError, DeviceError: the parameters differ in dtype or device, or are complex.
    """

    takes_complex = False

    def __init__(
        self, params: Iterable[Any], lr: float = 1, max_iter: int = 20, max_eval: int | None = None, tolerance_grad: float = 1e-7,
        tolerance_change: float = 1e-9, history_size: int = 100, line_search_fn: str | None = None,
    ) -> None:  # fmt: skip
        super().__init__(
            params,
            {
                "lr": lr, "max_iter": max_iter, "max_eval": max_iter * 5 // 4 if max_eval is None else max_eval,
                "tolerance_grad": tolerance_grad, "tolerance_change": tolerance_change, "history_size": history_size,
                "line_search_fn": line_search_fn,
            },
        )  # fmt: skip

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        if self.param_groups:
            raise ArgumentError("LBFGS has one parameter group, because its steps depend on all parameters; pass them as one list")
        super().add_param_group(param_group)
        first, *others = self._params or [None]
        for p in others:
            if p.dtype != first.dtype:
                raise DtypeError(f"LBFGS: parameters of {first.dtype} and {p.dtype}; expected one dtype")
            if p.device != first.device:
                raise DeviceError(f"LBFGS: parameters on {first.device} and {p.device}; expected one device")

    def check_options(self, options: dict[str, Any]) -> None:
        self.check_not_negative(options, "max_iter", "max_eval", "tolerance_grad", "tolerance_change", "history_size")
        if options["line_search_fn"] not in (None, "strong_wolfe"):
            raise ArgumentError(f"LBFGS: line_search_fn={options['line_search_fn']!r}; expected 'strong_wolfe' or None")

    @property
    def _params(self) -> list[Any]:
        params: list[Any] = self.param_groups[0]["params"]
        return params

    def _gradient(self) -> Tensor:
        """Return the gradients of all parameters as one vector."""
        return cat([(zeros_like(p) if p.grad is None else p.grad).reshape(-1) for p in self._params])

    def _move(self, step: float, direction: Tensor) -> None:
        """Add step * direction to the parameters."""
        for p, part in zip(self._params, direction.split([p.numel() for p in self._params])):
            p.add_(part.view(p.shape), alpha=step)

    @no_grad()
    @ignore_fp_errors
    def step(self, closure: Callable[[], Any]) -> Any:
        """Take up to max_iter iterations.

        Args:
            closure: computes the loss and its gradients, and returns the loss.

        Returns:
            The loss before the step.

        Raises:
            DtypeError: ``closure`` is not a function.
            CaptureError: called inside a recorded step, because a step depends on values of the loss.
        """
        if not callable(closure):
            raise DtypeError(f"LBFGS.step({closure!r}); expected a function that computes the loss and returns it")
        graph_break("LBFGS.step(), which reads losses,", "capture the closure instead, and call step() outside")
        group = self.param_groups[0]
        lr, max_eval, tolerance = group["lr"], group["max_eval"], group["tolerance_change"]
        state: dict[str, Any] = self.state[self._params[0]]
        state.setdefault("func_evals", 0)
        state.setdefault("n_iter", 0)
        with enable_grad():
            first_loss = closure()
        loss, gradient, num_evals = float(first_loss), self._gradient(), 1
        state["func_evals"] += 1
        if not gradient.abs().max() > group["tolerance_grad"]:
            return first_loss
        for iteration in range(group["max_iter"]):
            state["n_iter"] += 1
            if state["n_iter"] == 1:
                direction = -gradient
                state.update(old_dirs=[], old_stps=[], ro=[], H_diag=1)
                step = min(1.0, 1.0 / gradient.abs().sum().item()) * lr
            else:
                self._remember(state, gradient, group["history_size"])
                direction = self._direction(state, gradient, group["history_size"])
                step = lr
            before = loss
            state.update(d=direction, t=step, prev_flat_grad=gradient.clone(), prev_loss=loss)
            slope = gradient.dot(direction).item()
            if slope > -tolerance:
                break
            is_last = iteration + 1 == group["max_iter"]
            if group["line_search_fn"] is not None:
                start = _Point(0.0, loss, slope, gradient)
                point, evals = self._search(closure, start, step, direction, max_eval - num_evals, tolerance)
                _, loss, _, gradient = point
                state["t"] = step = point.step
                self._move(step, direction)
            else:
                self._move(step, direction)
                evals = 0
                if not is_last:  # the next iteration needs them
                    with enable_grad():
                        loss = float(closure())
                    gradient, evals = self._gradient(), 1
            num_evals += evals
            state["func_evals"] += evals
            if is_last or num_evals >= max_eval or not gradient.abs().max() > group["tolerance_grad"]:
                break
            if not (direction * step).abs().max() > tolerance or abs(loss - before) < tolerance:
                break
        return first_loss

    def _search(
        self, closure: Callable[[], Any], start: _Point, step: float, direction: Tensor, max_steps: int, tolerance: float
    ) -> tuple[_Point, int]:
        """Return the point of the line search and the number of closure calls; the parameters are unchanged."""
        saved = [p.clone() for p in self._params]

        def evaluate(step: float) -> _Point:
            self._move(step, direction)
            with enable_grad():
                loss = float(closure())
            gradient = self._gradient()
            for p, values in zip(self._params, saved):
                p.copy_(values)
            return _Point(step, loss, gradient.dot(direction).item(), gradient)

        return _strong_wolfe(evaluate, start, step, direction.abs().max().item(), max_steps, tolerance)

    @staticmethod
    def _remember(state: dict[str, Any], gradient: Tensor, history_size: int) -> None:
        """Add the last step and its change of the gradient to the history, if the curvature along the step is positive."""
        change, step = gradient - state["prev_flat_grad"], state["d"] * state["t"]
        curvature = change.dot(step)
        if not curvature > 1e-10:
            return
        if len(state["old_dirs"]) == history_size:
            for name in ("old_dirs", "old_stps", "ro"):
                state[name].pop(0)
        state["old_dirs"].append(change)
        state["old_stps"].append(step)
        state["ro"].append(1.0 / curvature)
        state["H_diag"] = curvature / change.dot(change)

    @staticmethod
    def _direction(state: dict[str, Any], gradient: Tensor, history_size: int) -> Tensor:
        """Return minus the inverse Hessian, as the history approximates it, times the gradient.

        Source: Nocedal and Wright, "Numerical Optimization" (2006), algorithm 7.4, the two-loop recursion.
        """
        history = [*zip(state["old_dirs"], state["old_stps"], state["ro"])]
        shares = state.setdefault("al", [None] * history_size)
        result = -gradient
        for index, (change, step, inverse) in reversed([*enumerate(history)]):
            shares[index] = step.dot(result) * inverse
            result.sub_(change * shares[index])
        result = result * state["H_diag"]
        for share, (change, step, inverse) in zip(shares, history):
            result.add_(step * (share - change.dot(result) * inverse))
        return result
