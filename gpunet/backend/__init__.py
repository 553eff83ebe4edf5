"""The array shim: devices (the only importer of CuPy), the CUDA compiler and its cache, BLAS libraries, threads."""
