"""PyTorch's ``utils.data``: data sets, samplers and the DataLoader of :mod:`gpunet.data`."""

from gpunet.data.collate import *
from gpunet.data.collate import __all__ as _collate_names
from gpunet.data.datasets import *
from gpunet.data.datasets import __all__ as _datasets_names
from gpunet.data.loader import *
from gpunet.data.loader import __all__ as _loader_names
from gpunet.data.samplers import *
from gpunet.data.samplers import __all__ as _samplers_names
from gpunet.data.workers import *
from gpunet.data.workers import __all__ as _workers_names

__all__ = [*_collate_names, *_datasets_names, *_loader_names, *_samplers_names, *_workers_names]


def __dir__() -> list[str]:
    return sorted(__all__)
