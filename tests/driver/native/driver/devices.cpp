// Devices, contexts and peer access.  The devices have the limits of an H200 (compute capability 9.0).
#include <stdio.h>
#include <string.h>

#include <algorithm>
#include <atomic>

#include "driver.h"

namespace driver {
namespace {
bool initialised = false;
std::atomic<uint64_t> last_id = 0;
thread_local std::vector<CUcontext> context_stack;

CUctx_st* make_context(int device) {
  auto* context = new CUctx_st{device};
  context->legacy.context = context;
  context->limits = {{CU_LIMIT_STACK_SIZE, 1024}, {CU_LIMIT_PRINTF_FIFO_SIZE, 1 << 20}, {CU_LIMIT_MALLOC_HEAP_SIZE, 8 << 20}};
  return context;
}
}  // namespace

bool is_initialised() { return initialised; }
uint64_t next_id() { return ++last_id; }
CUcontext current_context() { return context_stack.empty() ? nullptr : context_stack.back(); }

CUcontext primary_context(int device) {
  static CUctx_st* const contexts[kMaxDevices] = {make_context(0), make_context(1), make_context(2), make_context(3),
                                                  make_context(4), make_context(5), make_context(6), make_context(7)};
  return contexts[device];
}

namespace {
CUresult check_device(CUdevice device) {
  if (device >= 0 && device < settings.devices) return CUDA_SUCCESS;
  return fail(CUDA_ERROR_INVALID_DEVICE, "device %d of %d", device, settings.devices);
}
CUresult check_context(CUcontext context) {
  if (!context) return fail(CUDA_ERROR_INVALID_CONTEXT, "no context is current");
  return context->destroyed ? fail(CUDA_ERROR_CONTEXT_IS_DESTROYED, "the context of device %d", context->device) : CUDA_SUCCESS;
}

int attribute_of(CUdevice_attribute attribute, CUdevice device) {
  switch (attribute) {
    case CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK:
    case CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_X:
    case CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_Y: return 1024;
    case CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_Z: return 64;
    case CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_X:
    case CU_DEVICE_ATTRIBUTE_MAX_PITCH: return 0x7fffffff;
    case CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_Y:
    case CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_Z: return 65535;
    case CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK: return kStaticSharedLimit;
    case CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN: return kOptInSharedLimit;
    case CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR: return 233472;
    case CU_DEVICE_ATTRIBUTE_RESERVED_SHARED_MEMORY_PER_BLOCK: return 1024;
    case CU_DEVICE_ATTRIBUTE_TOTAL_CONSTANT_MEMORY:
    case CU_DEVICE_ATTRIBUTE_MAX_REGISTERS_PER_BLOCK:
    case CU_DEVICE_ATTRIBUTE_MAX_REGISTERS_PER_MULTIPROCESSOR: return 65536;
    case CU_DEVICE_ATTRIBUTE_WARP_SIZE:
    case CU_DEVICE_ATTRIBUTE_TEXTURE_PITCH_ALIGNMENT:
    case CU_DEVICE_ATTRIBUTE_MAX_BLOCKS_PER_MULTIPROCESSOR: return 32;
    case CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_MULTIPROCESSOR: return 2048;
    case CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT: return 132;
    case CU_DEVICE_ATTRIBUTE_CLOCK_RATE: return 1980000;
    case CU_DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE: return 2619000;
    case CU_DEVICE_ATTRIBUTE_GLOBAL_MEMORY_BUS_WIDTH: return 6144;
    case CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE: return 60 << 20;
    case CU_DEVICE_ATTRIBUTE_TEXTURE_ALIGNMENT: return 512;
    case CU_DEVICE_ATTRIBUTE_ASYNC_ENGINE_COUNT: return 3;
    case CU_DEVICE_ATTRIBUTE_PCI_BUS_ID: return device + 1;
    case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR: return 9;
    case CU_DEVICE_ATTRIBUTE_CAN_MAP_HOST_MEMORY:
    case CU_DEVICE_ATTRIBUTE_CONCURRENT_KERNELS:
    case CU_DEVICE_ATTRIBUTE_UNIFIED_ADDRESSING:
    case CU_DEVICE_ATTRIBUTE_STREAM_PRIORITIES_SUPPORTED:
    case CU_DEVICE_ATTRIBUTE_GLOBAL_L1_CACHE_SUPPORTED:
    case CU_DEVICE_ATTRIBUTE_LOCAL_L1_CACHE_SUPPORTED:
    case CU_DEVICE_ATTRIBUTE_MANAGED_MEMORY:
    case CU_DEVICE_ATTRIBUTE_CONCURRENT_MANAGED_ACCESS:
    case CU_DEVICE_ATTRIBUTE_COMPUTE_PREEMPTION_SUPPORTED:
    case CU_DEVICE_ATTRIBUTE_MEMORY_POOLS_SUPPORTED:
    case CU_DEVICE_ATTRIBUTE_CLUSTER_LAUNCH: return 1;
    default: return 0;
  }
}
}  // namespace
}  // namespace driver

using namespace driver;

// ---- devices -----------------------------------------------------------------------------------------------------------

API cuInit(unsigned flags) {
  const Call call(__func__);
  if (flags) return fail(CUDA_ERROR_INVALID_VALUE, "flags are %u, expected 0", flags);
  initialised = true;
  return CUDA_SUCCESS;
}
API cuDriverGetVersion(int* version) {
  *version = CUDA_VERSION / 10 * 10;
  return CUDA_SUCCESS;
}
API cuDeviceGetCount(int* count) {
  BEGIN_CALL;
  *count = settings.devices;
  return CUDA_SUCCESS;
}
API cuDeviceGet(CUdevice* device, int ordinal) {
  BEGIN_CALL;
  if (const CUresult status = check_device(ordinal)) return status;
  *device = ordinal;
  return CUDA_SUCCESS;
}
API cuDeviceGetName(char* name, int length, CUdevice device) {
  BEGIN_CALL;
  if (const CUresult status = check_device(device)) return status;
  snprintf(name, static_cast<size_t>(length), "gpunet stand-in (no GPU)");
  return CUDA_SUCCESS;
}
API cuDeviceGetUuid(CUuuid* uuid, CUdevice device) {
  BEGIN_CALL;
  if (const CUresult status = check_device(device)) return status;
  memcpy(uuid->bytes, "gpunet stand-in", 16);
  uuid->bytes[15] = static_cast<char>(device + 1);
  return CUDA_SUCCESS;
}
API cuDeviceTotalMem(size_t* bytes, CUdevice device) {
  BEGIN_CALL;
  if (const CUresult status = check_device(device)) return status;
  *bytes = settings.memory_bytes;
  return CUDA_SUCCESS;
}
API cuDeviceGetPCIBusId(char* id, int length, CUdevice device) {
  BEGIN_CALL;
  if (const CUresult status = check_device(device)) return status;
  snprintf(id, static_cast<size_t>(length), "0000:%02x:00.0", device + 1);
  return CUDA_SUCCESS;
}
API cuDeviceGetByPCIBusId(CUdevice* device, const char* id) {
  BEGIN_CALL;
  unsigned domain = 0, bus = 0;
  const int read = sscanf(id, "%x:%x", &domain, &bus);
  if (read == 1) bus = domain;
  if (read < 1 || bus < 1 || static_cast<int>(bus) > settings.devices)
    return fail(CUDA_ERROR_INVALID_DEVICE, "no device at %s", id);
  *device = static_cast<int>(bus) - 1;
  return CUDA_SUCCESS;
}
API cuDeviceGetAttribute(int* value, CUdevice_attribute attribute, CUdevice device) {
  BEGIN_CALL;
  if (const CUresult status = check_device(device)) return status;
  if (attribute <= 0 || attribute >= CU_DEVICE_ATTRIBUTE_MAX)
    return fail(CUDA_ERROR_INVALID_VALUE, "there is no device attribute %d", attribute);
  *value = attribute_of(attribute, device);
  return CUDA_SUCCESS;
}

// ---- peer access -------------------------------------------------------------------------------------------------------

API cuDeviceCanAccessPeer(int* can, CUdevice device, CUdevice peer) {
  BEGIN_CALL;
  if (const CUresult status = check_device(device)) return status;
  if (const CUresult status = check_device(peer)) return status;
  *can = settings.peers && device != peer;
  return CUDA_SUCCESS;
}
API cuCtxEnablePeerAccess(CUcontext peer, unsigned flags) {
  BEGIN_CALL;
  const CUcontext context = current_context();
  if (const CUresult status = check_context(context)) return status;
  if (const CUresult status = check_context(peer)) return status;
  if (flags) return fail(CUDA_ERROR_INVALID_VALUE, "flags are %u, expected 0", flags);
  if (!settings.peers || peer->device == context->device)
    return fail(CUDA_ERROR_PEER_ACCESS_UNSUPPORTED, "from device %d to device %d", context->device, peer->device);
  if (!context->peers.insert(peer->device).second)
    return fail(CUDA_ERROR_PEER_ACCESS_ALREADY_ENABLED, "from device %d to device %d", context->device, peer->device);
  return CUDA_SUCCESS;
}
API cuCtxDisablePeerAccess(CUcontext peer) {
  BEGIN_CALL;
  const CUcontext context = current_context();
  if (const CUresult status = check_context(context)) return status;
  if (const CUresult status = check_context(peer)) return status;
  if (!context->peers.erase(peer->device))
    return fail(CUDA_ERROR_PEER_ACCESS_NOT_ENABLED, "from device %d to device %d", context->device, peer->device);
  return CUDA_SUCCESS;
}

// ---- contexts ----------------------------------------------------------------------------------------------------------

API cuDevicePrimaryCtxRetain(CUcontext* context, CUdevice device) {
  const Call call(__func__);  // also from a device that is unusable
  if (!is_initialised()) return fail(CUDA_ERROR_NOT_INITIALIZED, "cuInit was not called");
  if (const CUresult status = check_device(device)) return status;
  *context = primary_context(device);
  (*context)->retained++;
  return CUDA_SUCCESS;
}
API cuDevicePrimaryCtxRelease(CUdevice device) {
  BEGIN_CALL;
  if (const CUresult status = check_device(device)) return status;
  if (!primary_context(device)->retained) return fail(CUDA_ERROR_INVALID_CONTEXT, "device %d has no primary context", device);
  primary_context(device)->retained--;
  return CUDA_SUCCESS;
}
API cuDevicePrimaryCtxGetState(CUdevice device, unsigned* flags, int* active) {
  BEGIN_CALL;
  if (const CUresult status = check_device(device)) return status;
  *flags = primary_context(device)->flags;
  *active = primary_context(device)->retained > 0;
  return CUDA_SUCCESS;
}
API cuCtxCreate(CUcontext* context, CUctxCreateParams*, unsigned flags, CUdevice device) {
  BEGIN_CALL;
  if (const CUresult status = check_device(device)) return status;
  *context = make_context(device);
  (*context)->flags = flags;
  context_stack.push_back(*context);
  return CUDA_SUCCESS;
}
#undef cuCtxCreate
API cuCtxCreate_v2(CUcontext* context, unsigned flags, CUdevice device) {
  return cuCtxCreate_v4(context, nullptr, flags, device);
}
API cuCtxDestroy(CUcontext context) {
  BEGIN_CALL;
  if (const CUresult status = check_context(context)) return status;
  context->destroyed = true;  // kept: streams and events still point to it
  std::erase(context_stack, context);
  return CUDA_SUCCESS;
}
API cuCtxGetCurrent(CUcontext* context) {
  *context = current_context();
  return CUDA_SUCCESS;
}
API cuCtxSetCurrent(CUcontext context) {
  const Call call(__func__);
  if (context && context->destroyed) return check_context(context);
  if (!context_stack.empty()) context_stack.pop_back();
  if (context) context_stack.push_back(context);
  return CUDA_SUCCESS;
}
API cuCtxPushCurrent(CUcontext context) {
  const Call call(__func__);
  if (const CUresult status = check_context(context)) return status;
  context_stack.push_back(context);
  return CUDA_SUCCESS;
}
API cuCtxPopCurrent(CUcontext* context) {
  const Call call(__func__);
  if (context_stack.empty()) return check_context(nullptr);
  if (context) *context = context_stack.back();
  context_stack.pop_back();
  return CUDA_SUCCESS;
}
API cuCtxGetDevice(CUdevice* device) {
  const Call call(__func__);
  if (const CUresult status = check_context(current_context())) return status;
  *device = current_context()->device;
  return CUDA_SUCCESS;
}
API cuCtxGetFlags(unsigned* flags) {
  const Call call(__func__);
  if (const CUresult status = check_context(current_context())) return status;
  *flags = current_context()->flags;
  return CUDA_SUCCESS;
}
API cuCtxGetApiVersion(CUcontext, unsigned* version) {
  *version = CUDA_VERSION / 10 * 10;
  return CUDA_SUCCESS;
}
API cuCtxGetStreamPriorityRange(int* least, int* greatest) {
  if (least) *least = 0;
  if (greatest) *greatest = -5;
  return CUDA_SUCCESS;
}
API cuCtxGetLimit(size_t* value, CUlimit limit) {
  BEGIN_CALL;
  if (const CUresult status = check_context(current_context())) return status;
  *value = current_context()->limits[limit];
  return CUDA_SUCCESS;
}
API cuCtxSetLimit(CUlimit limit, size_t value) {
  BEGIN_CALL;
  if (const CUresult status = check_context(current_context())) return status;
  current_context()->limits[limit] = value;
  return CUDA_SUCCESS;
}
API cuCtxSynchronize() {
  BEGIN_CALL;
  if (const CUresult status = check_context(current_context())) return status;
  {
    const Lock lock(state_lock);
    for (Capture* capture : captures)
      if (capture->origin->context == current_context())
        return invalidate(capture, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, "a stream of device %d is being captured",
                          current_context()->device);
  }
  return run_queues(current_context());
}
API cuModuleGetLoadingMode(CUmoduleLoadingMode* mode) {
  *mode = CU_MODULE_LAZY_LOADING;
  return CUDA_SUCCESS;
}

// Private tables of NVIDIA's driver.  The stand-in implements documented functions only: it has none of them.  NVIDIA's NVRTC
// asks for one, and works without; NVIDIA's own runtime does not.
API cuGetExportTable(const void** table, const CUuuid*) {
  *table = nullptr;
  return CUDA_ERROR_NOT_FOUND;
}
