// In place of CUDA's header of this name, which comes in a package of its own: what CuPy's module needs of it.
#pragma once
#include <cuda_runtime_api.h>
extern "C" cudaError_t cudaProfilerStart();
extern "C" cudaError_t cudaProfilerStop();
