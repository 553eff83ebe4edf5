// Included by the wrappers of the toolkit's headers: replaces its vector types by ours, and selects its host code instead of
// PTX.  Functions without host code are computed in float32 (fused multiply-adds in float64) and rounded to nearest.
#pragma push_macro("__CUDA_ARCH__")
#undef __CUDA_ARCH__
#define __VECTOR_TYPES_H__
#define __VECTOR_FUNCTIONS_H__

#ifndef EMULATOR_HALF
#define EMULATOR_OF_ONE(T, T2, name, WIDE, NARROW, PAIR, LOW, HIGH, expression)  \
  inline T h##name(T value) {                                                    \
    const float x = WIDE(value);                                                 \
    return NARROW(expression);                                                   \
  }                                                                              \
  inline T2 h2##name(T2 value) { return PAIR(h##name(LOW(value)), h##name(HIGH(value))); }

#define EMULATOR_FMA(T, T2, suffix, DOUBLE, PAIR, LOW, HIGH, expression)         \
  inline T __hfma##suffix(T a, T b, T c) {                                       \
    const double x = static_cast<double>(static_cast<float>(a)) * static_cast<float>(b) + static_cast<float>(c); \
    return DOUBLE(expression);                                                   \
  }                                                                              \
  inline T2 __hfma2##suffix(T2 a, T2 b, T2 c) {                                  \
    return PAIR(__hfma##suffix(LOW(a), LOW(b), LOW(c)), __hfma##suffix(HIGH(a), HIGH(b), HIGH(c))); \
  }

#define EMULATOR_HALF(T, T2, WIDE, NARROW, DOUBLE, PAIR, LOW, HIGH)                              \
  namespace emulator {                                                                                  \
  template <> inline constexpr bool floating<T> = true;                                                 \
  template <> inline constexpr bool floating<T2> = true;                                                \
  }                                                                                                     \
  EMULATOR_OF_ONE(T, T2, sqrt, WIDE, NARROW, PAIR, LOW, HIGH, sqrtf(x))                                 \
  EMULATOR_OF_ONE(T, T2, rsqrt, WIDE, NARROW, PAIR, LOW, HIGH, 1.0f / sqrtf(x))                         \
  EMULATOR_OF_ONE(T, T2, rcp, WIDE, NARROW, PAIR, LOW, HIGH, 1.0f / x)                                  \
  EMULATOR_OF_ONE(T, T2, exp, WIDE, NARROW, PAIR, LOW, HIGH, expf(x))                                   \
  EMULATOR_OF_ONE(T, T2, exp2, WIDE, NARROW, PAIR, LOW, HIGH, exp2f(x))                                 \
  EMULATOR_OF_ONE(T, T2, exp10, WIDE, NARROW, PAIR, LOW, HIGH, powf(10.0f, x))                          \
  EMULATOR_OF_ONE(T, T2, log, WIDE, NARROW, PAIR, LOW, HIGH, logf(x))                                   \
  EMULATOR_OF_ONE(T, T2, log2, WIDE, NARROW, PAIR, LOW, HIGH, log2f(x))                                 \
  EMULATOR_OF_ONE(T, T2, log10, WIDE, NARROW, PAIR, LOW, HIGH, log10f(x))                               \
  EMULATOR_OF_ONE(T, T2, sin, WIDE, NARROW, PAIR, LOW, HIGH, sinf(x))                                   \
  EMULATOR_OF_ONE(T, T2, cos, WIDE, NARROW, PAIR, LOW, HIGH, cosf(x))                                   \
  EMULATOR_OF_ONE(T, T2, tanh, WIDE, NARROW, PAIR, LOW, HIGH, tanhf(x))                                 \
  EMULATOR_OF_ONE(T, T2, tanh_approx, WIDE, NARROW, PAIR, LOW, HIGH, tanhf(x))                          \
  EMULATOR_OF_ONE(T, T2, ceil, WIDE, NARROW, PAIR, LOW, HIGH, ceilf(x))                                 \
  EMULATOR_OF_ONE(T, T2, floor, WIDE, NARROW, PAIR, LOW, HIGH, floorf(x))                               \
  EMULATOR_OF_ONE(T, T2, rint, WIDE, NARROW, PAIR, LOW, HIGH, rintf(x))                                 \
  EMULATOR_OF_ONE(T, T2, trunc, WIDE, NARROW, PAIR, LOW, HIGH, truncf(x))                               \
  EMULATOR_FMA(T, T2, , DOUBLE, PAIR, LOW, HIGH, x)                                                     \
  EMULATOR_FMA(T, T2, _relu, DOUBLE, PAIR, LOW, HIGH, x > 0.0 ? x : 0.0)                                \
  EMULATOR_FMA(T, T2, _sat, DOUBLE, PAIR, LOW, HIGH, x > 0.0 ? (x < 1.0 ? x : 1.0) : 0.0)

// The saturating conversions such as name##int_rn; the toolkit's host code has only the truncating ones.
#define EMULATOR_TO_INTEGER(T, name, WIDE, Integer)                                                     \
  inline Integer name##_rn(T value) { return emulator::saturated<Integer>(rintf(WIDE(value))); }        \
  inline Integer name##_rd(T value) { return emulator::saturated<Integer>(floorf(WIDE(value))); }       \
  inline Integer name##_ru(T value) { return emulator::saturated<Integer>(ceilf(WIDE(value))); }
#define EMULATOR_HALF_TO_INTEGERS(T, name, WIDE)                  \
  EMULATOR_TO_INTEGER(T, name##short, WIDE, short)                \
  EMULATOR_TO_INTEGER(T, name##ushort, WIDE, unsigned short)      \
  EMULATOR_TO_INTEGER(T, name##int, WIDE, int)                    \
  EMULATOR_TO_INTEGER(T, name##uint, WIDE, unsigned int)          \
  EMULATOR_TO_INTEGER(T, name##ll, WIDE, long long)               \
  EMULATOR_TO_INTEGER(T, name##ull, WIDE, unsigned long long)

namespace emulator {
template <class Integer>
inline Integer saturated(float value) {
  constexpr Integer LOWEST = std::is_signed_v<Integer> ? Integer(1ull << (8 * sizeof(Integer) - 1)) : Integer(0);
  constexpr Integer HIGHEST = ~LOWEST;
  if (value != value) return 0;
  if (value <= static_cast<float>(LOWEST)) return LOWEST;
  return value >= static_cast<float>(HIGHEST) ? HIGHEST : static_cast<Integer>(value);
}
}  // namespace emulator
#endif
