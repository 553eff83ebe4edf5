"""Every exception of gpunet.  Each message names the offending value, what was expected, and the way out.

All derive from :class:`GpunetError`; each also derives from the built-in exception a NumPy or PyTorch user would
catch for the same mistake, so ``except ValueError`` keeps working.
"""

from __future__ import annotations


class GpunetError(Exception):
    """Base class of all gpunet exceptions."""


class ShapeError(GpunetError, ValueError):
    """Shapes that do not fit together."""


class OutOfRangeError(ShapeError, IndexError):
    """An index outside its dimension.  On a GPU it is raised when the host next reads a value or synchronizes."""


class DtypeError(GpunetError, TypeError):
    """A dtype that an operation does not take."""


class DeviceError(GpunetError, RuntimeError):
    """A device that is not there, or tensors on different devices."""


class GradientError(GpunetError, RuntimeError):
    """A gradient that cannot be computed: no graph, a graph already released, a non-scalar without a gradient."""


class InPlaceError(GradientError):
    """Something that backward needs was changed in place."""


class CaptureError(GpunetError, RuntimeError):
    """A step that cannot be recorded, or whose recording no longer fits; the message names the user's line."""


class SplitWarning(GpunetError, UserWarning):
    """A captured step runs in parts, with its Python between them; the message names the user's line and the way out."""


class LaunchError(GpunetError, RuntimeError):
    """A kernel launch that breaks its kernel's contract (dtype, device, contiguity, size)."""


class EmulationError(GpunetError, RuntimeError):
    """What the emulator found wrong in a running kernel: a race, an access out of bounds, a barrier not all reach."""


class CompileError(GpunetError, RuntimeError):
    """A CUDA source that does not compile, or a compiler that is not installed."""


class MismatchError(GpunetError, AssertionError):
    """Two computations of the same thing that differ: a kernel and its twin, a gradient and its finite differences."""


class LabelError(GpunetError, IndexError):
    """Class labels outside ``0 .. classes - 1``.  On a GPU it is raised when the host next reads a value or synchronizes."""


class ArgumentError(GpunetError, ValueError):
    """An argument outside what a function takes."""


class StateDictError(GpunetError, KeyError):
    """A state_dict whose keys or shapes are not the module's."""

    def __str__(self) -> str:  # KeyError would print the repr of its argument, newlines escaped
        return str(self.args[0]) if self.args else ""


class CheckpointError(GpunetError, RuntimeError):
    """A checkpoint that is missing, truncated or of another kind."""


class DataError(GpunetError, ValueError):
    """A data file or data set that cannot be used as it is."""


class MissingDependencyError(GpunetError, ImportError):
    """An optional package that the called function needs is not installed."""
