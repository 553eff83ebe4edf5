"""gpunet trains neural networks on NVIDIA GPUs with fused CUDA kernels, and on the CPU with NumPy.

import gpunet

w = gpunet.tensor([2.0], requires_grad=True)
x = gpunet.tensor([3.0])
loss = (w * x - 10.0) ** 2
loss.backward()
w.grad                      # tensor([-24.])
"""

import importlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gpunet import (
        _C,
        accelerator,
        amp,
        autograd,
        backends,
        cpu,
        cuda,
        data,
        diagnose,
        distributed,
        distributions,
        emulator,
        errors,
        estimators,
        fft,
        func,
        interop,
        linalg,
        metrics,
        models,
        mps,
        multiprocessing,
        nn,
        onnx,
        ops,
        optim,
        random,
        special,
        sweeps,
        testing,
        tools,
        train,
        utils,
        version,
        vision,
    )
    from gpunet.accelerator import get_device_module
    from gpunet.autograd.anomaly import is_anomaly_check_nan_enabled, is_anomaly_enabled, set_anomaly_enabled
    from gpunet.autograd.autocast import *
    from gpunet.autograd.engine import *
    from gpunet.autograd.mode import *
    from gpunet.autograd.printing import *
    from gpunet.autograd.size import *
    from gpunet.autograd.tensor import *
    from gpunet.autograd.tensor_types import *
    from gpunet.backend.any_streams import *
    from gpunet.backend.constants import *
    from gpunet.backend.devices import *
    from gpunet.backend.dtypes import *
    from gpunet.backend.flags import *
    from gpunet.backend.formats import *
    from gpunet.backend.threads import *
    from gpunet.captured.compile import *
    from gpunet.captured.step import *
    from gpunet.errors import OutOfMemoryError
    from gpunet.func.batching import *
    from gpunet.interop.c import export_c
    from gpunet.launch.random import *
    from gpunet.launch.synchronize import *
    from gpunet.ops.activations import (
        celu,
        celu_,
        hardshrink,
        relu,
        relu_,
        selu,
        selu_,
        sigmoid,
        tanh,
        threshold,
        threshold_,
    )
    from gpunet.ops.arithmetic import *
    from gpunet.ops.arrange import *
    from gpunet.ops.bessel import i0
    from gpunet.ops.bilinear import bilinear
    from gpunet.ops.compare import *
    from gpunet.ops.complex_numbers import *
    from gpunet.ops.control_flow import *
    from gpunet.ops.conv_transpose import *
    from gpunet.ops.convolution import *
    from gpunet.ops.copies import *
    from gpunet.ops.counts import *
    from gpunet.ops.creation import *
    from gpunet.ops.custom import *
    from gpunet.ops.diagonal import *
    from gpunet.ops.differences import *
    from gpunet.ops.distance import cosine_similarity, pairwise_distance, pdist
    from gpunet.ops.elementwise import *
    from gpunet.ops.entropy import xlogy
    from gpunet.ops.equality import *
    from gpunet.ops.error_functions import erfc, erfinv
    from gpunet.ops.exchange import *
    from gpunet.ops.factorize import *
    from gpunet.ops.fill import *
    from gpunet.ops.functions_of_methods import *
    from gpunet.ops.gates import prelu, rrelu_
    from gpunet.ops.grid import *
    from gpunet.ops.hash import *
    from gpunet.ops.incomplete_gamma import *
    from gpunet.ops.index import *
    from gpunet.ops.interpolate import channel_shuffle, native_channel_shuffle, pixel_shuffle, pixel_unshuffle
    from gpunet.ops.join import *
    from gpunet.ops.low_rank import *
    from gpunet.ops.lu import *
    from gpunet.ops.matmul import *
    from gpunet.ops.matrix_exp import *
    from gpunet.ops.native import *
    from gpunet.ops.native_losses import *
    from gpunet.ops.norm import *
    from gpunet.ops.normalization import rms_norm
    from gpunet.ops.older_linalg import *
    from gpunet.ops.order import *
    from gpunet.ops.pair_distances import *
    from gpunet.ops.parts import *
    from gpunet.ops.pooling import adaptive_avg_pool1d, avg_pool1d
    from gpunet.ops.products import *
    from gpunet.ops.query import *
    from gpunet.ops.random import *
    from gpunet.ops.recurrent_layers import *
    from gpunet.ops.reduce import *
    from gpunet.ops.rounding import *
    from gpunet.ops.running import *
    from gpunet.ops.scan import *
    from gpunet.ops.scatter import *
    from gpunet.ops.segments import *
    from gpunet.ops.sets import *
    from gpunet.ops.shape import *
    from gpunet.ops.softmax import *
    from gpunet.ops.special_functions import digamma, lgamma, mvlgamma, polygamma
    from gpunet.ops.spectral import *
    from gpunet.ops.spectrogram import *
    from gpunet.ops.statistics import *
    from gpunet.ops.storage import *
    from gpunet.ops.strided import *
    from gpunet.ops.trigonometry import *
    from gpunet.ops.weighted import *
    from gpunet.ops.window_functions import *
    from gpunet.optim.grad_scaler import *
    from gpunet.sweeps.run import *
    from gpunet.train.checkpoint import *
    from gpunet.train.fit import *
    from gpunet.train.trainer import *

__version__ = "0.1.0"

#: Modules whose ``__all__`` is re-exported, in search order: modules that import quickly come first.
_REEXPORTED = (
    "backend.dtypes", "backend.devices", "backend.constants", "backend.flags", "backend.formats", "backend.threads",
    "autograd.size", "autograd.tensor", "autograd.tensor_types", "autograd.mode", "autograd.printing", "autograd.engine",
    "autograd.autocast",
    "launch.random", "launch.synchronize", "ops.creation", "ops.elementwise", "ops.activations", "ops.arithmetic",
    "ops.arrange", "ops.compare", "ops.diagonal", "ops.equality", "ops.factorize", "ops.grid", "ops.index", "ops.join",
    "ops.matmul", "ops.norm", "ops.order", "ops.products", "ops.query", "ops.random", "ops.reduce", "ops.rounding", "ops.scan",
    "ops.scatter", "ops.sets", "ops.shape", "ops.softmax", "ops.special_functions", "ops.spectral", "ops.statistics",
    "ops.trigonometry", "ops.weighted", "ops.conv_transpose", "ops.convolution", "ops.distance", "ops.functions_of_methods",
    "ops.gates", "ops.interpolate", "ops.pooling", "ops.custom", "captured.compile", "captured.step", "optim.grad_scaler",
    "ops.pair_distances", "ops.running", "train.checkpoint", "train.fit", "train.trainer", "ops.lu", "ops.storage", "ops.bessel",
    "ops.entropy",
    "ops.error_functions", "ops.incomplete_gamma", "ops.matrix_exp", "ops.parts", "ops.strided", "ops.window_functions",
    "ops.complex_numbers", "ops.spectrogram", "ops.fill", "ops.copies", "ops.native", "ops.native_losses", "ops.recurrent_layers",
    "ops.bilinear", "ops.normalization", "ops.exchange", "ops.differences", "ops.segments", "ops.counts", "ops.older_linalg",
    "ops.low_rank", "ops.hash", "ops.control_flow", "autograd.anomaly", "backend.any_streams", "errors", "accelerator",
    "sweeps.run", "func.batching", "interop.c",
)  # fmt: skip
#: The names to re-export where not all of ``__all__`` is: torch has these at top level, the rest in nn.functional or special.
#: The import of interop takes long.
_SELECTED_NAMES = {
    "accelerator": ("get_device_module",),
    "autograd.anomaly": ("is_anomaly_check_nan_enabled", "is_anomaly_enabled", "set_anomaly_enabled"),
    "errors": ("OutOfMemoryError",),
    "interop.c": ("export_c",),
    "ops.activations": (
        "celu", "celu_", "hardshrink", "relu", "relu_", "selu", "selu_", "sigmoid", "tanh", "threshold",
        "threshold_",
    ),
    "ops.bessel": ("i0",),
    "ops.bilinear": ("bilinear",),
    "ops.distance": ("cosine_similarity", "pairwise_distance", "pdist"),
    "ops.entropy": ("xlogy",),
    "ops.error_functions": ("erfc", "erfinv"),
    "ops.gates": ("prelu", "rrelu_"),
    "ops.interpolate": ("channel_shuffle", "native_channel_shuffle", "pixel_shuffle", "pixel_unshuffle"),
    "ops.normalization": ("rms_norm",),
    "ops.pooling": ("adaptive_avg_pool1d", "avg_pool1d"),  # max_pool2d and its kin are those of ops.native
    "ops.special_functions": ("digamma", "lgamma", "mvlgamma", "polygamma"),
}  # fmt: skip
#: Submodules that are imported on first access, also by ``from gpunet import *``.
_STAR_SUBMODULES = ("cuda", "fft", "linalg", "nn", "ops", "optim", "special")
#: Submodules that are imported on first access.
_SUBMODULES = (
    "_C", "accelerator", "amp", "autograd", "backend", "backends", "captured", "cpu", "data", "diagnose", "distributed",
    "distributions", "emulator", "errors", "estimators", "func", "interop", "launch", "metrics", "models", "mps", "multiprocessing",
    "onnx", "random", "sweeps", "testing", "tools", "train", "utils", "version", "vision",
)  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in _STAR_SUBMODULES or name in _SUBMODULES:
        return importlib.import_module(f"gpunet.{name}")
    if name == "__all__":
        names = {"__version__", *_STAR_SUBMODULES, *(name for path in _REEXPORTED for name in _names(path))}
        return sorted(names - (set() if importlib.import_module("gpunet.backend.dtypes").has_bfloat16() else {"bfloat16"}))
    if not name.startswith("_"):
        for path in _REEXPORTED:
            if name in _names(path):
                if path.startswith("autograd."):
                    importlib.import_module("gpunet.ops")  # attaches the methods of Tensor
                globals()[name] = value = getattr(importlib.import_module(f"gpunet.{path}"), name)
                return value
    raise AttributeError(f"module 'gpunet' has no attribute {name!r}")


def _names(path: str) -> Sequence[str]:
    """Return the names of a module that are re-exported."""
    names: Sequence[str] = _SELECTED_NAMES.get(path) or importlib.import_module(f"gpunet.{path}").__all__
    return names


def __dir__() -> list[str]:
    return sorted([*__getattr__("__all__"), *_SUBMODULES])
