"""gpunet trains neural networks on NVIDIA GPUs through fused CUDA kernels, and on the CPU through NumPy.

import gpunet

w = gpunet.tensor([2.0], requires_grad=True)
x = gpunet.tensor([3.0])
loss = (w * x - 10.0) ** 2
loss.backward()
w.grad                      # tensor([-24.])
"""

import importlib
from typing import TYPE_CHECKING, Any

from gpunet import cuda, nn, ops, optim
from gpunet.autograd import (
    Tensor,
    enable_grad,
    get_default_dtype,
    grad,
    is_grad_enabled,
    no_grad,
    set_default_dtype,
    set_grad_enabled,
)
from gpunet.backend.devices import Device as device
from gpunet.backend.devices import cuda_status, default_device, set_default_device
from gpunet.cuda import synchronize
from gpunet.launch.random import Generator, manual_seed
from gpunet.ops.activations import (
    relu,
    sigmoid,
    tanh,
)
from gpunet.ops.compare import (
    allclose,
    ceil,
    eq,
    equal,
    floor,
    ge,
    greater,
    greater_equal,
    gt,
    isfinite,
    isinf,
    isnan,
    le,
    less,
    less_equal,
    logical_and,
    logical_not,
    logical_or,
    logical_xor,
    lt,
    ne,
    not_equal,
    round,
    sign,
    trunc,
)
from gpunet.ops.creation import (
    arange,
    as_tensor,
    bernoulli,
    double,
    empty,
    empty_like,
    eye,
    float32,
    float64,
    from_numpy,
    full,
    full_like,
    int32,
    int64,
    linspace,
    long,
    ones,
    ones_like,
    rand,
    rand_like,
    randint,
    randn,
    randn_like,
    randperm,
    tensor,
    zeros,
    zeros_like,
)
from gpunet.ops.creation import bool_ as bool
from gpunet.ops.creation import float32 as float
from gpunet.ops.creation import int32 as int
from gpunet.ops.elementwise import (
    abs,
    add,
    atan,
    clamp,
    cos,
    cosh,
    div,
    erf,
    exp,
    expm1,
    log,
    log1p,
    log2,
    log10,
    maximum,
    minimum,
    mul,
    neg,
    pow,
    reciprocal,
    rsqrt,
    sin,
    sinh,
    sqrt,
    square,
    sub,
    tan,
    where,
)
from gpunet.ops.index import (
    gather,
    index_select,
    masked_select,
    tril,
    triu,
)
from gpunet.ops.join import (
    cat,
    chunk,
    split,
    stack,
    unbind,
)
from gpunet.ops.matmul import (
    dot,
    matmul,
)
from gpunet.ops.reduce import (
    all,
    amax,
    amin,
    any,
    argmax,
    argmin,
    argsort,
    cumsum,
    log_softmax,
    logsumexp,
    max,
    mean,
    min,
    norm,
    prod,
    softmax,
    sort,
    std,
    sum,
    topk,
    var,
)
from gpunet.ops.shape import (
    flatten,
    flip,
    permute,
    reshape,
    squeeze,
    transpose,
    unsqueeze,
)

if TYPE_CHECKING:
    from gpunet.backend.threads import get_num_threads, set_num_threads
    from gpunet.captured import capture
    from gpunet.ops.custom import cuda_op
    from gpunet.train.checkpoint import load, save

__version__ = "0.1.0"

__all__ = [
    "Generator",
    "Tensor",
    "__version__",
    "abs",
    "add",
    "all",
    "allclose",
    "amax",
    "amin",
    "any",
    "arange",
    "argmax",
    "argmin",
    "argsort",
    "as_tensor",
    "atan",
    "bernoulli",
    "bool",
    "capture",
    "cat",
    "ceil",
    "chunk",
    "clamp",
    "cos",
    "cosh",
    "cuda",
    "cuda_op",
    "cuda_status",
    "cumsum",
    "default_device",
    "device",
    "div",
    "dot",
    "double",
    "empty",
    "empty_like",
    "enable_grad",
    "eq",
    "equal",
    "erf",
    "exp",
    "expm1",
    "eye",
    "flatten",
    "flip",
    "float",
    "float32",
    "float64",
    "floor",
    "from_numpy",
    "full",
    "full_like",
    "gather",
    "ge",
    "get_default_dtype",
    "get_num_threads",
    "grad",
    "greater",
    "greater_equal",
    "gt",
    "index_select",
    "int",
    "int32",
    "int64",
    "is_grad_enabled",
    "isfinite",
    "isinf",
    "isnan",
    "le",
    "less",
    "less_equal",
    "linspace",
    "load",
    "log",
    "log1p",
    "log2",
    "log10",
    "log_softmax",
    "logical_and",
    "logical_not",
    "logical_or",
    "logical_xor",
    "logsumexp",
    "long",
    "lt",
    "manual_seed",
    "masked_select",
    "matmul",
    "max",
    "maximum",
    "mean",
    "min",
    "minimum",
    "mul",
    "ne",
    "neg",
    "nn",
    "no_grad",
    "norm",
    "not_equal",
    "ones",
    "ones_like",
    "ops",
    "optim",
    "permute",
    "pow",
    "prod",
    "rand",
    "rand_like",
    "randint",
    "randn",
    "randn_like",
    "randperm",
    "reciprocal",
    "relu",
    "reshape",
    "round",
    "rsqrt",
    "save",
    "set_default_device",
    "set_default_dtype",
    "set_grad_enabled",
    "set_num_threads",
    "sigmoid",
    "sign",
    "sin",
    "sinh",
    "softmax",
    "sort",
    "split",
    "sqrt",
    "square",
    "squeeze",
    "stack",
    "std",
    "sub",
    "sum",
    "synchronize",
    "tan",
    "tanh",
    "tensor",
    "topk",
    "transpose",
    "tril",
    "triu",
    "trunc",
    "unbind",
    "unsqueeze",
    "var",
    "where",
    "zeros",
    "zeros_like",
]


def __getattr__(name: str) -> Any:
    # at first use: they bring in what `import gpunet` does without
    if name in ("load", "save"):
        from gpunet.train import checkpoint

        return getattr(checkpoint, name)
    if name == "capture":
        from gpunet.captured import capture

        return capture
    if name == "cuda_op":
        from gpunet.ops.custom import cuda_op

        return cuda_op
    if name in ("get_num_threads", "set_num_threads"):
        from gpunet.backend import threads

        return getattr(threads, name)
    if name in ("data", "emulator", "testing", "tools", "train"):
        return importlib.import_module(f"gpunet.{name}")
    raise AttributeError(f"module 'gpunet' has no attribute {name!r}")
