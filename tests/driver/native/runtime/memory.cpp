// Memory and copies.
#include <string.h>

#include "runtime.h"

using namespace runtime;

namespace {
CUdeviceptr* out(void** pointer) { return reinterpret_cast<CUdeviceptr*>(pointer); }

CUDA_MEMCPY2D rows_of(void* to, size_t to_pitch, const void* from, size_t from_pitch, size_t width, size_t height,
                      cudaMemcpyKind kind) {
  CUDA_MEMCPY2D rows = {};
  rows.srcMemoryType =
      kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice ? CU_MEMORYTYPE_DEVICE : CU_MEMORYTYPE_UNIFIED;
  rows.dstMemoryType =
      kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice ? CU_MEMORYTYPE_DEVICE : CU_MEMORYTYPE_UNIFIED;
  rows.srcDevice = address(from);
  rows.srcPitch = from_pitch;
  rows.dstDevice = address(to);
  rows.dstPitch = to_pitch;
  rows.WidthInBytes = width;
  rows.Height = height;
  return rows;
}
}  // namespace

// ---- allocation ----------------------------------------------------------------------------------------------------------

CUDART cudaMalloc(void** pointer, size_t bytes) {
  if (bytes) return with_context([=] { return cuMemAlloc(out(pointer), bytes); });
  *pointer = nullptr;
  return cudaSuccess;
}
CUDART cudaMallocManaged(void** pointer, size_t bytes, unsigned flags) {
  return with_context([=] { return cuMemAllocManaged(out(pointer), bytes, flags); });
}
CUDART cudaMallocAsync(void** pointer, size_t bytes, cudaStream_t stream) {
  return with_context([=] { return cuMemAllocAsync(out(pointer), bytes, stream); });
}
CUDART cudaMallocFromPoolAsync(void** pointer, size_t bytes, cudaMemPool_t pool, cudaStream_t stream) {
  return with_context([=] { return cuMemAllocFromPoolAsync(out(pointer), bytes, pool, stream); });
}
CUDART cudaHostAlloc(void** pointer, size_t bytes, unsigned flags) {
  return with_context([=] { return cuMemHostAlloc(pointer, bytes, flags); });
}
CUDART cudaHostRegister(void* pointer, size_t bytes, unsigned flags) {
  return with_context([=] { return cuMemHostRegister(pointer, bytes, flags); });
}
CUDART cudaHostUnregister(void* pointer) {
  return with_context([=] { return cuMemHostUnregister(pointer); });
}
CUDART cudaFree(void* pointer) {
  return with_context([=] { return cuMemFree(address(pointer)); });
}
CUDART cudaFreeHost(void* pointer) {
  return with_context([=] { return cuMemFreeHost(pointer); });
}
CUDART cudaFreeAsync(void* pointer, cudaStream_t stream) {
  return with_context([=] { return cuMemFreeAsync(address(pointer), stream); });
}
CUDART cudaMemGetInfo(size_t* left, size_t* total) {
  return with_context([=] { return cuMemGetInfo(left, total); });
}

// ---- copies --------------------------------------------------------------------------------------------------------------

CUDART cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind, cudaStream_t stream) {
  return with_context([=] {
    switch (kind) {
      case cudaMemcpyHostToDevice: return cuMemcpyHtoDAsync(address(to), from, bytes, stream);
      case cudaMemcpyDeviceToHost: return cuMemcpyDtoHAsync(to, address(from), bytes, stream);
      case cudaMemcpyDeviceToDevice: return cuMemcpyDtoDAsync(address(to), address(from), bytes, stream);
      default: return cuMemcpyAsync(address(to), address(from), bytes, stream);
    }
  });
}
CUDART cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind kind) {
  return with_context([=] {
    switch (kind) {
      case cudaMemcpyHostToDevice: return cuMemcpyHtoD(address(to), from, bytes);
      case cudaMemcpyDeviceToHost: return cuMemcpyDtoH(to, address(from), bytes);
      case cudaMemcpyDeviceToDevice: return cuMemcpyDtoD(address(to), address(from), bytes);
      default: return cuMemcpy(address(to), address(from), bytes);
    }
  });
}
CUDART cudaMemcpyPeerAsync(void* to, int, const void* from, int, size_t bytes, cudaStream_t stream) {
  return with_context([=] { return cuMemcpyDtoDAsync(address(to), address(from), bytes, stream); });
}
CUDART cudaMemcpyPeer(void* to, int, const void* from, int, size_t bytes) {
  return with_context([=] { return cuMemcpyDtoD(address(to), address(from), bytes); });
}
CUDART cudaMemcpy2DAsync(void* to, size_t to_pitch, const void* from, size_t from_pitch, size_t width, size_t height,
                         cudaMemcpyKind kind, cudaStream_t stream) {
  const CUDA_MEMCPY2D rows = rows_of(to, to_pitch, from, from_pitch, width, height, kind);
  return with_context([&] { return cuMemcpy2DAsync(&rows, stream); });
}
CUDART cudaMemcpy2D(void* to, size_t to_pitch, const void* from, size_t from_pitch, size_t width, size_t height,
                    cudaMemcpyKind kind) {
  const CUDA_MEMCPY2D rows = rows_of(to, to_pitch, from, from_pitch, width, height, kind);
  return with_context([&] { return cuMemcpy2DUnaligned(&rows); });
}
CUDART cudaMemsetAsync(void* pointer, int value, size_t bytes, cudaStream_t stream) {
  return with_context([=] { return cuMemsetD8Async(address(pointer), static_cast<unsigned char>(value), bytes, stream); });
}
CUDART cudaMemset(void* pointer, int value, size_t bytes) {
  return with_context([=] { return cuMemsetD8(address(pointer), static_cast<unsigned char>(value), bytes); });
}
CUDART cudaMemPrefetchAsync(const void* pointer, size_t bytes, cudaMemLocation location, unsigned flags, cudaStream_t stream) {
  return with_context([&] {
    return cuMemPrefetchAsync(address(pointer), bytes, {static_cast<CUmemLocationType>(location.type), location.id}, flags,
                              stream);
  });
}
CUDART cudaMemAdvise(const void* pointer, size_t bytes, cudaMemoryAdvise advice, cudaMemLocation location) {
  return with_context([&] {
    return cuMemAdvise(address(pointer), bytes, static_cast<CUmem_advise>(advice),
                       {static_cast<CUmemLocationType>(location.type), location.id});
  });
}

// ---- pointers ------------------------------------------------------------------------------------------------------------

CUDART cudaPointerGetAttributes(cudaPointerAttributes* attributes, const void* pointer) {
  if (const CUresult status = ensure_context()) return translate(status);
  memset(attributes, 0, sizeof *attributes);
  unsigned type = 0, managed = 0;
  if (cuPointerGetAttribute(&type, CU_POINTER_ATTRIBUTE_MEMORY_TYPE,
                            address(pointer))) {  // host memory that CUDA does not know
    attributes->type = cudaMemoryTypeUnregistered;
    attributes->device = -2;
    attributes->hostPointer = const_cast<void*>(pointer);
    return cudaSuccess;
  }
  cuPointerGetAttribute(&managed, CU_POINTER_ATTRIBUTE_IS_MANAGED, address(pointer));
  cuPointerGetAttribute(&attributes->device, CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL, address(pointer));
  cuPointerGetAttribute(&attributes->hostPointer, CU_POINTER_ATTRIBUTE_HOST_POINTER, address(pointer));
  attributes->devicePointer = const_cast<void*>(pointer);
  attributes->type = managed ? cudaMemoryTypeManaged : type == CU_MEMORYTYPE_HOST ? cudaMemoryTypeHost : cudaMemoryTypeDevice;
  return cudaSuccess;
}

// ---- pools ---------------------------------------------------------------------------------------------------------------

CUDART cudaDeviceGetDefaultMemPool(cudaMemPool_t* pool, int device) {
  return translate(cuDeviceGetDefaultMemPool(pool, device));
}
CUDART cudaDeviceGetMemPool(cudaMemPool_t* pool, int device) { return translate(cuDeviceGetMemPool(pool, device)); }
CUDART cudaDeviceSetMemPool(int device, cudaMemPool_t pool) { return translate(cuDeviceSetMemPool(device, pool)); }
CUDART cudaMemPoolCreate(cudaMemPool_t* pool, const cudaMemPoolProps* properties) {
  CUmemPoolProps translated = {};
  translated.allocType = static_cast<CUmemAllocationType>(properties->allocType);
  translated.location = {static_cast<CUmemLocationType>(properties->location.type), properties->location.id};
  return translate(cuMemPoolCreate(pool, &translated));
}
CUDART cudaMemPoolDestroy(cudaMemPool_t pool) { return translate(cuMemPoolDestroy(pool)); }
CUDART cudaMemPoolTrimTo(cudaMemPool_t pool, size_t bytes) { return translate(cuMemPoolTrimTo(pool, bytes)); }
CUDART cudaMemPoolGetAttribute(cudaMemPool_t pool, cudaMemPoolAttr attribute, void* value) {
  return translate(cuMemPoolGetAttribute(pool, static_cast<CUmemPool_attribute>(attribute), value));
}
CUDART cudaMemPoolSetAttribute(cudaMemPool_t pool, cudaMemPoolAttr attribute, void* value) {
  return translate(cuMemPoolSetAttribute(pool, static_cast<CUmemPool_attribute>(attribute), value));
}
