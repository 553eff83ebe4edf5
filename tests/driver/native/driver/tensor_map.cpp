// Tensor maps.  A map is opaque to everyone but the hardware; here it is what gpunet's emulator reads (TensorMap in
// gpunet/emulator/bulk.cpp).
#include <string.h>

#include "driver.h"

using namespace driver;

namespace {
struct EmulatedMap {
  uint64_t magic = 0x70614D726F736E65, address = 0, sizes[5] = {}, strides[5] = {};
  uint32_t element_bytes = 0, rank = 0, swizzle = 0;
  uint16_t box[5] = {}, tf32 = 0;
};
static_assert(offsetof(EmulatedMap, box) == 108 && offsetof(EmulatedMap, tf32) == 118);

constexpr uint32_t kElementBytes[] = {1, 2, 4, 4, 8, 8, 2, 4, 8, 2, 4, 4, 4};  // by CUtensorMapDataType
}  // namespace

API cuTensorMapEncodeTiled(CUtensorMap* map, CUtensorMapDataType type, cuuint32_t rank, void* address, const cuuint64_t* sizes,
                           const cuuint64_t* strides, const cuuint32_t* box, const cuuint32_t* element_strides,
                           CUtensorMapInterleave interleave, CUtensorMapSwizzle swizzle, CUtensorMapL2promotion,
                           CUtensorMapFloatOOBfill) {
  const Call call(__func__);
  const auto at = reinterpret_cast<uintptr_t>(address);
  if (reinterpret_cast<uintptr_t>(map) % 64) return fail(CUDA_ERROR_INVALID_VALUE, "the map is not at a multiple of 64 bytes");
  if (rank < 1 || rank > 5) return fail(CUDA_ERROR_INVALID_VALUE, "%u dimensions; expected 1 to 5", rank);
  if (static_cast<size_t>(type) >= std::size(kElementBytes)) return fail(CUDA_ERROR_INVALID_VALUE, "data type %d", type);
  if (at % 16) return fail(CUDA_ERROR_INVALID_VALUE, "the array %#zx is not at a multiple of 16 bytes", at);
  if (interleave != CU_TENSOR_MAP_INTERLEAVE_NONE) return fail(CUDA_ERROR_NOT_SUPPORTED, "interleaved layouts");
  if (swizzle > CU_TENSOR_MAP_SWIZZLE_128B) return fail(CUDA_ERROR_NOT_SUPPORTED, "swizzle %d", swizzle);
  EmulatedMap made;
  made.address = at;
  made.element_bytes = kElementBytes[type];
  made.rank = rank;
  made.tf32 = type == CU_TENSOR_MAP_DATA_TYPE_TFLOAT32;
  made.swizzle = swizzle ? 16u << swizzle : 0;
  for (cuuint32_t i = 0; i < rank; i++) {
    const cuuint64_t stride = i ? strides[i - 1] : made.element_bytes;
    if (!sizes[i] || sizes[i] > (cuuint64_t{1} << 32))
      return fail(CUDA_ERROR_INVALID_VALUE, "extent %llu", static_cast<unsigned long long>(sizes[i]));
    if (i && (stride % 16 || stride >= (cuuint64_t{1} << 40)))
      return fail(CUDA_ERROR_INVALID_VALUE, "stride %llu", static_cast<unsigned long long>(stride));
    if (!box[i] || box[i] > 256) return fail(CUDA_ERROR_INVALID_VALUE, "box extent %u; expected 1 to 256", box[i]);
    if (element_strides[i] != 1) return fail(CUDA_ERROR_NOT_SUPPORTED, "element stride %u", element_strides[i]);
    made.sizes[i] = sizes[i];
    made.strides[i] = stride;
    made.box[i] = static_cast<uint16_t>(box[i]);
  }
  const cuuint32_t row = box[0] * made.element_bytes;
  if (row % 16 || (made.swizzle && row > made.swizzle))
    return fail(CUDA_ERROR_INVALID_VALUE, "a box with rows of %u bytes and a swizzle of %u", row, made.swizzle);
  memset(map, 0, sizeof *map);
  memcpy(map, &made, sizeof made);
  return CUDA_SUCCESS;
}
