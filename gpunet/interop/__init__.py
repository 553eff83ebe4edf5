"""PyTorch scripts: run them under gpunet's names, and read which names they need."""
