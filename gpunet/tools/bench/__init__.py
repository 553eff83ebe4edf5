"""The benchmark kit behind ``gpunet bench``, ``pytest bench`` and ``bench/gpu_session.py``.

| file | content |
|---|---|
| ``cases`` | the named networks, their data, initial weights, FLOPs and bytes |
| ``contestants``, ``peers/`` | the libraries and their variants, and how each runs one step |
| ``worker`` | the process of one peer: builds contestants and times steps on request |
| ``measure`` | the check of the losses, and the rounds in which the contestants take turns |
| ``ceilings`` | limits of the machine: GEMM rate, memory bandwidth, launch latencies of a GPU |
| ``kernels`` | one launch of every kernel, large enough to time |
| ``report``, ``picture`` | tables, JSON, PNG |
| ``scaling`` | step time over batch size and depth |
| ``ranks`` | data-parallel steps in several processes |
| ``session`` | one run of ``gpunet bench`` |
"""
