// Devices, contexts and errors.
#include <string.h>

#include <string>

#include "runtime.h"

namespace runtime {
namespace {
thread_local int chosen_device = 0;
thread_local cudaError_t last_error = cudaSuccess;

CUresult initialise() {
  static const CUresult status = cuInit(0);
  return status;
}
}  // namespace

cudaError_t translate(CUresult status) {
  const auto error = static_cast<cudaError_t>(status);
  if (error && error != cudaErrorNotReady) last_error = error;
  return error;
}

int current_device() {
  CUdevice device = 0;
  if (!initialise() && cuCtxGetDevice(&device) == CUDA_SUCCESS) chosen_device = device;
  return chosen_device;
}

CUresult ensure_context() {
  if (const CUresult status = initialise()) return status;
  CUcontext context = nullptr;
  cuCtxGetCurrent(&context);
  if (context) return CUDA_SUCCESS;
  if (const CUresult status = cuDevicePrimaryCtxRetain(&context, chosen_device)) return status;
  return cuCtxSetCurrent(context);
}
}  // namespace runtime

using namespace runtime;

// ---- errors --------------------------------------------------------------------------------------------------------------

CUDART cudaGetLastError() {
  const cudaError_t error = last_error;
  last_error = cudaSuccess;
  return error;
}
extern "C" const char* cudaGetErrorName(cudaError_t error) {
  switch (error) {
#define NAME(name) \
  case name: return #name
    NAME(cudaSuccess);
    NAME(cudaErrorInvalidValue);
    NAME(cudaErrorMemoryAllocation);
    NAME(cudaErrorInitializationError);
    NAME(cudaErrorNoDevice);
    NAME(cudaErrorInvalidDevice);
    NAME(cudaErrorDeviceUninitialized);
    NAME(cudaErrorInvalidResourceHandle);
    NAME(cudaErrorIllegalState);
    NAME(cudaErrorNotReady);
    NAME(cudaErrorIllegalAddress);
    NAME(cudaErrorLaunchOutOfResources);
    NAME(cudaErrorPeerAccessAlreadyEnabled);
    NAME(cudaErrorPeerAccessNotEnabled);
    NAME(cudaErrorPeerAccessUnsupported);
    NAME(cudaErrorHostMemoryAlreadyRegistered);
    NAME(cudaErrorHostMemoryNotRegistered);
    NAME(cudaErrorMisalignedAddress);
    NAME(cudaErrorLaunchFailure);
    NAME(cudaErrorAssert);
    NAME(cudaErrorNotSupported);
    NAME(cudaErrorStreamCaptureUnsupported);
    NAME(cudaErrorStreamCaptureInvalidated);
    NAME(cudaErrorStreamCaptureMerge);
    NAME(cudaErrorStreamCaptureUnmatched);
    NAME(cudaErrorStreamCaptureUnjoined);
    NAME(cudaErrorStreamCaptureIsolation);
    NAME(cudaErrorStreamCaptureImplicit);
    NAME(cudaErrorCapturedEvent);
    NAME(cudaErrorStreamCaptureWrongThread);
#undef NAME
    default: return "cudaErrorUnknown";
  }
}
extern "C" const char* cudaGetErrorString(cudaError_t error) {
  const char* text = nullptr;
  cuGetErrorString(static_cast<CUresult>(error), &text);
  return text;
}

// ---- devices -------------------------------------------------------------------------------------------------------------

CUDART cudaDriverGetVersion(int* version) { return translate(cuDriverGetVersion(version)); }
CUDART cudaRuntimeGetVersion(int* version) {
  *version = CUDART_VERSION;
  return cudaSuccess;
}
CUDART cudaGetDeviceCount(int* count) {
  if (const CUresult status = initialise()) return translate(status);
  return translate(cuDeviceGetCount(count));
}
CUDART cudaGetDevice(int* device) {
  *device = current_device();
  return cudaSuccess;
}
CUDART cudaSetDevice(int device) {
  if (const CUresult status = initialise()) return translate(status);
  CUcontext context = nullptr;
  if (const CUresult status = cuDevicePrimaryCtxRetain(&context, device)) return translate(status);
  chosen_device = device;
  return translate(cuCtxSetCurrent(context));
}
CUDART cudaDeviceSynchronize() {
  return with_context([] { return cuCtxSynchronize(); });
}
CUDART cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
  if (const CUresult status = initialise()) return translate(status);
  return translate(cuDeviceGetAttribute(value, static_cast<CUdevice_attribute>(attribute), device));
}
CUDART cudaDeviceGetPCIBusId(char* id, int length, int device) { return translate(cuDeviceGetPCIBusId(id, length, device)); }
CUDART cudaDeviceGetByPCIBusId(int* device, const char* id) { return translate(cuDeviceGetByPCIBusId(device, id)); }
CUDART cudaGetDeviceProperties(cudaDeviceProp* p, int device) {
  memset(p, 0, sizeof *p);
  if (const CUresult status = initialise()) return translate(status);
  if (const CUresult status = cuDeviceGetName(p->name, sizeof p->name, device)) return translate(status);
  cuDeviceGetUuid(reinterpret_cast<CUuuid*>(&p->uuid), device);
  cuDeviceTotalMem(&p->totalGlobalMem, device);
  const auto get = [device](CUdevice_attribute attribute) {
    int value = 0;
    cuDeviceGetAttribute(&value, attribute, device);
    return value;
  };
  p->major = get(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR);
  p->minor = get(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR);
  p->multiProcessorCount = get(CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT);
  p->warpSize = get(CU_DEVICE_ATTRIBUTE_WARP_SIZE);
  p->maxThreadsPerBlock = get(CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK);
  p->maxThreadsPerMultiProcessor = get(CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_MULTIPROCESSOR);
  p->maxBlocksPerMultiProcessor = get(CU_DEVICE_ATTRIBUTE_MAX_BLOCKS_PER_MULTIPROCESSOR);
  p->regsPerBlock = get(CU_DEVICE_ATTRIBUTE_MAX_REGISTERS_PER_BLOCK);
  p->regsPerMultiprocessor = get(CU_DEVICE_ATTRIBUTE_MAX_REGISTERS_PER_MULTIPROCESSOR);
  p->sharedMemPerBlock = static_cast<size_t>(get(CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK));
  p->sharedMemPerBlockOptin = static_cast<size_t>(get(CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN));
  p->sharedMemPerMultiprocessor = static_cast<size_t>(get(CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR));
  p->reservedSharedMemPerBlock = static_cast<size_t>(get(CU_DEVICE_ATTRIBUTE_RESERVED_SHARED_MEMORY_PER_BLOCK));
  p->totalConstMem = static_cast<size_t>(get(CU_DEVICE_ATTRIBUTE_TOTAL_CONSTANT_MEMORY));
  p->l2CacheSize = get(CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE);
  p->memoryBusWidth = get(CU_DEVICE_ATTRIBUTE_GLOBAL_MEMORY_BUS_WIDTH);
  p->asyncEngineCount = get(CU_DEVICE_ATTRIBUTE_ASYNC_ENGINE_COUNT);
  p->memPitch = static_cast<size_t>(get(CU_DEVICE_ATTRIBUTE_MAX_PITCH));
  p->textureAlignment = static_cast<size_t>(get(CU_DEVICE_ATTRIBUTE_TEXTURE_ALIGNMENT));
  p->pciBusID = get(CU_DEVICE_ATTRIBUTE_PCI_BUS_ID);
  p->managedMemory = get(CU_DEVICE_ATTRIBUTE_MANAGED_MEMORY);
  p->concurrentManagedAccess = get(CU_DEVICE_ATTRIBUTE_CONCURRENT_MANAGED_ACCESS);
  p->unifiedAddressing = get(CU_DEVICE_ATTRIBUTE_UNIFIED_ADDRESSING);
  p->concurrentKernels = get(CU_DEVICE_ATTRIBUTE_CONCURRENT_KERNELS);
  p->canMapHostMemory = get(CU_DEVICE_ATTRIBUTE_CAN_MAP_HOST_MEMORY);
  p->memoryPoolsSupported = get(CU_DEVICE_ATTRIBUTE_MEMORY_POOLS_SUPPORTED);
  p->streamPrioritiesSupported = get(CU_DEVICE_ATTRIBUTE_STREAM_PRIORITIES_SUPPORTED);
  p->clusterLaunch = get(CU_DEVICE_ATTRIBUTE_CLUSTER_LAUNCH);
  const CUdevice_attribute block[] = {CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_X, CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_Y,
                                      CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_Z};
  const CUdevice_attribute grid[] = {CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_X, CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_Y,
                                     CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_Z};
  for (int i = 0; i < 3; i++) p->maxThreadsDim[i] = get(block[i]), p->maxGridSize[i] = get(grid[i]);
  return cudaSuccess;
}

// ---- peer access and limits ----------------------------------------------------------------------------------------------

namespace {
template <class Change>
cudaError_t change_peer(int peer, Change change) {
  return with_context([&] {
    CUcontext context = nullptr;
    if (const CUresult status = cuDevicePrimaryCtxRetain(&context, peer)) return status;
    return change(context);
  });
}
}  // namespace

CUDART cudaDeviceCanAccessPeer(int* can, int device, int peer) { return translate(cuDeviceCanAccessPeer(can, device, peer)); }
CUDART cudaDeviceEnablePeerAccess(int peer, unsigned flags) {
  return change_peer(peer, [flags](CUcontext context) { return cuCtxEnablePeerAccess(context, flags); });
}
CUDART cudaDeviceDisablePeerAccess(int peer) {
  return change_peer(peer, [](CUcontext context) { return cuCtxDisablePeerAccess(context); });
}
CUDART cudaDeviceGetLimit(size_t* value, cudaLimit limit) {
  return with_context([=] { return cuCtxGetLimit(value, static_cast<CUlimit>(limit)); });
}
CUDART cudaDeviceSetLimit(cudaLimit limit, size_t value) {
  return with_context([=] { return cuCtxSetLimit(static_cast<CUlimit>(limit), value); });
}
extern "C" cudaError_t cudaProfilerStart() { return cudaSuccess; }
extern "C" cudaError_t cudaProfilerStop() { return cudaSuccess; }
