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
