"""Reverse-mode automatic differentiation: Tensor, Node, backward, grad, grad mode, and the two kinds of op.

Forward.  An op computes arrays and defines its backward.  A **primitive** returns ``(array, rule, rule, ...)``, one
rule per input; rules are written in ops on Tensors, so gradients can be differentiated again.  A **fused** op returns
``(array, backward)``, where ``backward`` launches hand-written kernels on arrays; its composition in primitives serves
as reference and for second derivatives.

Residuals.  The arrays saved for backward are those that the rules close over.  The engine keeps rules only for inputs
that need a gradient, so it saves nothing else.  It checks the version counters of the saved tensors to detect changes
in place.

Methods and operators of Tensor are attached when ``gpunet.ops`` is imported; ``gpunet.Tensor`` sees to that.

Backward.  Nodes are numbered in the order of their creation, so the inputs of a node always have lower numbers.
Popping the node with the highest number from a heap therefore visits each node after all of its consumers, without
recursion or dependency counts.
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
