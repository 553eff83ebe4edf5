"""Flags of ``torch.backends.cudnn``, which is not used: kernels are gpunet's own, and deterministic."""

benchmark = False
benchmark_limit = 10
deterministic = False
enabled = True
allow_tf32 = True


def is_available() -> bool:
    """Return False: cuDNN is not used."""
    return False


def version() -> None:
    """Return None: cuDNN is not used."""
