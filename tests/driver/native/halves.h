// float16 and bfloat16 as float32, and back.
#pragma once
#include <stdint.h>
#include <string.h>

namespace halves {

inline float float_of_half(uint16_t half) {
  const uint32_t sign = (half & 0x8000u) << 16, exponent = half >> 10 & 31, fraction = half & 1023;
  if (exponent == 0) return (sign ? -1.0f : 1.0f) * static_cast<float>(fraction) * 0x1p-24f;
  const uint32_t bits = sign | (exponent == 31 ? 255u : exponent + 112) << 23 | fraction << 13;
  float value;
  memcpy(&value, &bits, 4);
  return value;
}
// To nearest, ties to even; from float32, as libraries round their float32 sums.
inline uint16_t half_of(float value) {
  uint32_t bits;
  memcpy(&bits, &value, 4);
  const uint16_t sign = static_cast<uint16_t>(bits >> 16 & 0x8000u);
  const uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return 0x7fff;
  if (magnitude >= 0x477ff000u) return static_cast<uint16_t>(sign | 0x7c00);
  if (magnitude >= 0x38800000u)
    return static_cast<uint16_t>(sign | (magnitude - 0x38000000u + 0xfffu + (magnitude >> 13 & 1u)) >> 13);
  float scaled;
  memcpy(&scaled, &magnitude, 4);
  scaled += 0.5f;  // the spacing of floats there is that of denormal halves
  memcpy(&bits, &scaled, 4);
  return static_cast<uint16_t>(sign | (bits - 0x3f000000u));
}
inline float float_of_bfloat16(uint16_t narrow) {
  const uint32_t bits = static_cast<uint32_t>(narrow) << 16;
  float value;
  memcpy(&value, &bits, 4);
  return value;
}
inline uint16_t bfloat16_of(float value) {
  uint32_t bits;
  memcpy(&bits, &value, 4);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return 0x7fff;
  return static_cast<uint16_t>((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

}  // namespace halves
