"""Launches: kernels and how they are called, the tape that records them, their memory, and random numbers."""
