"""The mutation test of the CUDA kernels: ``python -m tests.mutation``.

Every barrier, wait, fence, guard and predicate of ``cuda_kernels/`` is removed or shifted in turn, one a mutant, and the
cases of ``gpunet.tools.kernel_cases`` are run on it in the emulator's check mode, as the test of the kernels does.  A
mutant that nothing notices shows a case that is missing, a check that the emulator lacks, or code that does nothing.

    source.py       a CUDA source as tokens, and the declarations that they belong to
    operators.py    the mutants of a source
    judge.py        the cases that a mutant can show in, and what they find
    survivors.txt   mutants that are known to survive, each with the reason: most are equivalent to the kernel
"""
