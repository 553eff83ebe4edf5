// Division by a number that the host knows.

// Divides integers from 0 to 2^31 - 1 by a multiplication and a shift (Granlund and Montgomery 1994).  gpunet/ops/gemm.py
// computes the fields.
struct Divisor {
  unsigned int divisor, multiplier, shift;

  __device__ __forceinline__ int quotient(int n) const {
    return (__umulhi(n, multiplier) + static_cast<unsigned int>(n)) >> shift;
  }
};
