"""Training: the loop, checkpoints, run folders, predictions, and networks built by name."""

from gpunet.train.callbacks import *
from gpunet.train.callbacks import __all__ as _callback_names
from gpunet.train.checkpoint import *
from gpunet.train.checkpoint import __all__ as _checkpoint_names
from gpunet.train.checkpoint import load_metadata
from gpunet.train.evaluation import *
from gpunet.train.evaluation import __all__ as _evaluation_names
from gpunet.train.fit import *
from gpunet.train.fit import __all__ as _fit_names
from gpunet.train.history import *
from gpunet.train.history import __all__ as _history_names
from gpunet.train.loggers import *
from gpunet.train.loggers import __all__ as _logger_names
from gpunet.train.network import *
from gpunet.train.network import __all__ as _network_names
from gpunet.train.predict import *
from gpunet.train.predict import __all__ as _predict_names
from gpunet.train.rate_finder import *
from gpunet.train.rate_finder import __all__ as _rate_finder_names
from gpunet.train.run_folder import *
from gpunet.train.run_folder import __all__ as _run_folder_names
from gpunet.train.stopping import *
from gpunet.train.stopping import __all__ as _stopping_names
from gpunet.train.trainer import *
from gpunet.train.trainer import __all__ as _trainer_names

__all__ = [
    "load_metadata", *_callback_names, *_checkpoint_names, *_evaluation_names, *_fit_names, *_history_names, *_logger_names,
    *_network_names, *_predict_names, *_rate_finder_names, *_run_folder_names, *_stopping_names,
    *_trainer_names,
]  # fmt: skip


def __dir__() -> list[str]:
    return sorted(__all__)
