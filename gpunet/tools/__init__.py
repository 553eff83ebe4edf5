"""Tools on top of the library: kernel checks, resource usage, benchmarks, and what the command line runs."""
