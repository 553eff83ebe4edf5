// Conversions between float32 and the narrower formats, with the same results as the GPU's in every case.
#pragma once
#include <math.h>
#include <stdint.h>
#include <string.h>

#include "intrinsics.h"

namespace emulator {

// To binary16, rounded to nearest, ties to even; NaN becomes 0x7fff, as with the instruction cvt.
inline unsigned short half_of(float value) {
  const auto bits = same_bits<uint32_t>(value), sign = bits >> 16 & 0x8000u, magnitude = bits & 0x7fffffffu;
  uint32_t half;
  if (magnitude > 0x7f800000u) return 0x7fff;
  if (magnitude >= 0x477ff000u) half = 0x7c00;  // from 65520 on, halfway above the largest finite number: infinity
  else if (magnitude >= 0x38800000u) half = (magnitude - 0x38000000u + 0xfffu + (magnitude >> 13 & 1u)) >> 13;
  else half = same_bits<uint32_t>(fabsf(value) + 0.5f) - 0x3f000000u;  // denormal halves are spaced like floats near 0.5
  return static_cast<unsigned short>(sign | half);
}

inline float float_of_half(unsigned short half) {
  const uint32_t sign = (half & 0x8000u) << 16, magnitude = (half & 0x7fffu) << 13;
  if (magnitude >= 0x0f800000u) return same_bits<float>(sign | 0x70000000u | magnitude);
  return same_bits<float>(sign | same_bits<uint32_t>(same_bits<float>(magnitude) * 0x1p112f));
}

// To tf32, rounded to nearest, ties away from zero.
inline uint32_t tf32_of(float value) {
  const auto bits = same_bits<uint32_t>(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return 0x7fffffffu;
  if ((bits & 0x7fffffffu) == 0x7f800000u) return bits;
  return (bits + 0x1000u) & ~0x1fffu;
}

}  // namespace emulator
