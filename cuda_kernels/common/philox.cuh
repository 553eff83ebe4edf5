// Philox4x64-10, the bit stream of numpy.random.Philox.
//
// Source: Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3" (2011).

#include "pack.cuh"

typedef unsigned long long uint64;

// Returns the four words of block number counter + 1 + index, where state = (key, counter).
__device__ __forceinline__ Pack<uint64, 4> philox(const uint64* state, uint64 index) {
  constexpr uint64 MULTIPLIER_0 = 0xD2E7470EE14C6C93, MULTIPLIER_1 = 0xCA5A826395121157;
  constexpr uint64 WEYL_0 = 0x9E3779B97F4A7C15, WEYL_1 = 0xBB67AE8584CAA73B;
  uint64 key_0 = state[0], key_1 = 0;
  const uint64 block = state[1] + index + 1;
  uint64 word_0 = block, word_1 = block <= index, word_2 = 0, word_3 = 0;  // word_1: the carry of block's sum
#pragma unroll
  for (int round = 0; round < 10; round++) {
    const uint64 high_0 = __umul64hi(MULTIPLIER_0, word_0), low_0 = MULTIPLIER_0 * word_0;
    const uint64 high_1 = __umul64hi(MULTIPLIER_1, word_2), low_1 = MULTIPLIER_1 * word_2;
    word_0 = high_1 ^ word_1 ^ key_0;
    word_1 = low_1;
    word_2 = high_0 ^ word_3 ^ key_1;
    word_3 = low_0;
    key_0 += WEYL_0;
    key_1 += WEYL_1;
  }
  return {word_0, word_1, word_2, word_3};
}

// Calls body(start, valid, flags) for every pack of four of `count` elements: bit e of `flags` is set if the number of 32 bits
// of element start + e, a half of a word, is below `probability`.  A lane computes the flags of the eight numbers of a block;
// neighbouring lanes receive those of neighbouring packs.
template <class Body>
__device__ __forceinline__ void for_each_flags(const uint64* state, long long count, double probability, Body body) {
  const uint64 threshold = static_cast<uint64>(rint(probability * 0x1p32));
  const int lane = threadIdx.x % 32;
  const long long threads = blockDim.x, of_warp = blockIdx.x * threads + threadIdx.x - lane;
  for (long long block = of_warp; 8 * block < count; block += gridDim.x * threads) {  // the first of 32 of the warp
    const Pack<uint64, 4> words = philox(state, block + lane);
    unsigned int flags = 0;
#pragma unroll
    for (int i = 0; i < 8; i++) {
      const uint64 number = i % 2 == 0 ? words.v[i / 2] & 0xFFFFFFFF : words.v[i / 2] >> 32;
      flags |= static_cast<unsigned int>(number < threshold) << i;
    }
#pragma unroll
    for (int pass = 0; pass < 2; pass++) {
      const unsigned int of_pack = __shfl_sync(0xFFFFFFFF, flags, 16 * pass + lane / 2) >> 4 * (lane % 2);
      const long long start = 8 * block + 128 * pass + 4 * lane;
      if (start < count) body(start, count - start, of_pack);
    }
  }
}
