// Bulk copies and tensor copies (TMA).

#include "runtime.h"

#include <string.h>

#include <algorithm>

namespace emulator {

static uintptr_t site_of(void* caller) { return reinterpret_cast<uintptr_t>(caller) - launch->library; }

static Groups& stores() { return groups_of(Kind::bulk, current->thread); }

static void require_multiple(bool is_multiple, const char* what, uint64_t value, int multiple, void* caller) {
  if (!is_multiple)
    fail("misaligned", "%s is %#llx at @%#zx; expected a multiple of %d", what, static_cast<unsigned long long>(value),
         site_of(caller), multiple);
}

static Transfer start_through_proxy(std::vector<Range> ranges, std::function<void()> perform, void* caller) {
  Transfer transfer = start(std::move(ranges), std::move(perform), caller);
  if (launch->check) check_proxy(transfer);
  return transfer;
}

static void load(std::vector<Range> ranges, std::function<void()> perform, size_t bytes, void* barrier, void* caller) {
  const int engine = mbarrier_engine(barrier, caller);
  const uintptr_t site = site_of(caller);
  start_on_engine(start_through_proxy(std::move(ranges), std::move(perform), caller), engine,
                  [=] { mbarrier_complete_bytes(barrier, bytes, site); });
}

// ---- plain bytes -----------------------------------------------------------------------------------------------------

static void check_alignment(const void* shared, const void* global, int bytes, void* caller) {
  const auto in_shared = reinterpret_cast<uintptr_t>(shared), in_global = reinterpret_cast<uintptr_t>(global);
  require_multiple(in_shared % 16 == 0, "the address in shared memory", in_shared, 16, caller);
  require_multiple(in_global % 16 == 0, "the address in global memory", in_global, 16, caller);
  require_multiple(bytes > 0 && bytes % 16 == 0, "the number of bytes", static_cast<uint64_t>(bytes), 16, caller);
}

static std::vector<Range> copy_ranges(const void* from, void* to, int bytes) {
  const auto count = static_cast<size_t>(bytes);
  return {{reinterpret_cast<uintptr_t>(from), count, false}, {reinterpret_cast<uintptr_t>(to), count, true}};
}

void bulk_load(void* to, const void* from, int bytes, void* barrier, void* caller) {
  check_alignment(to, from, bytes, caller);
  const auto count = static_cast<size_t>(bytes);
  load(copy_ranges(from, to, bytes), [=] { memcpy(to, from, count); }, count, barrier, caller);
}

void bulk_store(void* to, const void* from, int bytes, void* caller) {
  check_alignment(from, to, bytes, caller);
  const auto count = static_cast<size_t>(bytes);
  add_to_group(stores(), start_through_proxy(copy_ranges(from, to, bytes), [=] { memcpy(to, from, count); }, caller));
}

void bulk_commit() { commit(stores()); }

void bulk_wait(int left, bool reads_only) {
  if (reads_only)
    complete_reads(stores(), static_cast<uint32_t>(left));
  else
    complete(stores(), static_cast<uint32_t>(left));
}

// ---- boxes of tensors ------------------------------------------------------------------------------------------------

constexpr int MAX_DIMENSIONS = 5;
constexpr uint64_t MAGIC = 0x70614d726f736e65ull;

struct TensorMap {  // same layout as in gpunet/backend/tensor_map.py
  uint64_t magic, address;
  uint64_t sizes[MAX_DIMENSIONS], strides[MAX_DIMENSIONS];  // in elements; in bytes.  Innermost first
  uint32_t element_bytes, dimensions, swizzle;              // swizzle: 0, 32, 64 or 128 bytes
  uint16_t box[MAX_DIMENSIONS], tf32;                       // tf32: loads round floats to TF32
};

struct Piece {  // a contiguous part of a box that is inside the tensor
  char* global;
  size_t bytes, dense;  // dense: offset in the box
};

struct Box {
  std::vector<Piece> pieces;
  size_t bytes;
  uint32_t swizzle;
  bool tf32;
};

static const TensorMap& map_of(const void* map, void* caller) {
  const auto& described = *static_cast<const TensorMap*>(map);
  if (described.magic != MAGIC)
    fail("tensor map", "at @%#zx: the argument is not a TensorMap of the device 'emulated'", site_of(caller));
  return described;
}

void prefetch_tensor_map(const void* map, void* caller) { map_of(map, caller); }

static Box box_at(const void* map, const int* first, int dimensions, void* caller) {
  const TensorMap& of = map_of(map, caller);
  if (of.dimensions != static_cast<uint32_t>(dimensions))
    fail("tensor map", "%d coordinates at @%#zx for a tensor map of %u dimensions", dimensions, site_of(caller), of.dimensions);
  Box box{{}, of.element_bytes, of.swizzle, of.tf32 != 0};
  size_t rows = 1;
  for (int d = 0; d < dimensions; d++) {
    box.bytes *= of.box[d];
    if (d) rows *= of.box[d];
  }
  const int64_t begin = std::max<int64_t>(0, -int64_t(first[0]));
  const int64_t end = std::min<int64_t>(of.box[0], static_cast<int64_t>(of.sizes[0]) - first[0]);
  for (size_t row = 0; row < rows && begin < end; row++) {
    uint64_t offset = static_cast<uint64_t>(first[0] + begin) * of.element_bytes;
    bool inside = true;
    size_t rest = row;
    for (int d = 1; d < dimensions; rest /= of.box[d++]) {
      const int64_t at_d = first[d] + static_cast<int64_t>(rest % of.box[d]);
      inside &= at_d >= 0 && at_d < static_cast<int64_t>(of.sizes[d]);
      offset += static_cast<uint64_t>(at_d) * of.strides[d];
    }
    if (!inside) continue;
    box.pieces.push_back({reinterpret_cast<char*>(of.address + offset), static_cast<size_t>(end - begin) * of.element_bytes,
                          (row * of.box[0] + static_cast<size_t>(begin)) * of.element_bytes});
  }
  return box;
}

uintptr_t swizzled(uintptr_t address, uint32_t span) { return address ^ ((address >> 7) & (span / 16 - 1)) << 4; }

// Calls move(address in shared memory, address in global memory, bytes) for all parts that are inside the tensor.
template <class Move>
static void each_piece(const Box& box, uintptr_t shared, Move move) {
  for (const Piece& piece : box.pieces)
    for (size_t done = 0, bytes; done < piece.bytes; done += bytes) {
      const uintptr_t dense = shared + piece.dense + done;
      bytes = std::min(piece.bytes - done, 16 - dense % 16);
      move(reinterpret_cast<char*>(box.swizzle ? swizzled(dense, box.swizzle) : dense), piece.global + done, bytes);
    }
}

static std::vector<Range> ranges_of(const Box& box, uintptr_t shared, bool written) {
  std::vector<Range> ranges{{shared, box.bytes, !written}};
  for (const Piece& piece : box.pieces) {
    const auto global = reinterpret_cast<uintptr_t>(piece.global);
    Range& last = ranges.back();
    if (ranges.size() > 1 && last.address + last.bytes == global)
      last.bytes += piece.bytes;
    else
      ranges.push_back({global, piece.bytes, written});
  }
  return ranges;
}

static void check_tile(const Box& box, uintptr_t shared, void* caller) {
  const int multiple = box.swizzle ? static_cast<int>(std::max(128u, 8 * box.swizzle)) : 128;
  const bool is_multiple = shared % static_cast<uintptr_t>(multiple) == 0;
  require_multiple(is_multiple, "the tile's address in shared memory", shared, multiple, caller);
}

static void copy_as_tf32(char* to, const char* from, size_t bytes) {
  for (size_t done = 0; done < bytes; done += sizeof(float)) {
    float value;
    memcpy(&value, from + done, sizeof value);
    const uint32_t rounded = tf32_of(value);
    memcpy(to + done, &rounded, sizeof rounded);
  }
}

static void load_box(const Box& box, char* to, void* barrier, void* caller) {
  const auto shared = reinterpret_cast<uintptr_t>(to);
  const auto perform = [=] {
    memset(to, 0, box.bytes);
    each_piece(box, shared, [&](char* in_shared, const char* global, size_t bytes) {
      if (box.tf32)
        copy_as_tf32(in_shared, global, bytes);
      else
        memcpy(in_shared, global, bytes);
    });
  };
  load(ranges_of(box, shared, false), perform, box.bytes, barrier, caller);
}

void tensor_load(void* to, const void* map, const int* first, int dimensions, void* barrier, unsigned int blocks, void* caller) {
  const Box box = box_at(map, first, dimensions, caller);
  check_tile(box, reinterpret_cast<uintptr_t>(to), caller);
  if (!blocks) return load_box(box, static_cast<char*>(to), barrier, caller);
  if (blocks >> cluster_size)
    fail("cluster", "a copy to the blocks of mask %#x at @%#zx; the cluster has %d blocks", blocks, site_of(caller), cluster_size);
  for (unsigned int rank = 0; rank < static_cast<unsigned int>(cluster_size); rank++)
    if (blocks >> rank & 1u)
      load_box(box, static_cast<char*>(map_shared(to, rank, caller)), map_shared(barrier, rank, caller), caller);
}

void tensor_store(const void* map, const int* first, int dimensions, const void* from, void* caller) {
  const Box box = box_at(map, first, dimensions, caller);
  const auto shared = reinterpret_cast<uintptr_t>(from);
  check_tile(box, shared, caller);
  const auto perform = [=] {
    each_piece(box, shared, [](const char* in_shared, char* global, size_t bytes) { memcpy(global, in_shared, bytes); });
  };
  add_to_group(stores(), start_through_proxy(ranges_of(box, shared, true), perform, caller));
}

}  // namespace emulator
