"""C: export a model as one file of C99 without dependencies."""

from gpunet.interop.c.export import export_c

__all__ = ["export_c"]
