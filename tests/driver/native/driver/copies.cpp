// memcpy and memset.
#include <string.h>

#include <algorithm>

#include "driver.h"

namespace driver {
namespace {

bool captures(CUstream handle) {
  const CUstream stream = resolve(handle);
  return stream && stream->capture;
}

CUresult check_pointers(uintptr_t to, uintptr_t from, size_t bytes, bool to_device, bool from_device) {
  const Lock lock(state_lock);
  if (to_device || !is_host_memory(to))
    if (const CUresult status = check_range("destination", to, bytes)) return status;
  if (from_device || !is_host_memory(from))
    if (const CUresult status = check_range("source", from, bytes)) return status;
  if (bytes && (!to || !from)) return fail(CUDA_ERROR_INVALID_VALUE, "%zu bytes from or to a null pointer", bytes);
  return CUDA_SUCCESS;
}

// A copy from pageable host memory reads it before the call returns, and one to pageable memory is done when it returns.
CUresult copy(uintptr_t to, uintptr_t from, size_t bytes, bool to_device, bool from_device, CUstream stream) {
  if (const CUresult status = check_pointers(to, from, bytes, to_device, from_device)) return status;
  bool waits = false, reads_now = false;
  if (!captures(stream)) {
    const Lock lock(state_lock);
    waits = is_host_memory(to);
    reads_now = settings.lazy && is_host_memory(from) && !waits;
  }
  std::shared_ptr<std::string> staged;
  if (reads_now) staged = std::make_shared<std::string>(reinterpret_cast<const char*>(from), bytes);
  const std::string name = "the copy of " + std::to_string(bytes) + " bytes";
  const CUresult status = enqueue(stream, {CU_GRAPH_NODE_TYPE_MEMCPY, name, [=] {
                                             memmove(reinterpret_cast<void*>(to),
                                                     staged ? staged->data() : reinterpret_cast<const char*>(from), bytes);
                                             return CUDA_SUCCESS;
                                           }});
  return status || !waits ? status : run_queue(resolve(stream));
}

CUresult copy_now(uintptr_t to, uintptr_t from, size_t bytes, bool to_device, bool from_device) {
  if (const CUresult status = check_unsafe_call()) return status;
  if (const CUresult status = copy(to, from, bytes, to_device, from_device, nullptr)) return status;
  return run_queue(resolve(nullptr));
}

template <class T>
CUresult fill(CUdeviceptr to, T value, size_t count, CUstream stream) {
  if (to % sizeof(T)) return fail(CUDA_ERROR_INVALID_VALUE, "the destination %#llx is not a multiple of %zu", to, sizeof(T));
  if (const CUresult status = check_range("destination", to, count * sizeof(T))) return status;
  const std::string name = "the memset of " + std::to_string(count * sizeof(T)) + " bytes";
  return enqueue(stream, {CU_GRAPH_NODE_TYPE_MEMSET, name, [=] {
                            std::fill_n(reinterpret_cast<T*>(to), count, value);
                            return CUDA_SUCCESS;
                          }});
}

struct Plane {  // one side of a copy of rows
  uintptr_t begin;
  size_t pitch;
  bool on_device;
};

Plane plane_of(CUmemorytype type, const void* host, CUdeviceptr device, size_t pitch, size_t x, size_t y) {
  const uintptr_t base = type == CU_MEMORYTYPE_HOST ? reinterpret_cast<uintptr_t>(host) : device;
  return {base + y * pitch + x, pitch, type == CU_MEMORYTYPE_DEVICE};
}

CUresult copy_rows(const CUDA_MEMCPY2D& rows, CUstream stream, bool now) {
  if (rows.srcMemoryType == CU_MEMORYTYPE_ARRAY || rows.dstMemoryType == CU_MEMORYTYPE_ARRAY)
    return fail(CUDA_ERROR_NOT_SUPPORTED, "CUDA arrays");
  if (!rows.WidthInBytes || !rows.Height) return CUDA_SUCCESS;
  const Plane to = plane_of(rows.dstMemoryType, rows.dstHost, rows.dstDevice, rows.dstPitch, rows.dstXInBytes, rows.dstY);
  const Plane from = plane_of(rows.srcMemoryType, rows.srcHost, rows.srcDevice, rows.srcPitch, rows.srcXInBytes, rows.srcY);
  const size_t width = rows.WidthInBytes, height = rows.Height;
  if (height > 1 && (to.pitch < width || from.pitch < width))
    return fail(CUDA_ERROR_INVALID_VALUE, "rows of %zu bytes with pitches of %zu and %zu", width, to.pitch, from.pitch);
  {
    const Lock lock(state_lock);
    if (to.on_device || !is_host_memory(to.begin))
      if (const CUresult status = check_range("destination", to.begin, (height - 1) * to.pitch + width)) return status;
    if (from.on_device || !is_host_memory(from.begin))
      if (const CUresult status = check_range("source", from.begin, (height - 1) * from.pitch + width)) return status;
  }
  const std::string name = "the copy of " + std::to_string(height) + " rows of " + std::to_string(width) + " bytes";
  const CUresult status = enqueue(stream, {CU_GRAPH_NODE_TYPE_MEMCPY, name, [=] {
                                             for (size_t row = 0; row < height; row++)
                                               memmove(reinterpret_cast<char*>(to.begin) + row * to.pitch,
                                                       reinterpret_cast<const char*>(from.begin) + row * from.pitch, width);
                                             return CUDA_SUCCESS;
                                           }});
  const bool waits = now || (!captures(stream) && (is_host_memory(to.begin) || is_host_memory(from.begin)));
  return status || !waits ? status : run_queue(resolve(stream));
}

uintptr_t number(const void* pointer) { return reinterpret_cast<uintptr_t>(pointer); }
}  // namespace
}  // namespace driver

using namespace driver;

API cuMemcpy(CUdeviceptr to, CUdeviceptr from, size_t bytes) {
  BEGIN_CALL;
  return copy_now(to, from, bytes, false, false);
}
API cuMemcpyHtoD(CUdeviceptr to, const void* from, size_t bytes) {
  BEGIN_CALL;
  return copy_now(to, number(from), bytes, true, false);
}
API cuMemcpyDtoH(void* to, CUdeviceptr from, size_t bytes) {
  BEGIN_CALL;
  return copy_now(number(to), from, bytes, false, true);
}
API cuMemcpyDtoD(CUdeviceptr to, CUdeviceptr from, size_t bytes) {
  BEGIN_CALL;
  return copy(to, from, bytes, true, true, nullptr);
}
API cuMemcpyPeer(CUdeviceptr to, CUcontext, CUdeviceptr from, CUcontext, size_t bytes) {
  BEGIN_CALL;
  return copy_now(to, from, bytes, true, true);
}
API cuMemcpyAsync(CUdeviceptr to, CUdeviceptr from, size_t bytes, CUstream stream) {
  BEGIN_CALL;
  return copy(to, from, bytes, false, false, stream);
}
API cuMemcpyHtoDAsync(CUdeviceptr to, const void* from, size_t bytes, CUstream stream) {
  BEGIN_CALL;
  return copy(to, number(from), bytes, true, false, stream);
}
API cuMemcpyDtoHAsync(void* to, CUdeviceptr from, size_t bytes, CUstream stream) {
  BEGIN_CALL;
  return copy(number(to), from, bytes, false, true, stream);
}
API cuMemcpyDtoDAsync(CUdeviceptr to, CUdeviceptr from, size_t bytes, CUstream stream) {
  BEGIN_CALL;
  return copy(to, from, bytes, true, true, stream);
}
API cuMemcpyPeerAsync(CUdeviceptr to, CUcontext, CUdeviceptr from, CUcontext, size_t bytes, CUstream stream) {
  BEGIN_CALL;
  return copy(to, from, bytes, true, true, stream);
}
API cuMemcpy2DUnaligned(const CUDA_MEMCPY2D* rows) {
  BEGIN_CALL;
  if (const CUresult status = check_unsafe_call()) return status;
  return copy_rows(*rows, nullptr, true);
}
API cuMemcpy2DAsync(const CUDA_MEMCPY2D* rows, CUstream stream) {
  BEGIN_CALL;
  return copy_rows(*rows, stream, false);
}
API cuMemsetD8(CUdeviceptr to, unsigned char value, size_t count) {
  BEGIN_CALL;
  return fill(to, value, count, nullptr);
}
API cuMemsetD16(CUdeviceptr to, unsigned short value, size_t count) {
  BEGIN_CALL;
  return fill(to, value, count, nullptr);
}
API cuMemsetD32(CUdeviceptr to, unsigned value, size_t count) {
  BEGIN_CALL;
  return fill(to, value, count, nullptr);
}
API cuMemsetD8Async(CUdeviceptr to, unsigned char value, size_t count, CUstream stream) {
  BEGIN_CALL;
  return fill(to, value, count, stream);
}
API cuMemsetD16Async(CUdeviceptr to, unsigned short value, size_t count, CUstream stream) {
  BEGIN_CALL;
  return fill(to, value, count, stream);
}
API cuMemsetD32Async(CUdeviceptr to, unsigned value, size_t count, CUstream stream) {
  BEGIN_CALL;
  return fill(to, value, count, stream);
}
