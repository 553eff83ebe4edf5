"""A context manager for evaluation mode."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from gpunet.nn import Module


@contextlib.contextmanager
def evaluating(*models: Module) -> Iterator[None]:
    """Put models into evaluation mode; on exit restore the mode of each module, such as of frozen batch norms."""
    modes = {module: module.training for model in models for module in model.modules()}
    for model in models:
        model.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            if module.training != mode:
                module.training = mode
