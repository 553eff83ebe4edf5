"""PyTorch scripts under gpunet's names; models as ONNX and C."""
