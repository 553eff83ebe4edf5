"""Metrics of predicted numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gpunet.backend.dtypes import float64, is_boolean
from gpunet.errors import ArgumentError, DtypeError, ShapeError
from gpunet.metrics.checks import check_numbers
from gpunet.metrics.inputs import weights_of
from gpunet.metrics.metric import Metric
from gpunet.ops.creation import ones
from gpunet.ops.elementwise import maximum, minimum, where
from gpunet.ops.face import as_positive, check_flag
from gpunet.ops.order import amax, amin

__all__ = ["MeanAbsoluteError", "MeanSquaredError", "R2Score"]


class _Regression(Metric):
    """Base class of metrics of numbers."""

    def _read(self, preds: Any, target: Any, sample_weight: Any) -> tuple[Any, Any, Any]:
        """Return predictions and targets in float64, and weights that broadcast to them.

        Raises:
            ShapeError: shapes differ.
            DtypeError: booleans.
            ArgumentError: a number is NaN, or a weight is negative.
        """
        given = self._take(preds=preds, target=target)
        preds, target = given
        if preds.shape != target.shape or not target.ndim:
            shapes = f"preds has shape {tuple(preds.shape)}, target {tuple(target.shape)}"
            raise ShapeError(f"{self._name}: {shapes}; expected equal shapes (rows, ...)")
        for name, tensor in zip(("preds", "target"), given):
            if is_boolean(tensor.dtype):
                raise DtypeError(f"{self._name}: {name} has dtype bool; expected numbers")
            check_numbers(self._name, name, tensor)
        if sample_weight is None:
            weights = ones(target.shape[0], dtype=float64, device=target.device)
        else:
            weights = weights_of(self, sample_weight, target)
        return preds.to(float64), target.to(float64), weights.reshape(-1, *(1,) * (target.ndim - 1))


class _MeanError(_Regression):
    """Base class of means of a function of the errors over all numbers."""

    def __init__(self) -> None:
        super().__init__({"errors": (), "numbers": ()})

    def update(self, preds: Any, target: Any, sample_weight: Any = None) -> None:
        """Add a batch.

        Args:
            preds, target: numbers of equal shape (rows, ...).
            sample_weight: (rows,), 1 by default.

        Raises:
            ShapeError: shapes differ.
            DtypeError: booleans.
            ArgumentError: a number is NaN, or a weight is negative.
        """
        preds, target, weights = self._read(preds, target, sample_weight)
        self._add({"errors": (self._error(preds - target) * weights).sum(), "numbers": weights.expand(target.shape).sum()})

    def compute(self) -> Any:
        """Return the mean, a 0-d float64 tensor."""
        numbers = self._sum("numbers")
        return self._sum("errors") / numbers if float(numbers) else self._nan()

    def _error(self, difference: Any) -> Any:
        raise NotImplementedError


class MeanAbsoluteError(_MeanError):
    """The mean of |preds - target|."""

    def _error(self, difference: Any) -> Any:
        return difference.abs()


class MeanSquaredError(_MeanError):
    """The mean of (preds - target)^2, or its root.

    Args:
        squared: False for the root (RMSE).
    """

    def __init__(self, squared: bool = True) -> None:
        super().__init__()
        check_flag(self._name, "squared", squared)
        self.squared = squared

    def _error(self, difference: Any) -> Any:
        return difference * difference

    def compute(self) -> Any:
        """Return the mean square or its root, a 0-d float64 tensor."""
        value = super().compute()
        return value if self.squared else value.sqrt()


class R2Score(_Regression):
    """The fraction of the variance of the targets that is explained: 1 - sum (target - preds)^2 / sum (target - mean)^2.

    Of constant targets it is 1 if all predictions are right, else 0, as in scikit-learn.

    The spread around the mean is merged from the spreads of batches: Chan, Golub and LeVeque, Algorithms for computing the sample
    variance (1983).

    Args:
        num_outputs: 1 for numbers (rows,); the number of outputs for (rows, outputs).
        multioutput: "uniform_average": the mean over the outputs.  "variance_weighted": by their variances.  "raw_values": all.
    """

    def __init__(self, num_outputs: int = 1, multioutput: str = "uniform_average") -> None:
        self.num_outputs = as_positive(type(self).__name__, "num_outputs", num_outputs)
        vectors = dict.fromkeys(("mean", "spread", "errors", "low", "high"), (self.num_outputs,))
        super().__init__({"rows": (), "weight": (), **vectors})
        allowed = ("uniform_average", "variance_weighted", "raw_values")
        if multioutput not in allowed:
            raise ArgumentError(f"{self._name}: multioutput={multioutput!r}; expected one of {', '.join(map(repr, allowed))}")
        self.multioutput = multioutput

    def update(self, preds: Any, target: Any, sample_weight: Any = None) -> None:
        """Add a batch.

        Args:
            preds, target: numbers, (rows,) or (rows, outputs).
            sample_weight: (rows,), 1 by default.

        Raises:
            ShapeError: shapes do not fit.
            DtypeError, ArgumentError: as of :meth:`MeanSquaredError.update`.
        """
        preds, target, weights = self._read(preds, target, sample_weight)
        outputs = 1 if target.ndim == 1 else target.shape[1]
        if target.ndim > 2 or outputs != self.num_outputs:
            shape = f"target has shape {tuple(target.shape)} with num_outputs={self.num_outputs}"
            raise ShapeError(f"{self._name}: {shape}; expected (rows,), or (rows, outputs) with num_outputs=outputs")
        if not target.shape[0]:
            return
        preds, target, weights = (tensor.reshape(len(target), -1) for tensor in (preds, target, weights))
        counts = weights > 0
        total = weights.sum()
        mean = (target * weights).sum(0) / where(total == 0, 1.0, total)
        self._add(
            {
                "rows": counts.sum().to(float64),
                "weight": total,
                "mean": mean,
                "spread": ((target - mean) ** 2 * weights).sum(0),
                "errors": ((target - preds) ** 2 * weights).sum(0),
                "low": amin(where(counts, target, float("inf")), 0),
                "high": amax(where(counts, target, float("-inf")), 0),
            }
        )

    def _add(self, sums: Mapping[str, Any]) -> None:
        before, batch = self._sum("weight"), sums["weight"]
        both = before + batch
        share = batch / where(both == 0, 1.0, both)
        offset = sums["mean"] - self._sum("mean")
        is_first = self._sum("rows") == 0
        for name, nearer in (("low", minimum), ("high", maximum)):
            own = self._sum(name)
            own.copy_(where(is_first, sums[name], nearer(own, sums[name])))
        self._sum("spread").add_(sums["spread"] + offset * offset * before * share)
        self._sum("mean").add_(offset * share)
        super()._add({name: sums[name] for name in ("rows", "weight", "errors")})

    def compute(self) -> Any:
        """Return the value, a float64 tensor: 0-d, or (outputs,) for "raw_values"; NaN for less than two rows."""
        is_raw = self.multioutput == "raw_values"
        if float(self._sum("rows")) < 2:
            return self._nan("less than two rows since the last reset", (self.num_outputs,) if is_raw else ())
        errors, spread = self._sum("errors"), self._sum("spread")
        is_constant = self._sum("low") == self._sum("high")
        values = where(is_constant, (errors == 0).to(float64), 1 - errors / where(is_constant, 1.0, spread))
        if is_raw:
            return values
        if self.multioutput == "uniform_average" or bool(is_constant.all()):
            return values.mean()
        spread = where(is_constant, 0.0, spread)
        return (values * spread).sum() / spread.sum()
