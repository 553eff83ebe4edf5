// Shared by the files of the runtime: the functions of the CUDA runtime that CuPy's module cupy_backends.cuda.api.runtime
// calls, written with the driver's documented functions.  They are linked into that module in place of NVIDIA's static
// runtime, which works above NVIDIA's own driver only.
#pragma once
#include <cuda.h>
#include <cuda_runtime_api.h>

#define CUDART extern "C" cudaError_t

namespace runtime {

// The codes of both interfaces are the same since CUDA 10.1.  Keeps the error for cudaGetLastError.
cudaError_t translate(CUresult status);

// Makes the primary context of this thread's device current, if no context is.
CUresult ensure_context();
int current_device();

template <class Call>
cudaError_t with_context(Call call) {
  if (const CUresult status = ensure_context()) return translate(status);
  return translate(call());
}

inline CUdeviceptr address(const void* pointer) { return reinterpret_cast<CUdeviceptr>(pointer); }

}  // namespace runtime
