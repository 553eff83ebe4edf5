"""A model's forward pass as a graph of ops, which the exports to ONNX and to C read."""

from gpunet.interop.tracing.graph import Dim, Graph, Node, Ref, Spec
from gpunet.interop.tracing.trace import trace

__all__ = ["Dim", "Graph", "Node", "Ref", "Spec", "trace"]
