"""The library's own models, built on PyTorch's layers: their source is executed with PyTorch's modules for gpunet's."""

from __future__ import annotations

import builtins
import functools
import importlib
import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

#: The module of PyTorch that has the names that models import from gpunet's.
OF_TORCH = {
    "gpunet": "torch",
    "gpunet.autograd": "torch",
    "gpunet.nn": "torch.nn",
    "gpunet.nn.functional": "torch.nn.functional",
    "gpunet.ops.creation": "torch",
    "gpunet.ops.join": "torch",
    "gpunet.ops.random": "torch",
}
ROOMS = ("gpunet.models.", "gpunet.vision.models.")


@functools.cache
def under_torch(name: str) -> ModuleType:
    """The module of gpunet with this name, executed with PyTorch's tensors and layers."""
    spec = importlib.util.find_spec(name)
    assert spec is not None and spec.origin is not None
    module = ModuleType(f"{name} under torch")
    module.__dict__["__builtins__"] = {**vars(builtins), "__import__": _import}
    exec(compile(Path(spec.origin).read_text(encoding="utf-8"), spec.origin, "exec"), module.__dict__)
    return module


def _import(name: str, *arguments: Any) -> Any:
    if name in OF_TORCH:
        return importlib.import_module(OF_TORCH[name])
    if name.startswith(ROOMS) and not name.endswith(".pretrained"):
        return under_torch(name)
    return builtins.__import__(name, *arguments)


def models_of(m: ModuleType, name: str) -> Any:
    """The module of models for a library, gpunet or torch, such as that of "gpunet.vision.models.vgg"."""
    return importlib.import_module(name) if m.__name__ == "gpunet" else under_torch(name)
