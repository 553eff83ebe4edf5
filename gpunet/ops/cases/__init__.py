"""Cases for every kernel: the arrays and options of launches that together choose all of its specialisations.

One file a family of ops, under its name.  The tests compile what the cases choose, the emulator runs it, and
``gpunet selftest`` runs it on a GPU.  Sizes are odd and ragged, optional arrays are left out in turn, empty ones are there
where a kernel allows it, each array is unaligned once, and grid-stride loops run more than once.  ``python -m
tests.mutation`` finds what no case would notice.

A maker has its kernel's name and yields ``(label, arrays, options)`` for one floating dtype, then, where they differ from
most launches', the grid and the twin.  Destinations are blank.
"""
