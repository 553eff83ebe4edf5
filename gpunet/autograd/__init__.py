"""Reverse-mode automatic differentiation: Tensor, Node, backward, grad, grad mode, and the two kinds of op.

Forward.  An op computes arrays, and declares or returns what its backward needs.  A **primitive** has a derivative for
each input, written in ops on Tensors, so gradients can be differentiated again.  A **fused** op's forward and backward
launch hand-written kernels on arrays; its composition in primitives serves as reference and for second derivatives.

Residuals.  Nothing is closed over.  A derivative of a primitive names the values that are saved for it; a fused op
returns them as a flat tuple of arrays.  So the engine knows them: it saves nothing for inputs that need no gradient,
checks the version counters of what it saved to detect changes in place, and releases it when backward has run.

Gradients.  A :class:`Gradient` travels along the edges: an array with a pending scale, such as the 1/n of a mean loss.
A new array without a scale travels as it is.

Methods and operators of Tensor are attached when ``gpunet.ops`` is imported; ``gpunet.Tensor`` sees to that.

Backward.  Nodes are numbered in the order of their creation, so the inputs of a node always have lower numbers.
Popping the node with the highest number from a heap therefore visits each node after all of its consumers, without
recursion or dependency counts.
"""

from gpunet.autograd import functional
from gpunet.autograd import mode as grad_mode
from gpunet.autograd.anomaly import detect_anomaly, set_detect_anomaly
from gpunet.autograd.engine import backward, grad
from gpunet.autograd.function import Function, once_differentiable
from gpunet.autograd.gradcheck import gradcheck, gradgradcheck
from gpunet.autograd.graph import (
    ADD,
    COPY,
    FILL,
    MULTIPLY,
    Gradient,
    Node,
    contiguous,
    contiguous_in_place,
    ignore_fp_errors,
    operands,
)
from gpunet.autograd.mode import (
    enable_grad,
    enforce_grad_layout_policy,
    get_default_dtype,
    inference_mode,
    is_grad_enabled,
    no_grad,
    set_default_dtype,
    set_grad_enabled,
    set_multithreading_enabled,
)
from gpunet.autograd.op import OPS, Op, fused, primitive
from gpunet.autograd.tensor import RemovableHandle, Tensor, bump_version, make_tensor, method, wrap
from gpunet.autograd.tensor_types import Variable
