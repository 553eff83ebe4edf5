"""Training: the loop, checkpoints, run folders, predictions, and networks built by name."""

from gpunet.train.checkpoint import *
from gpunet.train.checkpoint import __all__ as _checkpoint_names
from gpunet.train.checkpoint import load_metadata
from gpunet.train.fit import *
from gpunet.train.fit import __all__ as _fit_names
from gpunet.train.network import *
from gpunet.train.network import __all__ as _network_names
from gpunet.train.predict import *
from gpunet.train.predict import __all__ as _predict_names
from gpunet.train.run_folder import *
from gpunet.train.run_folder import __all__ as _run_folder_names

__all__ = ["load_metadata", *_checkpoint_names, *_fit_names, *_network_names, *_predict_names, *_run_folder_names]


def __dir__() -> list[str]:
    return sorted(__all__)
