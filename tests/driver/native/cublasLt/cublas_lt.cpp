// The stand-in for libcublasLt.so.13.  NVIDIA's libcublas needs that library, so CuPy loads it first; nothing calls it here.
#include <stddef.h>

extern "C" __attribute__((visibility("default"))) size_t cublasLtGetVersion() { return 130000; }
