// The 16-bit floating types.  They are storage: a kernel widens what it loads to the accumulator type, float, computes in
// that, and rounds once where it stores, to nearest, ties to even.

#ifdef GPUNET_EMULATOR
__device__ __forceinline__ unsigned short float_to_f16(float value) { return emulator::half_of(value); }
__device__ __forceinline__ float f16_to_float(unsigned short bits) { return emulator::float_of_half(bits); }
#else
__device__ __forceinline__ unsigned short float_to_f16(float value) {
  unsigned short bits;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));
  return bits;
}
__device__ __forceinline__ float f16_to_float(unsigned short bits) {
  float value;
  asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
  return value;
}
#endif

__device__ __forceinline__ unsigned short float_to_bf16(float value) {
#if __CUDA_ARCH__ >= 800 && !defined(GPUNET_EMULATOR)
  unsigned short bits;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(bits) : "f"(value));
  return bits;
#else
  const unsigned int bits = __float_as_uint(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return 0x7fff;
  return static_cast<unsigned short>((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
#endif
}
__device__ __forceinline__ float bf16_to_float(unsigned short bits) {
  return __uint_as_float(static_cast<unsigned int>(bits) << 16);
}

// IEEE binary16: 5 bits of exponent, 10 of fraction.
struct float16 {
  unsigned short bits;
  float16() = default;
  __device__ __forceinline__ explicit float16(float value) : bits(float_to_f16(value)) {}
  __device__ __forceinline__ operator float() const { return f16_to_float(bits); }
};

// The upper half of a float32: 8 bits of exponent, 7 of fraction.
struct bfloat16 {
  unsigned short bits;
  bfloat16() = default;
  __device__ __forceinline__ explicit bfloat16(float value) : bits(float_to_bf16(value)) {}
  __device__ __forceinline__ operator float() const { return bf16_to_float(bits); }
};

#ifdef GPUNET_EMULATOR
namespace emulator {  // so that a launch checks the dtypes of arrays
template <>
constexpr char kind_of<float16>() { return 'f'; }
template <>
constexpr char kind_of<bfloat16>() { return 'B'; }
}  // namespace emulator
#endif

// The type in which products and sums of T are computed: float for the halves, else T itself.
template <class T>
struct AccumulatorOf { using Type = T; };
template <>
struct AccumulatorOf<float16> { using Type = float; };
template <>
struct AccumulatorOf<bfloat16> { using Type = float; };
template <class T>
using Accumulator = typename AccumulatorOf<T>::Type;
