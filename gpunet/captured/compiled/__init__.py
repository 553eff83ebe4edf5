"""The compiled lowering: a step as loops, in functions that Numba compiles (``pip install 'gpunet[jit]'``).

    nests          loop nests of elementwise calls and reductions
    library_calls  other calls: products, indexing, and launches of kernels with a loop body
    entries        the compiled functions that those call by address
    fusion         from calls to units: nests, fused, library calls, and calls that stay NumPy's
    arguments      arrays that the step is called with: read in place, or copied
    regions        large loops cut into chunks that several threads share
    expressions    NumPy's ufuncs as source
    program        a step as a table of words: calls of those functions, and their arguments
    interpreter    the compiled functions that run a program
    module         modules of generated source, and the disk cache
    replay         the function that runs the parts of a program, and calls NumPy between them
    jit            functions that generated source calls; these import Numba
"""

from gpunet.captured.compiled.arguments import select_arguments
from gpunet.captured.compiled.fusion import fuse, remove_dead_stores
from gpunet.captured.compiled.nests import Unit
from gpunet.captured.compiled.replay import function

__all__ = ["Unit", "function", "fuse", "remove_dead_stores", "select_arguments"]
