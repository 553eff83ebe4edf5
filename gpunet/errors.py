"""The exceptions of gpunet.  Each message names the offending value, what was expected, and how to fix it.

All derive from :class:`GpunetError`.  Each also derives from the built-in exception that NumPy or PyTorch raises for the
same mistake, so ``except ValueError`` works.
"""

from __future__ import annotations


class GpunetError(Exception):
    """Base class of all gpunet exceptions."""


class ShapeError(GpunetError, ValueError):
    """Shapes that do not fit together."""


class OutOfRangeError(ShapeError, IndexError):
    """An index outside its dimension.  On a GPU it is raised when the host next reads a value or synchronizes."""


class DtypeError(GpunetError, TypeError):
    """A dtype that an operation does not support."""


class DeviceError(GpunetError, RuntimeError):
    """A device that does not exist, or tensors on different devices."""


class OutOfMemoryError(GpunetError, RuntimeError, MemoryError):
    """A GPU has not enough memory for an array."""


class GradientError(GpunetError, RuntimeError):
    """A gradient that cannot be computed: no graph, a released graph, or a non-scalar output without ``gradient``."""


class InPlaceError(GradientError):
    """A tensor that backward needs was changed in place."""


class CaptureError(GpunetError, RuntimeError):
    """A step that cannot be captured, or whose recording no longer matches; the message names the user's line."""


class GraphBreakWarning(GpunetError, UserWarning):
    """A graph break: a step is not recorded and runs eagerly; the message names the line and how to avoid it."""


class LaunchError(GpunetError, RuntimeError):
    """A kernel launch whose arguments violate the kernel's contract (dtype, device, contiguity, size)."""


class EmulationError(GpunetError, RuntimeError):
    """A bug the emulator found in a running kernel: a race, an access out of bounds, a barrier that some threads miss."""


class CompileError(GpunetError, RuntimeError):
    """A CUDA source that does not compile, or a compiler that is not installed."""


class MismatchError(GpunetError, AssertionError):
    """Two results that should agree but differ: a kernel and its NumPy twin, a gradient and its finite differences."""


class LabelError(GpunetError, IndexError):
    """Class labels outside ``0 .. classes - 1``.  On a GPU it is raised when the host next reads a value or synchronizes."""


class LinAlgError(GpunetError, RuntimeError, ValueError):
    """A matrix that a factorisation does not exist for: singular, or not positive definite."""


class ArgumentError(GpunetError, ValueError):
    """An argument with an invalid value."""


class StackError(GpunetError, TypeError, ValueError):
    """Nets that cannot be trained as one stack: the message names the module."""


class StateDictError(GpunetError, KeyError, RuntimeError):
    """A state_dict whose keys or shapes do not match the module's."""

    def __str__(self) -> str:  # KeyError would print the repr of the message, with newlines escaped
        return str(self.args[0]) if self.args else ""


class CheckpointError(GpunetError, RuntimeError):
    """A checkpoint that is missing, truncated or of the wrong kind."""


class ExportError(GpunetError, RuntimeError):
    """A model that a file format cannot express, or an exported file whose results differ; the message has op and module."""


class FormatError(GpunetError, ValueError):
    """A model file of another library that is damaged, or has a part that gpunet does not know."""


class DataError(GpunetError, ValueError):
    """A data file or data set that cannot be used."""


class MissingNameError(GpunetError, AttributeError):
    """A name of PyTorch that gpunet does not have, in a script that runs under PyTorch's names."""


class MissingModuleError(GpunetError, ImportError):
    """A module of PyTorch that gpunet does not have, in a script that runs under PyTorch's names."""


class ProcessError(GpunetError, RuntimeError):
    """A process that this one started has failed; the message has its number and traceback."""


class WorkerError(GpunetError, RuntimeError):
    """A worker process of a DataLoader raised an exception, died, or took too long; the message names the worker."""


class MissingDependencyError(GpunetError, ImportError):
    """An optional package that a function needs is not installed."""


def shown(value: object) -> str:
    """The ``repr`` of a value of a file for a message, of a long one its start."""
    text = repr(value[: MAX_SHOWN + 1] if isinstance(value, str) else value)
    return text if len(text) <= MAX_SHOWN + 2 else f"{text[:MAX_SHOWN]}..."


#: The characters of a value that a message has.
MAX_SHOWN = 80
