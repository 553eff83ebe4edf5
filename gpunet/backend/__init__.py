"""The array shim: devices (the only module that imports CuPy), dtypes, the CUDA compiler and its cache, BLAS, threads."""
