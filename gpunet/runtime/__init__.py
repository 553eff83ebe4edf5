"""The launch seam: kernels, their CUDA sources, memory, the tape that records launches, and random numbers."""
