// Kernels that reduce rows: who shares a row, and the elements that each of its threads has.

#include "pack.cuh"
#include "reduce.cuh"

// The threads that share a row: a warp or a block.
template <bool WARP_A_ROW>
struct RowGroup {
  static __device__ int size() { return WARP_A_ROW ? 32 : blockDim.x; }
  static __device__ int member() { return threadIdx.x % size(); }
  static __device__ int first_row() { return blockIdx.x * (blockDim.x / size()) + threadIdx.x / size(); }
  static __device__ int rows_at_once() { return gridDim.x * (blockDim.x / size()); }
  template <class Operation, class T>
  static __device__ T reduce(T value) {
    return WARP_A_ROW ? warp_reduce<Operation>(value) : block_reduce<Operation>(value);
  }
};

// Packs of a row that one thread keeps in registers.
constexpr int HELD_PACKS = 8;

// The packs of a row that a thread has: every Group::size()-th.  HELD rows have at most 4 HELD_PACKS Group::size() elements;
// they are read once and kept in registers.  Others are read again by each pass.
template <class T, class Group, bool HELD>
struct Row {
  using A = Accumulator<T>;
  const T* from;
  unsigned int count;
  int width;
  Pack<A, 4> held[HELD ? HELD_PACKS : 1];

  __device__ __forceinline__ Row(const T* from, unsigned int count, int width) : from(from), count(count), width(width) {
    if constexpr (HELD) {
#pragma unroll
      for (int pack = 0; pack < HELD_PACKS; pack++)
        if (start_of(pack) < count) held[pack] = load_pack<4>(from + start_of(pack), count - start_of(pack), width);
    }
  }

  __device__ __forceinline__ unsigned int start_of(int pack) const {
    return 4u * (pack * Group::size() + Group::member());
  }

  // The pack with this number; elements beyond the row are zero.
  __device__ __forceinline__ Pack<A, 4> at(int pack) const {
    if constexpr (HELD)
      return held[pack];
    else
      return load_pack<4>(from + start_of(pack), count - start_of(pack), width);
  }

  // Calls body(pack, start, valid) for each pack of the thread, which begins at element `start`, and of which the first `valid`
  // elements lie in the row.
  template <class Body>
  __device__ __forceinline__ void for_each(Body body) const {
    if constexpr (HELD) {
#pragma unroll
      for (int pack = 0; pack < HELD_PACKS; pack++)
        if (start_of(pack) < count) body(pack, start_of(pack), count - start_of(pack));
    } else {
      for (int pack = 0; start_of(pack) < count; pack++) body(pack, start_of(pack), count - start_of(pack));
    }
  }
};
