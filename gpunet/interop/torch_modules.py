"""An import hook that gives ``torch`` and its submodules the names of gpunet.

    with torch_names():
        import torch                          # gpunet
        from torch.utils.data import DataLoader

``torchvision`` is :mod:`gpunet.vision`, and ``torch.utils.tensorboard`` writes by the package tensorboard.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Any

import gpunet
from gpunet.errors import MissingModuleError, MissingNameError

#: The version of PyTorch whose names gpunet has; scripts compare ``torch.__version__``.
TORCH_VERSION = "2.13.0"

#: Modules of PyTorch that have another place here; what stands below them has, too.
PLACES = {
    "torch.nn.modules": "gpunet.nn",
    "torch.nn.parameter": "gpunet.nn",
    "torch.optim.optimizer": "gpunet.optim.optimizer",
    "torch.optim": "gpunet.optim",
    "torch.autograd.variable": "gpunet.autograd",
    "torch.autograd.grad_mode": "gpunet.autograd.mode",
    "torch.utils.data": "gpunet.utils.data",
    "torch.distributions": "gpunet.distributions",
    "torch.types": "gpunet",
    "torchvision.ops": "gpunet.vision.ops",
    "torchvision.transforms.v2.functional": "gpunet.vision.transforms.functional",
    "torchvision": "gpunet.vision",
    "torch": "gpunet",
}
_ROOTS = ("torch", "torchvision")
#: What scripts import and gpunet does not have, by the first words of the path -> the way out.
WITHOUT = {
    "torch.distributed": "gpunet.distributed has process groups and collectives; train with nn.parallel.DistributedDataParallel",
    "torch.jit": "leave the function as it is, or use gpunet.capture for whole training steps",
    "torch.quantization": "use float16 or bfloat16",
    "torch.sparse": "use dense tensors",
    "torch.profiler": "use gpunet bench, or Python's profiler",
    "torchaudio": "load the audio with scipy or soundfile, and convert the arrays",
    "torchtext": "load the text with Python, and convert the arrays",
}


def place_of(path: str) -> str | None:
    """The module of gpunet for a module of PyTorch, such as "gpunet.nn" for "torch.nn.modules.linear"; None if there is none."""
    own = "gpunet" + path.removeprefix("torch") if path.partition(".")[0] == "torch" else ""
    if own and _exists(own):
        return own
    prefix = max((p for p in PLACES if path == p or path.startswith(p + ".")), key=len, default=None)
    if prefix is None:
        return None
    if path == prefix:
        return PLACES[prefix]
    inner = PLACES[prefix] + path.removeprefix(prefix)
    if _exists(inner):
        return inner
    # modules of a package whose names the package itself has, such as torch.utils.data.dataset
    return PLACES[prefix] if prefix not in _ROOTS else None


def _exists(path: str) -> bool:
    try:
        return importlib.util.find_spec(path) is not None
    except (ImportError, ValueError):
        return False


class _Torch(ModuleType):
    """The module ``torch``: gpunet's names, and a version of PyTorch."""

    def __init__(self) -> None:
        super().__init__("torch", gpunet.__doc__)
        self.__version__ = f"{TORCH_VERSION}+gpunet.{gpunet.__version__}"
        self.__path__: list[str] = []

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        try:
            return getattr(gpunet, name)
        except AttributeError:
            raise MissingNameError(f"torch.{name} is not in gpunet{_way_out(f'torch.{name}')}") from None

    def __dir__(self) -> list[str]:
        return dir(gpunet)


def _way_out(path: str) -> str:
    found = next((text for prefix, text in WITHOUT.items() if path == prefix or path.startswith(prefix + ".")), None)
    return f": {found}" if found else "; `gpunet port SCRIPT` lists all such names of a script"


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds ``torch`` and its submodules, and loads gpunet's modules for them."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> Any:
        root = name.partition(".")[0]
        if root not in _ROOTS:
            if root in WITHOUT:
                raise MissingModuleError(f"{name} is not in gpunet{_way_out(name)}")
            return None
        if name != "torch" and place_of(name) is None:
            raise MissingModuleError(f"{name} is not in gpunet{_way_out(name)}")
        return importlib.machinery.ModuleSpec(name, self, is_package=True)

    def create_module(self, spec: Any) -> ModuleType:
        if spec.name == "torch":
            return _Torch()
        place = place_of(spec.name)
        assert place is not None
        module = importlib.import_module(place)
        spec.loader_state = module.__spec__  # the import system is about to replace it
        return module

    def exec_module(self, module: ModuleType) -> None:
        spec: Any = module.__spec__
        if spec is not None and spec.loader_state is not None:
            module.__spec__ = spec.loader_state


def _names_of_torch() -> list[str]:
    return [name for name in sys.modules if name.partition(".")[0] in _ROOTS]


@contextlib.contextmanager
def torch_names() -> Iterator[None]:
    """Let ``import torch`` give gpunet inside the block; PyTorch itself, if it is imported already, is put aside."""
    before = {name: sys.modules.pop(name) for name in _names_of_torch()}
    finder = _Finder()
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        for name in _names_of_torch():
            del sys.modules[name]
        sys.modules.update(before)
