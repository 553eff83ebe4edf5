"""The benchmark kit behind ``gpunet bench``, ``pytest bench`` and ``bench/gpu_session.py``.

| file | what is in it |
|---|---|
| ``cases`` | the named networks, their data, first weights, operations and bytes |
| ``contestants``, ``peers/`` | who runs, and how each does one step |
| ``worker`` | the process of one peer; it builds contestants and times steps when asked |
| ``measure`` | rounds in which every contestant has its turn, the check of their losses, what is made of the seconds |
| ``ceilings`` | what the machine can do: GEMM rate, memory bandwidth, latencies of a card |
| ``kernels`` | one launch of every kernel at a size worth measuring |
| ``report``, ``picture`` | tables, JSON, PNG |
"""
