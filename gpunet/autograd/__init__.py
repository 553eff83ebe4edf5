"""The engine: Tensor, Node, backward, grad, no_grad, and the two kinds of op.

Forward.  An op computes arrays and says how to go back.  A **primitive** returns ``(array, rule, rule, ...)``: a rule
for each input, written in ops on Tensors, so gradients can be differentiated again.  A **fused** op returns
``(array, backward)``: one function of hand-written launches on arrays, beside a composition in primitives that is its
reference and the way to its second derivatives.

What a rule closes over is what it saves: the engine keeps a rule only for the inputs that need a gradient, so it keeps
exactly what these need, and it remembers the version of every saved tensor to catch changes in place.

Backward.  Nodes are numbered as they are made, and an op's inputs are always older than the op.  So taking the
youngest node first, from a heap, visits every node after all of its consumers: no recursion, no counting.
"""

from gpunet.autograd.backward import grad
from gpunet.autograd.gradcheck import gradcheck
from gpunet.autograd.graph import (
    ADD,
    COPY,
    FILL,
    MULTIPLY,
    OPS,
    Node,
    Op,
    Scaled,
    contiguous,
    fused,
    ignore_fp_errors,
    operands,
    primitive,
)
from gpunet.autograd.mode import (
    enable_grad,
    get_default_dtype,
    is_grad_enabled,
    no_grad,
    set_default_dtype,
    set_grad_enabled,
)
from gpunet.autograd.tensor import RemovableHandle, Tensor, bump_version, method, settings_changed, wrap
