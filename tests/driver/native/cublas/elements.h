// Element types of cuBLAS by cudaDataType, read and written as complex numbers of float64: every real type is exact in them.
#pragma once
#include <library_types.h>
#include <stdint.h>
#include <string.h>

#include <complex>

namespace cublas {

using Number = std::complex<double>;

inline float float_of_half(uint16_t half) {
  const uint32_t sign = (half & 0x8000u) << 16, exponent = half >> 10 & 31, fraction = half & 1023;
  if (exponent == 0) return (sign ? -1.0f : 1.0f) * static_cast<float>(fraction) * 0x1p-24f;
  const uint32_t bits = sign | (exponent == 31 ? 255u : exponent + 112) << 23 | fraction << 13;
  float value;
  memcpy(&value, &bits, 4);
  return value;
}
// To nearest, ties to even; from float32, as cuBLAS rounds its float32 sums.
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

inline bool is_known(cudaDataType type) {
  switch (type) {
    case CUDA_R_32F:
    case CUDA_R_64F:
    case CUDA_C_32F:
    case CUDA_C_64F:
    case CUDA_R_16F:
    case CUDA_R_16BF:
    case CUDA_R_8I:
    case CUDA_R_32I: return true;
    default: return false;
  }
}
constexpr bool is_complex(cudaDataType type) { return type == CUDA_C_32F || type == CUDA_C_64F; }

inline Number read(const void* array, size_t i, cudaDataType type) {
  switch (type) {
    case CUDA_R_32F: return static_cast<const float*>(array)[i];
    case CUDA_R_64F: return static_cast<const double*>(array)[i];
    case CUDA_C_32F: return static_cast<const std::complex<float>*>(array)[i];
    case CUDA_C_64F: return static_cast<const Number*>(array)[i];
    case CUDA_R_16F: return float_of_half(static_cast<const uint16_t*>(array)[i]);
    case CUDA_R_16BF: return float_of_bfloat16(static_cast<const uint16_t*>(array)[i]);
    case CUDA_R_8I: return static_cast<const int8_t*>(array)[i];
    default: return static_cast<const int32_t*>(array)[i];
  }
}
inline void write(void* array, size_t i, cudaDataType type, Number value) {
  switch (type) {
    case CUDA_R_32F: static_cast<float*>(array)[i] = static_cast<float>(value.real()); break;
    case CUDA_R_64F: static_cast<double*>(array)[i] = value.real(); break;
    case CUDA_C_32F: static_cast<std::complex<float>*>(array)[i] = static_cast<std::complex<float>>(value); break;
    case CUDA_C_64F: static_cast<Number*>(array)[i] = value; break;
    case CUDA_R_16F: static_cast<uint16_t*>(array)[i] = half_of(static_cast<float>(value.real())); break;
    case CUDA_R_16BF: static_cast<uint16_t*>(array)[i] = bfloat16_of(static_cast<float>(value.real())); break;
    case CUDA_R_8I: static_cast<int8_t*>(array)[i] = static_cast<int8_t>(value.real()); break;
    default: static_cast<int32_t*>(array)[i] = static_cast<int32_t>(value.real());
  }
}

}  // namespace cublas
