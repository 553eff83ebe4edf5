"""The mutation test of the CUDA kernels: ``python -m tests.mutation``.

A mutant changes one barrier, wait, fence, guard or predicate in ``cuda_kernels/``.  The cases of
``gpunet.tools.kernel_cases`` run on it in the emulator's check mode, as in the tests of the kernels.  A mutant that
survives reveals a missing case, a missing check of the emulator, or dead code.

    source.py       tokenizes a CUDA source and finds its declarations
    operators.py    generates the mutants of a source
    judge.py        runs the cases that a mutant can affect
    survivors.txt   mutants that are known to survive, with reasons; most are equivalent to the kernel
"""
