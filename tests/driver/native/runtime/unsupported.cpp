// Functions that CuPy links to and the stand-in does not support: CUDA arrays, textures and surfaces, memory of other processes.
#include "runtime.h"

#define UNSUPPORTED(name, ...) \
  CUDART name(__VA_ARGS__) { return runtime::translate(CUDA_ERROR_NOT_SUPPORTED); }
UNSUPPORTED(cudaIpcCloseMemHandle, void*)
UNSUPPORTED(cudaIpcGetEventHandle, cudaIpcEventHandle_t*, cudaEvent_t)
UNSUPPORTED(cudaIpcGetMemHandle, cudaIpcMemHandle_t*, void*)
UNSUPPORTED(cudaIpcOpenEventHandle, cudaEvent_t*, cudaIpcEventHandle_t)
UNSUPPORTED(cudaIpcOpenMemHandle, void**, cudaIpcMemHandle_t, unsigned)
UNSUPPORTED(cudaMalloc3DArray, cudaArray_t*, const cudaChannelFormatDesc*, cudaExtent, unsigned)
UNSUPPORTED(cudaMallocArray, cudaArray_t*, const cudaChannelFormatDesc*, size_t, size_t, unsigned)
UNSUPPORTED(cudaFreeArray, cudaArray_t)
UNSUPPORTED(cudaMemcpy2DFromArray, void*, size_t, cudaArray_const_t, size_t, size_t, size_t, size_t, cudaMemcpyKind)
UNSUPPORTED(cudaMemcpy2DFromArrayAsync, void*, size_t, cudaArray_const_t, size_t, size_t, size_t, size_t, cudaMemcpyKind,
            cudaStream_t)
UNSUPPORTED(cudaMemcpy2DToArray, cudaArray_t, size_t, size_t, const void*, size_t, size_t, size_t, cudaMemcpyKind)
UNSUPPORTED(cudaMemcpy2DToArrayAsync, cudaArray_t, size_t, size_t, const void*, size_t, size_t, size_t, cudaMemcpyKind,
            cudaStream_t)
UNSUPPORTED(cudaMemcpy3D, const cudaMemcpy3DParms*)
UNSUPPORTED(cudaMemcpy3DAsync, const cudaMemcpy3DParms*, cudaStream_t)
UNSUPPORTED(cudaCreateTextureObject, cudaTextureObject_t*, const cudaResourceDesc*, const cudaTextureDesc*,
            const cudaResourceViewDesc*)
UNSUPPORTED(cudaDestroyTextureObject, cudaTextureObject_t)
UNSUPPORTED(cudaGetChannelDesc, cudaChannelFormatDesc*, cudaArray_const_t)
UNSUPPORTED(cudaGetTextureObjectResourceDesc, cudaResourceDesc*, cudaTextureObject_t)
UNSUPPORTED(cudaGetTextureObjectTextureDesc, cudaTextureDesc*, cudaTextureObject_t)
UNSUPPORTED(cudaCreateSurfaceObject, cudaSurfaceObject_t*, const cudaResourceDesc*)
UNSUPPORTED(cudaDestroySurfaceObject, cudaSurfaceObject_t)
