"""Private names of ``torch._C`` that scripts use."""  # noqa: N999

from gpunet.errors import LinAlgError as _LinAlgError

__all__ = ["_LinAlgError"]
