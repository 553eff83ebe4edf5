"""Estimators with scikit-learn's interface: multilayer perceptrons, and any module in the manner of skorch."""

from gpunet.errors import MissingDependencyError

try:
    from sklearn.utils.validation import validate_data as _validate_data  # since 1.6
except ImportError:
    raise MissingDependencyError(
        "gpunet.estimators needs scikit-learn 1.6 or newer: pip install 'gpunet[estimators]'", name="sklearn"
    ) from None

from gpunet.estimators.mlp import *
from gpunet.estimators.mlp import __all__ as _mlp_names
from gpunet.estimators.neural import *
from gpunet.estimators.neural import __all__ as _neural_names
from gpunet.estimators.sweeps import *
from gpunet.estimators.sweeps import __all__ as _sweep_names

__all__ = [*_mlp_names, *_neural_names, *_sweep_names]


def __dir__() -> list[str]:
    return sorted(__all__)
