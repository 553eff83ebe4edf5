// Allocations, memory pools, pointer attributes.
#include <stdio.h>

#include <algorithm>

#include "driver.h"

struct CUmemPoolHandle_st {  // of stream-ordered memory
  int device;
  uint64_t release_threshold = 0;
  size_t used = 0, reserved = 0;  // bytes: of its allocations, and that it has of the device
  bool destroyed = false;
};

namespace driver {
namespace {

std::map<uintptr_t, Allocation> allocations;  // by begin
std::map<uintptr_t, Allocation> freed;
size_t used_bytes[kMaxDevices];  // of each device, what pools reserve included
constexpr size_t kPoolUnit = 32 << 20;  // a pool reserves multiples of it

// Lets a pool reserve as much as its allocations need, at least `least` bytes; false if the device has not that much.
bool reserve(CUmemoryPool pool, size_t least) {
  const size_t wanted = (std::max(pool->used, least) + kPoolUnit - 1) / kPoolUnit * kPoolUnit;
  const size_t others = used_bytes[pool->device] - pool->reserved;
  if (others + wanted > settings.memory_bytes) return false;
  used_bytes[pool->device] = others + wanted;
  pool->reserved = wanted;
  return true;
}

std::string title(const Allocation& allocation) {
  char text[256];
  switch (allocation.kind) {
    case Kind::device:
      snprintf(text, sizeof text, "an allocation of %zu bytes on device %d", allocation.bytes,
               allocation.context->device);
      break;
    case Kind::managed: snprintf(text, sizeof text, "a managed allocation of %zu bytes", allocation.bytes); break;
    case Kind::host: snprintf(text, sizeof text, "a pinned host allocation of %zu bytes", allocation.bytes); break;
    case Kind::registered: snprintf(text, sizeof text, "registered host memory of %zu bytes", allocation.bytes); break;
    case Kind::variable:
      snprintf(text, sizeof text, "the variable %s of %zu bytes", allocation.name.c_str(), allocation.bytes);
      break;
  }
  return text;
}

CUresult need_context() { return current_context() ? CUDA_SUCCESS : fail(CUDA_ERROR_INVALID_CONTEXT, "no context is current"); }
}  // namespace

const Allocation* find_allocation(uintptr_t address) {
  auto after = allocations.upper_bound(address);
  if (after == allocations.begin()) return nullptr;
  const Allocation& found = (--after)->second;
  return address < found.begin + found.bytes ? &found : nullptr;
}

bool is_host_memory(uintptr_t address) { return !find_allocation(address); }

std::string describe_address(uintptr_t address) {
  const Lock lock(state_lock);
  char text[512];
  auto old = freed.upper_bound(address);
  if (old != freed.begin() && address < (--old)->first + old->second.bytes) {
    snprintf(text, sizeof text, "byte %zu of %s that was freed", static_cast<size_t>(address - old->first),
             title(old->second).c_str());
    return text;
  }
  if (const Allocation* found = find_allocation(address)) {
    snprintf(text, sizeof text, "byte %zu of %s", static_cast<size_t>(address - found->begin), title(*found).c_str());
    return text;
  }
  auto after = allocations.upper_bound(address);
  if (after != allocations.begin()) {
    const Allocation& before = std::prev(after)->second;
    const size_t distance = address - before.begin - before.bytes;
    if (distance < kGap) {
      snprintf(text, sizeof text, "%zu bytes past the end of %s", distance, title(before).c_str());
      return text;
    }
  }
  if (after != allocations.end() && after->first - address < kGap) {
    snprintf(text, sizeof text, "%zu bytes before %s", static_cast<size_t>(after->first - address),
             title(after->second).c_str());
    return text;
  }
  return address < 4096 ? "a null pointer" : "no memory of a device";
}

bool is_accessible(const Allocation& allocation, CUcontext context) {
  return (allocation.kind != Kind::device && allocation.kind != Kind::variable) || allocation.context == context ||
         allocation.context->device == context->device || context->peers.count(allocation.context->device);
}

CUresult check_range(const char* role, uintptr_t address, size_t bytes) {
  if (!bytes) return CUDA_SUCCESS;
  const Lock lock(state_lock);
  const Allocation* found = find_allocation(address);
  if (!found) return fail(CUDA_ERROR_INVALID_VALUE, "the %s %#zx is %s", role, address, describe_address(address).c_str());
  if (address + bytes <= found->begin + found->bytes) return CUDA_SUCCESS;
  return fail(CUDA_ERROR_INVALID_VALUE, "the %zu bytes of the %s begin at byte %zu of %s", bytes, role,
              static_cast<size_t>(address - found->begin), title(*found).c_str());
}

CUresult allocate(uintptr_t* address, size_t bytes, Kind kind, CUmemoryPool pool) {
  if (const CUresult status = need_context()) return status;
  if (!bytes) return fail(CUDA_ERROR_INVALID_VALUE, "0 bytes");
  const Lock lock(state_lock);
  const CUcontext context = pool ? primary_context(pool->device) : current_context();
  const int device = context->device;
  const size_t left = settings.memory_bytes - used_bytes[device] + (pool ? pool->reserved - pool->used : 0);
  if (kind == Kind::device &&
      (bytes > left || (pool && pool->used + bytes > pool->reserved && !reserve(pool, pool->used + bytes))))
    return fail(CUDA_ERROR_OUT_OF_MEMORY, "%zu bytes, and device %d has %zu left", bytes, device, left);
  const uintptr_t begin = take_memory(kind, device, bytes);
  if (!begin) return fail(CUDA_ERROR_OUT_OF_MEMORY, "%zu bytes, which the host does not give", bytes);
  poison(reinterpret_cast<void*>(begin), bytes);
  allocations[begin] = {begin, bytes, kind, context, next_id(), "", pool};
  if (pool)
    pool->used += bytes;
  else if (kind == Kind::device)
    used_bytes[device] += bytes;
  *address = begin;
  return CUDA_SUCCESS;
}

CUresult release(uintptr_t address) {
  if (!address) return CUDA_SUCCESS;
  const Lock lock(state_lock);
  auto found = allocations.find(address);
  if (found == allocations.end() || found->second.kind >= Kind::registered)
    return fail(CUDA_ERROR_INVALID_VALUE, "%#zx is %s; expected the begin of an allocation", address,
                describe_address(address).c_str());
  const Allocation allocation = found->second;
  if (allocation.pool)
    allocation.pool->used -= allocation.bytes;
  else if (allocation.kind == Kind::device)
    used_bytes[allocation.context->device] -= allocation.bytes;
  give_back_memory(address, allocation.bytes);
  freed[address] = allocation;
  allocations.erase(found);
  return CUDA_SUCCESS;
}

void add_variable(uintptr_t address, size_t bytes, CUcontext context, const std::string& name) {
  const Lock lock(state_lock);
  allocations[address] = {address, bytes, Kind::variable, context, next_id(), name, nullptr};
}
void remove_variable(uintptr_t address) {
  const Lock lock(state_lock);
  allocations.erase(address);
}

}  // namespace driver

using namespace driver;

// ---- allocation --------------------------------------------------------------------------------------------------------

namespace driver {
namespace {
CUresult check_free(uintptr_t address, bool host) {
  const Lock lock(state_lock);
  const Allocation* found = find_allocation(address);
  if (!host && found && found->kind == Kind::host)
    return fail(CUDA_ERROR_INVALID_VALUE, "%s: use cuMemFreeHost", title(*found).c_str());
  if (host && (!found || found->kind != Kind::host))
    return fail(CUDA_ERROR_INVALID_VALUE, "%#zx is %s; expected pinned host memory", address, describe_address(address).c_str());
  return CUDA_SUCCESS;
}

// Waits for the device that the memory belongs to, whichever is the current one.
CUresult release_when_idle(uintptr_t address) {
  CUcontext owner = nullptr;
  {
    const Lock lock(state_lock);
    if (const Allocation* found = find_allocation(address)) owner = found->context;
  }
  if (owner)
    if (const CUresult status = run_queues(owner)) return status;
  return release(address);
}
}  // namespace
}  // namespace driver

API cuMemGetInfo(size_t* left, size_t* total) {
  BEGIN_CALL;
  if (const CUresult status = need_context()) return status;
  const Lock lock(state_lock);
  *total = settings.memory_bytes;
  *left = settings.memory_bytes - used_bytes[current_context()->device];
  return CUDA_SUCCESS;
}
API cuMemAlloc(CUdeviceptr* address, size_t bytes) {
  BEGIN_CALL;
  if (const CUresult status = check_unsafe_call()) return status;
  return allocate(reinterpret_cast<uintptr_t*>(address), bytes, Kind::device);
}
API cuMemAllocManaged(CUdeviceptr* address, size_t bytes, unsigned flags) {
  BEGIN_CALL;
  if (const CUresult status = check_unsafe_call()) return status;
  if (flags != CU_MEM_ATTACH_GLOBAL && flags != CU_MEM_ATTACH_HOST)
    return fail(CUDA_ERROR_INVALID_VALUE, "flags are %u; expected CU_MEM_ATTACH_GLOBAL or CU_MEM_ATTACH_HOST", flags);
  return allocate(reinterpret_cast<uintptr_t*>(address), bytes, Kind::managed);
}
API cuMemFree(CUdeviceptr address) {
  BEGIN_CALL;
  if (const CUresult status = check_unsafe_call()) return status;
  if (!address) return CUDA_SUCCESS;
  if (const CUresult status = check_free(address, false)) return status;
  return release_when_idle(address);
}
API cuMemHostAlloc(void** address, size_t bytes, unsigned) {
  BEGIN_CALL;
  if (const CUresult status = check_unsafe_call()) return status;
  return allocate(reinterpret_cast<uintptr_t*>(address), bytes, Kind::host);
}
API cuMemAllocHost(void** address, size_t bytes) { return cuMemHostAlloc(address, bytes, 0); }
API cuMemFreeHost(void* address) {
  BEGIN_CALL;
  if (!address) return CUDA_SUCCESS;
  const auto begin = reinterpret_cast<uintptr_t>(address);
  if (const CUresult status = check_free(begin, true)) return status;
  return release_when_idle(begin);
}
API cuMemHostRegister(void* address, size_t bytes, unsigned) {
  BEGIN_CALL;
  if (const CUresult status = need_context()) return status;
  if (!address || !bytes) return fail(CUDA_ERROR_INVALID_VALUE, "%zu bytes at %p", bytes, address);
  const Lock lock(state_lock);
  const auto begin = reinterpret_cast<uintptr_t>(address);
  auto after = allocations.lower_bound(begin);
  if (find_allocation(begin) || (after != allocations.end() && after->first < begin + bytes))
    return fail(CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED, "%zu bytes at %p", bytes, address);
  allocations[begin] = {begin, bytes, Kind::registered, current_context(), next_id(), "", nullptr};
  return CUDA_SUCCESS;
}
API cuMemHostUnregister(void* address) {
  BEGIN_CALL;
  const Lock lock(state_lock);
  auto found = allocations.find(reinterpret_cast<uintptr_t>(address));
  if (found == allocations.end() || found->second.kind != Kind::registered)
    return fail(CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED, "%p", address);
  allocations.erase(found);
  return CUDA_SUCCESS;
}
API cuMemHostGetDevicePointer(CUdeviceptr* device, void* host, unsigned) {
  BEGIN_CALL;
  *device = reinterpret_cast<CUdeviceptr>(host);
  return check_range("host pointer", *device, 1);
}
namespace driver {
namespace {
CUresult check_managed(CUdeviceptr address, size_t bytes, CUmemLocation location) {
  if (const CUresult status = check_range("range", address, bytes)) return status;
  const Lock lock(state_lock);
  if (find_allocation(address)->kind != Kind::managed)
    return fail(CUDA_ERROR_INVALID_VALUE, "%s: expected managed memory", title(*find_allocation(address)).c_str());
  if (location.type == CU_MEM_LOCATION_TYPE_DEVICE && (location.id < 0 || location.id >= settings.devices))
    return fail(CUDA_ERROR_INVALID_DEVICE, "device %d of %d", location.id, settings.devices);
  return CUDA_SUCCESS;
}
}  // namespace
}  // namespace driver

API cuMemPrefetchAsync(CUdeviceptr address, size_t bytes, CUmemLocation location, unsigned, CUstream) {
  BEGIN_CALL;
  return check_managed(address, bytes, location);
}
API cuMemAdvise(CUdeviceptr address, size_t bytes, CUmem_advise advice, CUmemLocation location) {
  BEGIN_CALL;
  if (advice < CU_MEM_ADVISE_SET_READ_MOSTLY || advice > CU_MEM_ADVISE_UNSET_ACCESSED_BY)
    return fail(CUDA_ERROR_INVALID_VALUE, "there is no advice %d", advice);
  return check_managed(address, bytes, location);
}

// ---- pointers ----------------------------------------------------------------------------------------------------------

API cuMemGetAddressRange(CUdeviceptr* base, size_t* bytes, CUdeviceptr address) {
  BEGIN_CALL;
  const Lock lock(state_lock);
  const Allocation* found = find_allocation(address);
  if (!found) return fail(CUDA_ERROR_NOT_FOUND, "%#llx is %s", address, describe_address(address).c_str());
  if (base) *base = found->begin;
  if (bytes) *bytes = found->bytes;
  return CUDA_SUCCESS;
}
API cuPointerGetAttribute(void* data, CUpointer_attribute attribute, CUdeviceptr address) {
  BEGIN_CALL;
  const Lock lock(state_lock);
  const Allocation* found = find_allocation(address);
  if (!found) return fail(CUDA_ERROR_INVALID_VALUE, "%#llx is %s", address, describe_address(address).c_str());
  const bool host = found->kind == Kind::host || found->kind == Kind::registered;
  switch (attribute) {
    case CU_POINTER_ATTRIBUTE_CONTEXT: *static_cast<CUcontext*>(data) = found->context; break;
    case CU_POINTER_ATTRIBUTE_MEMORY_TYPE:
      *static_cast<unsigned*>(data) = host ? CU_MEMORYTYPE_HOST : CU_MEMORYTYPE_DEVICE;
      break;
    case CU_POINTER_ATTRIBUTE_DEVICE_POINTER: *static_cast<CUdeviceptr*>(data) = address; break;
    case CU_POINTER_ATTRIBUTE_HOST_POINTER:
      *static_cast<CUdeviceptr*>(data) = host || found->kind == Kind::managed ? address : 0;
      break;
    case CU_POINTER_ATTRIBUTE_BUFFER_ID: *static_cast<unsigned long long*>(data) = found->id; break;
    case CU_POINTER_ATTRIBUTE_IS_MANAGED: *static_cast<unsigned*>(data) = found->kind == Kind::managed; break;
    case CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL: *static_cast<int*>(data) = found->context->device; break;
    case CU_POINTER_ATTRIBUTE_RANGE_START_ADDR: *static_cast<CUdeviceptr*>(data) = found->begin; break;
    case CU_POINTER_ATTRIBUTE_RANGE_SIZE: *static_cast<size_t*>(data) = found->bytes; break;
    default: return fail(CUDA_ERROR_NOT_SUPPORTED, "attribute %d", attribute);
  }
  return CUDA_SUCCESS;
}

// ---- pools of stream-ordered memory ------------------------------------------------------------------------------------

namespace driver {
namespace {
CUmemPoolHandle_st default_pools[kMaxDevices] = {{0}, {1}, {2}, {3}, {4}, {5}, {6}, {7}};
CUmemoryPool current_pools[kMaxDevices] = {};

CUmemoryPool& current_pool(int device) {
  if (!current_pools[device]) current_pools[device] = &default_pools[device];
  return current_pools[device];
}
CUresult check_pool(CUmemoryPool handle) {
  return handle && !handle->destroyed ? CUDA_SUCCESS
                                      : fail(CUDA_ERROR_INVALID_VALUE, "%p is no memory pool", static_cast<void*>(handle));
}
CUresult check_ordinal(CUdevice device) {
  return device >= 0 && device < settings.devices
             ? CUDA_SUCCESS
             : fail(CUDA_ERROR_INVALID_DEVICE, "device %d of %d", device, settings.devices);
}
}  // namespace
}  // namespace driver

API cuDeviceGetDefaultMemPool(CUmemoryPool* pool, CUdevice device) {
  BEGIN_CALL;
  if (const CUresult status = check_ordinal(device)) return status;
  *pool = &default_pools[device];
  return CUDA_SUCCESS;
}
API cuDeviceGetMemPool(CUmemoryPool* pool, CUdevice device) {
  BEGIN_CALL;
  if (const CUresult status = check_ordinal(device)) return status;
  *pool = current_pool(device);
  return CUDA_SUCCESS;
}
API cuDeviceSetMemPool(CUdevice device, CUmemoryPool pool) {
  BEGIN_CALL;
  if (const CUresult status = check_ordinal(device)) return status;
  if (const CUresult status = check_pool(pool)) return status;
  current_pool(device) = pool;
  return CUDA_SUCCESS;
}
API cuMemPoolCreate(CUmemoryPool* pool, const CUmemPoolProps* properties) {
  BEGIN_CALL;
  if (const CUresult status = check_ordinal(properties->location.id)) return status;
  *pool = new CUmemPoolHandle_st{properties->location.id};
  return CUDA_SUCCESS;
}
API cuMemPoolDestroy(CUmemoryPool pool) {
  BEGIN_CALL;
  if (const CUresult status = check_pool(pool)) return status;
  if (pool == &default_pools[pool->device]) return fail(CUDA_ERROR_INVALID_VALUE, "a default pool");
  pool->destroyed = true;
  if (current_pool(pool->device) == pool) current_pool(pool->device) = &default_pools[pool->device];
  return CUDA_SUCCESS;
}
API cuMemPoolTrimTo(CUmemoryPool pool, size_t least) {
  BEGIN_CALL;
  if (const CUresult status = check_pool(pool)) return status;
  const Lock lock(state_lock);
  reserve(pool, std::min(least, pool->reserved));
  return CUDA_SUCCESS;
}
API cuMemPoolSetAttribute(CUmemoryPool pool, CUmemPool_attribute attribute, void* value) {
  BEGIN_CALL;
  if (const CUresult status = check_pool(pool)) return status;
  if (attribute == CU_MEMPOOL_ATTR_RELEASE_THRESHOLD) pool->release_threshold = *static_cast<cuuint64_t*>(value);
  return CUDA_SUCCESS;
}
API cuMemPoolGetAttribute(CUmemoryPool pool, CUmemPool_attribute attribute, void* value) {
  BEGIN_CALL;
  if (const CUresult status = check_pool(pool)) return status;
  switch (attribute) {
    case CU_MEMPOOL_ATTR_REUSE_FOLLOW_EVENT_DEPENDENCIES:
    case CU_MEMPOOL_ATTR_REUSE_ALLOW_OPPORTUNISTIC:
    case CU_MEMPOOL_ATTR_REUSE_ALLOW_INTERNAL_DEPENDENCIES: *static_cast<int*>(value) = 1; break;
    case CU_MEMPOOL_ATTR_RELEASE_THRESHOLD: *static_cast<cuuint64_t*>(value) = pool->release_threshold; break;
    case CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT:
    case CU_MEMPOOL_ATTR_RESERVED_MEM_HIGH: *static_cast<cuuint64_t*>(value) = pool->reserved; break;
    default: *static_cast<cuuint64_t*>(value) = pool->used;
  }
  return CUDA_SUCCESS;
}
namespace driver {
namespace {
// Memory of a captured graph keeps its address as long as the process runs: a launch of the graph gives it back as new.
CUresult allocate_on_stream(CUdeviceptr* address, size_t bytes, CUmemoryPool pool, CUstream handle) {
  const CUstream stream = resolve(handle);
  if (!stream) return fail(CUDA_ERROR_INVALID_HANDLE, "%p is no stream", static_cast<void*>(handle));
  if (const CUresult status = allocate(reinterpret_cast<uintptr_t*>(address), bytes, Kind::device,
                                       pool ? pool : current_pool(stream->context->device)))
    return status;
  if (!stream->capture) return CUDA_SUCCESS;
  return enqueue(handle, {CU_GRAPH_NODE_TYPE_MEM_ALLOC, "cuMemAllocAsync", [begin = *address, bytes] {
                            poison(reinterpret_cast<void*>(begin), bytes);
                            return CUDA_SUCCESS;
                          }});
}
}  // namespace
}  // namespace driver

API cuMemAllocAsync(CUdeviceptr* address, size_t bytes, CUstream stream) {
  BEGIN_CALL;
  return allocate_on_stream(address, bytes, nullptr, stream);
}
API cuMemAllocFromPoolAsync(CUdeviceptr* address, size_t bytes, CUmemoryPool pool, CUstream stream) {
  BEGIN_CALL;
  if (const CUresult status = check_pool(pool)) return status;
  return allocate_on_stream(address, bytes, pool, stream);
}
API cuMemFreeAsync(CUdeviceptr address, CUstream handle) {
  BEGIN_CALL;
  const CUstream stream = resolve(handle);
  if (!stream) return fail(CUDA_ERROR_INVALID_HANDLE, "%p is no stream", static_cast<void*>(handle));
  if (!address) return CUDA_SUCCESS;
  if (const CUresult status = check_range("pointer", address, 1)) return status;
  size_t bytes = 0;
  {
    const Lock lock(state_lock);
    const Allocation* found = find_allocation(address);
    if (found->begin != address || found->kind != Kind::device)
      return fail(CUDA_ERROR_INVALID_VALUE, "%#llx is %s; expected the begin of an allocation", address,
                  describe_address(address).c_str());
    bytes = found->bytes;
  }
  if (stream->capture)
    return enqueue(handle, {CU_GRAPH_NODE_TYPE_MEM_FREE, "cuMemFreeAsync", [address, bytes] {
                              poison(reinterpret_cast<void*>(address), bytes);
                              return CUDA_SUCCESS;
                            }});
  return enqueue(handle, {CU_GRAPH_NODE_TYPE_MEM_FREE, "cuMemFreeAsync", [address] { return release(address); }});
}
