"""Kernels and how they are launched, the tape that records launches, their memory, and random numbers."""
