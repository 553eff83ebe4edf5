"""Random calls of every function, method, operator and property that gpunet and PyTorch both have, compared."""
