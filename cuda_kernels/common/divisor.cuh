// Division of integers, which takes a GPU dozens of instructions in 32 bits and over a hundred in 64.

// a / b for 0 <= a and 0 < b, in 32 bits where they are enough.
__device__ __forceinline__ long long quotient(long long a, long long b) {
  return (a | b) >> 31 ? a / b : static_cast<unsigned int>(a) / static_cast<unsigned int>(b);
}

// Divides integers from 0 to 2^31 - 1 by a multiplication and a shift (Granlund and Montgomery 1994).  gpunet/ops/gemm.py
// computes the fields.
struct Divisor {
  unsigned int divisor, multiplier, shift;

  __device__ __forceinline__ int quotient(int n) const {
    return (__umulhi(n, multiplier) + static_cast<unsigned int>(n)) >> shift;
  }
  __device__ __forceinline__ long long quotient(long long n) const {
    return n >> 31 ? n / divisor : quotient(static_cast<int>(n));
  }
};
