// Element types of cuBLAS by cudaDataType, read and written as complex numbers of float64: every real type is exact in them.
#pragma once
#include <library_types.h>
#include <stdint.h>
#include <string.h>

#include <complex>

#include "../halves.h"

namespace cublas {

using Number = std::complex<double>;

using namespace halves;

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
