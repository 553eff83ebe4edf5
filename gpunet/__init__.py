"""gpunet trains neural networks on NVIDIA GPUs through fused CUDA kernels, and on the CPU through NumPy.

    import gpunet

    w = gpunet.tensor([2.0], requires_grad=True)
    x = gpunet.tensor([3.0])
    loss = (w * x - 10.0) ** 2
    loss.backward()
    w.grad                      # tensor([-24.])
"""

from typing import TYPE_CHECKING

from gpunet import cuda, device, nn, ops, optim
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
from gpunet.creation import (
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
from gpunet.creation import (
    bool_ as bool,
)
from gpunet.creation import (
    float32 as float,
)
from gpunet.creation import (
    int32 as int,
)
from gpunet.device import cuda_status, default_device, set_default_device, synchronize
from gpunet.ops.activations import (
    relu,
    sigmoid,
    tanh,
)
from gpunet.ops.compare import (
    allclose,
    ceil,
    equal,
    floor,
    isfinite,
    isinf,
    isnan,
    logical_and,
    logical_not,
    logical_or,
    logical_xor,
    round,
    sign,
    trunc,
)
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
from gpunet.runtime.random import Generator, manual_seed

if TYPE_CHECKING:
    from gpunet.device import Device as device  # type: ignore[no-redef]  # the module is callable; type checkers see what it makes

__version__ = "0.1.0"
