"""Data: built-in data sets, CSV and NumPy files, held-out splits, standardisation, and batches on the device."""

from gpunet.data.datasets import *
from gpunet.data.datasets import __all__ as _datasets_names
from gpunet.data.loader import *
from gpunet.data.loader import __all__ as _loader_names
from gpunet.data.split import *
from gpunet.data.split import __all__ as _split_names

__all__ = [*_datasets_names, *_loader_names, *_split_names]


def __dir__() -> list[str]:
    return sorted(__all__)
