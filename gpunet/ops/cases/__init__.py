"""Cases of every kernel: arrays and options of launches that together select all of its specialisations.

One file per family of ops.  The tests compile the selected specialisations, the emulator runs the cases, and
``gpunet selftest`` runs them on a GPU.  The cases use ragged sizes, empty arrays where the kernel allows them, every
optional array as None, every array once off alignment, and grids so small that grid-stride loops iterate.
``python -m tests.mutation`` finds errors in a kernel that no case detects.

A maker is a generator with the name of its kernel.  For one floating dtype it yields ``(label, arrays, options)``, or
``(label, arrays, options, grid, twin)`` to override the grid and the twin (see ``Case``).  Outputs are zeros.
"""
