"""``torch.version``: the version of gpunet, and that of the CUDA runtime."""

from typing import Any

from gpunet import __version__
from gpunet.backend.gpus import cuda_version

hip = None


def __getattr__(name: str) -> Any:
    if name == "cuda":  # read at each access: the import of CuPy takes long
        return cuda_version()
    raise AttributeError(f"module 'gpunet.version' has no attribute {name!r}")
