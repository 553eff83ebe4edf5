"""gpunet trains neural networks on NVIDIA GPUs through fused CUDA kernels, and on the CPU through NumPy.

    import gpunet

    w = gpunet.tensor([2.0], requires_grad=True)
    x = gpunet.tensor([3.0])
    loss = (w * x - 10.0) ** 2
    loss.backward()
    w.grad                      # tensor([-24.])
"""

from gpunet import nn, ops, optim
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
    bool_,
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
from gpunet.device import Device as device
from gpunet.device import cuda_status, default_device, set_default_device, synchronize
from gpunet.ops.activations import relu, sigmoid, tanh
from gpunet.ops.elementwise import (
    abs,
    add,
    allclose,
    atan,
    ceil,
    clamp,
    cos,
    cosh,
    div,
    equal,
    erf,
    exp,
    expm1,
    floor,
    isfinite,
    isinf,
    isnan,
    log,
    log1p,
    log2,
    log10,
    logical_and,
    logical_not,
    logical_or,
    logical_xor,
    maximum,
    minimum,
    mul,
    neg,
    pow,
    reciprocal,
    round,
    rsqrt,
    sign,
    sin,
    sinh,
    sqrt,
    square,
    sub,
    tan,
    trunc,
    where,
)
from gpunet.ops.matmul import dot, matmul
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
    cat,
    chunk,
    flatten,
    flip,
    gather,
    index_select,
    masked_select,
    permute,
    reshape,
    split,
    squeeze,
    stack,
    transpose,
    tril,
    triu,
    unbind,
    unsqueeze,
)
from gpunet.runtime.random import Generator, manual_seed

__version__ = "0.1.0"
