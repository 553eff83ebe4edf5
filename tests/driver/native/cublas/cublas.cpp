// The stand-in for libcublas.so.13: the products that CuPy's dot, matmul and tensordot ask for.  Sums are of float64, whatever the
// compute type, and written in the order of the rows.  All other functions answer CUBLAS_STATUS_NOT_SUPPORTED.
#include <cuda.h>

#include <algorithm>
#include <vector>

#include "../host_work.h"
#include "elements.h"

namespace cublas {

enum Status { kSuccess = 0, kInvalidValue = 7, kExecutionFailed = 13, kNotSupported = 15 };  // of cublasStatus_t

struct Handle {
  CUstream stream = nullptr;
  int pointer_mode = 0;  // CUBLAS_POINTER_MODE_HOST; 1 is of the device
  int math_mode = 0;
};

// A factor in memory of the host, read at once, or of the device, read when the work runs.
class Scalar {
 public:
  Scalar(const Handle& handle, const void* pointer, cudaDataType type)
      : pointer_(pointer), type_(type), on_device_(handle.pointer_mode) {
    if (!on_device_) value_ = read(pointer, 0, type);
  }
  Number value() const { return on_device_ ? read(pointer_, 0, type_) : value_; }

 private:
  const void* pointer_;
  cudaDataType type_;
  bool on_device_;
  Number value_;
};

struct Operand {  // a column-major matrix in device memory, as the product sees it
  const void* data;
  cudaDataType type;
  int operation;  // cublasOperation_t: 0 as it is, 1 transposed, 2 conjugated and transposed
  int leading;
  long long stride = 0;  // elements from one matrix of a batch to the next

  Number at(long long batch, int row, int column) const {
    const size_t i = static_cast<size_t>(batch * stride + (operation ? column + static_cast<long long>(row) * leading
                                                                     : row + static_cast<long long>(column) * leading));
    const Number value = read(data, i, type);
    return operation == 2 ? std::conj(value) : value;
  }
};

struct Product {
  int m, n, k;
  Operand a, b;
  Scalar alpha, beta;
  void* c;
  cudaDataType c_type;
  int c_leading;
  long long c_stride;
  int batches;
};

template <class T>
T as(Number value) {
  if constexpr (std::is_same_v<T, double>)
    return value.real();
  else
    return value;
}

template <class T>
std::vector<T> dense(const Operand& operand, long long batch, int rows, int columns) {  // row-major
  std::vector<T> all(static_cast<size_t>(rows) * columns);
  for (int row = 0; row < rows; row++)
    for (int column = 0; column < columns; column++)
      all[static_cast<size_t>(row) * columns + column] = as<T>(operand.at(batch, row, column));
  return all;
}

template <class T>
void multiply(const Product& p, long long batch) {
  const std::vector<T> a = dense<T>(p.a, batch, p.m, p.k), b = dense<T>(p.b, batch, p.k, p.n);
  const Number alpha = p.alpha.value(), beta = p.beta.value();
  std::vector<T> sums(static_cast<size_t>(p.n));
  for (int row = 0; row < p.m; row++) {
    std::fill(sums.begin(), sums.end(), T(0));
    for (int i = 0; i < p.k; i++) {
      const T factor = a[static_cast<size_t>(row) * p.k + i];
      for (int column = 0; column < p.n; column++) sums[column] += factor * b[static_cast<size_t>(i) * p.n + column];
    }
    for (int column = 0; column < p.n; column++) {
      const size_t at = static_cast<size_t>(batch * p.c_stride + row + static_cast<long long>(column) * p.c_leading);
      const Number old =
          beta == Number(0) ? Number(0) : beta * read(p.c, at, p.c_type);  // with beta 0, C need not be initialised
      write(p.c, at, p.c_type, alpha * Number(sums[column]) + old);
    }
  }
}

int enqueue(const Handle& handle, const Product& product) {
  const Product& p = product;
  if (p.m < 0 || p.n < 0 || p.k < 0 || p.batches < 0) return kInvalidValue;
  if (p.a.leading < std::max(1, p.a.operation ? p.k : p.m) || p.b.leading < std::max(1, p.b.operation ? p.n : p.k) ||
      p.c_leading < std::max(1, p.m))
    return kInvalidValue;
  if (!is_known(p.a.type) || !is_known(p.b.type) || !is_known(p.c_type)) return kNotSupported;
  const bool queued = host_work::enqueue(handle.stream, [product] {
    for (long long batch = 0; batch < product.batches; batch++)
      if (is_complex(product.c_type))
        multiply<Number>(product, batch);
      else
        multiply<double>(product, batch);
  });
  return queued ? kSuccess : kExecutionFailed;
}

// The type of alpha and beta by cublasComputeType_t; the type of C tells whether it is complex.
cudaDataType scalar_type(int compute, cudaDataType c_type) {
  switch (compute) {
    case 64:
    case 65: return CUDA_R_16F;
    case 70:
    case 71: return is_complex(c_type) ? CUDA_C_64F : CUDA_R_64F;
    case 72:
    case 73: return CUDA_R_32I;
    default: return is_complex(c_type) ? CUDA_C_32F : CUDA_R_32F;
  }
}

template <class T>
constexpr cudaDataType type_of() {
  if constexpr (std::is_same_v<T, float>)
    return CUDA_R_32F;
  else if constexpr (std::is_same_v<T, double>)
    return CUDA_R_64F;
  else if constexpr (std::is_same_v<T, std::complex<float>>)
    return CUDA_C_32F;
  else
    return CUDA_C_64F;
}
}  // namespace cublas

using namespace cublas;

#define API extern "C" __attribute__((visibility("default"))) int

// ---- handles -------------------------------------------------------------------------------------------------------------

API cublasCreate_v2(Handle** handle) {
  *handle = new Handle;
  return kSuccess;
}
API cublasDestroy_v2(Handle* handle) {
  delete handle;
  return kSuccess;
}
API cublasGetVersion_v2(Handle*, int* version) {
  *version = 130000;
  return kSuccess;
}
API cublasSetStream_v2(Handle* handle, CUstream stream) {
  handle->stream = stream;
  return kSuccess;
}
API cublasGetStream_v2(Handle* handle, CUstream* stream) {
  *stream = handle->stream;
  return kSuccess;
}
API cublasSetPointerMode_v2(Handle* handle, int mode) {
  handle->pointer_mode = mode;
  return kSuccess;
}
API cublasGetPointerMode_v2(Handle* handle, int* mode) {
  *mode = handle->pointer_mode;
  return kSuccess;
}
API cublasSetMathMode(Handle* handle, int mode) {
  handle->math_mode = mode;
  return kSuccess;
}
API cublasGetMathMode(Handle* handle, int* mode) {
  *mode = handle->math_mode;
  return kSuccess;
}

// ---- products of matrices ------------------------------------------------------------------------------------------------

API cublasGemmStridedBatchedEx(Handle* handle, int op_a, int op_b, int m, int n, int k, const void* alpha, const void* a,
                               cudaDataType a_type, int lda, long long stride_a, const void* b, cudaDataType b_type, int ldb,
                               long long stride_b, const void* beta, void* c, cudaDataType c_type, int ldc, long long stride_c,
                               int batches, int compute, int) {
  const cudaDataType type = scalar_type(compute, c_type);
  return enqueue(*handle, {m,
                           n,
                           k,
                           {a, a_type, op_a, lda, stride_a},
                           {b, b_type, op_b, ldb, stride_b},
                           {*handle, alpha, type},
                           {*handle, beta, type},
                           c,
                           c_type,
                           ldc,
                           stride_c,
                           batches});
}
API cublasGemmEx(Handle* handle, int op_a, int op_b, int m, int n, int k, const void* alpha, const void* a, cudaDataType a_type,
                 int lda, const void* b, cudaDataType b_type, int ldb, const void* beta, void* c, cudaDataType c_type, int ldc,
                 int compute, int algorithm) {
  return cublasGemmStridedBatchedEx(handle, op_a, op_b, m, n, k, alpha, a, a_type, lda, 0, b, b_type, ldb, 0, beta, c, c_type,
                                    ldc, 0, 1, compute, algorithm);
}
API cublasSgemmEx(Handle* handle, int op_a, int op_b, int m, int n, int k, const float* alpha, const void* a,
                  cudaDataType a_type, int lda, const void* b, cudaDataType b_type, int ldb, const float* beta, void* c,
                  cudaDataType c_type, int ldc) {
  return cublasGemmEx(handle, op_a, op_b, m, n, k, alpha, a, a_type, lda, b, b_type, ldb, beta, c, c_type, ldc, 68, 0);
}

template <class T>
static int gemm(Handle* h, int op_a, int op_b, int m, int n, int k, const T* alpha, const T* a, int lda, long long stride_a,
                const T* b, int ldb, long long stride_b, const T* beta, T* c, int ldc, long long stride_c, int batches) {
  constexpr cudaDataType type = type_of<T>();
  return enqueue(*h, {m,
                      n,
                      k,
                      {a, type, op_a, lda, stride_a},
                      {b, type, op_b, ldb, stride_b},
                      {*h, alpha, type},
                      {*h, beta, type},
                      c,
                      type,
                      ldc,
                      stride_c,
                      batches});
}

// The addresses of a batch lie in device memory: they are read when the work runs.
template <class T>
static int gemm_batched(Handle* h, int op_a, int op_b, int m, int n, int k, const T* alpha, const T* const* a, int lda,
                        const T* const* b, int ldb, const T* beta, T* const* c, int ldc, int batches) {
  constexpr cudaDataType type = type_of<T>();
  const Scalar first(*h, alpha, type), second(*h, beta, type);
  const bool queued = host_work::enqueue(h->stream, [=] {
    for (int batch = 0; batch < batches; batch++) {
      const Product product = {
          m, n, k, {a[batch], type, op_a, lda}, {b[batch], type, op_b, ldb}, first, second, c[batch], type, ldc, 0, 1};
      if constexpr (is_complex(type))
        multiply<Number>(product, 0);
      else
        multiply<double>(product, 0);
    }
  });
  return queued ? kSuccess : kExecutionFailed;
}

// y = alpha op(A) x + beta y: a product with a matrix of one column, whose steps are the leading dimensions of rows.
template <class T>
static int gemv(Handle* h, int op, int m, int n, const T* alpha, const T* a, int lda, const T* x, int incx, const T* beta, T* y,
                int incy) {
  if (incx < 1 || incy < 1) return kNotSupported;
  constexpr cudaDataType type = type_of<T>();
  const int rows = op ? n : m, columns = op ? m : n;
  const Scalar first(*h, alpha, type), second(*h, beta, type);
  const Operand matrix = {a, type, op, lda};
  const bool queued = host_work::enqueue(h->stream, [=] {
    for (int row = 0; row < rows; row++) {
      Number sum = 0;
      for (int i = 0; i < columns; i++) sum += matrix.at(0, row, i) * read(x, static_cast<size_t>(i) * incx, type);
      const size_t at = static_cast<size_t>(row) * incy;
      const Number old = second.value() == Number(0) ? Number(0) : second.value() * read(y, at, type);
      write(y, at, type, first.value() * sum + old);
    }
  });
  return queued ? kSuccess : kExecutionFailed;
}

// C = alpha op(A) + beta op(B), with m rows and n columns; a matrix whose factor is 0 is not read.
template <class T>
static int geam(Handle* h, int op_a, int op_b, int m, int n, const T* alpha, const T* a, int lda, const T* beta, const T* b,
                int ldb, T* c, int ldc) {
  constexpr cudaDataType type = type_of<T>();
  const Scalar first(*h, alpha, type), second(*h, beta, type);
  const Operand left = {a, type, op_a, lda}, right = {b, type, op_b, ldb};
  const bool queued = host_work::enqueue(h->stream, [=] {
    const auto term = [](const Scalar& factor, const Operand& matrix, int row, int column) {
      return factor.value() == Number(0) ? Number(0) : factor.value() * matrix.at(0, row, column);
    };
    for (int column = 0; column < n; column++)
      for (int row = 0; row < m; row++)
        write(c, static_cast<size_t>(row) + static_cast<size_t>(column) * ldc, type,
              term(first, left, row, column) + term(second, right, row, column));
  });
  return queued ? kSuccess : kExecutionFailed;
}

// The result goes to the host, then the call waits, or to the device.
template <class T>
static int dot(Handle* h, int n, const T* x, int incx, const T* y, int incy, T* result, bool conjugated) {
  if (incx < 1 || incy < 1) return kNotSupported;
  constexpr cudaDataType type = type_of<T>();
  const bool queued = host_work::enqueue(h->stream, [=] {
    Number sum = 0;
    for (int i = 0; i < n; i++) {
      const Number factor = read(x, static_cast<size_t>(i) * incx, type);
      sum += (conjugated ? std::conj(factor) : factor) * read(y, static_cast<size_t>(i) * incy, type);
    }
    write(result, 0, type, sum);
  });
  if (!queued) return kExecutionFailed;
  return h->pointer_mode || cuStreamSynchronize(h->stream) == CUDA_SUCCESS ? kSuccess : kExecutionFailed;
}

#define PRODUCTS(letter, T)                                                                                                   \
  API cublas##letter##gemm_v2(Handle* h, int op_a, int op_b, int m, int n, int k, const T* alpha, const T* a, int lda,        \
                              const T* b, int ldb, const T* beta, T* c, int ldc) {                                            \
    return gemm<T>(h, op_a, op_b, m, n, k, alpha, a, lda, 0, b, ldb, 0, beta, c, ldc, 0, 1);                                  \
  }                                                                                                                           \
  API cublas##letter##gemmStridedBatched(Handle* h, int op_a, int op_b, int m, int n, int k, const T* alpha, const T* a,      \
                                         int lda, long long stride_a, const T* b, int ldb, long long stride_b, const T* beta, \
                                         T* c, int ldc, long long stride_c, int batches) {                                    \
    return gemm<T>(h, op_a, op_b, m, n, k, alpha, a, lda, stride_a, b, ldb, stride_b, beta, c, ldc, stride_c, batches);       \
  }                                                                                                                           \
  API cublas##letter##gemmBatched(Handle* h, int op_a, int op_b, int m, int n, int k, const T* alpha, const T* const* a,      \
                                  int lda, const T* const* b, int ldb, const T* beta, T* const* c, int ldc, int batches) {    \
    return gemm_batched<T>(h, op_a, op_b, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc, batches);                             \
  }                                                                                                                           \
  API cublas##letter##gemv_v2(Handle* h, int op, int m, int n, const T* alpha, const T* a, int lda, const T* x, int incx,     \
                              const T* beta, T* y, int incy) {                                                                \
    return gemv<T>(h, op, m, n, alpha, a, lda, x, incx, beta, y, incy);                                                       \
  }
PRODUCTS(S, float)
PRODUCTS(D, double)
PRODUCTS(C, std::complex<float>)
PRODUCTS(Z, std::complex<double>)

#define GEAM(letter, T)                                                                                                  \
  API cublas##letter##geam(Handle* h, int op_a, int op_b, int m, int n, const T* alpha, const T* a, int lda, const T* beta, \
                           const T* b, int ldb, T* c, int ldc) {                                                         \
    return geam<T>(h, op_a, op_b, m, n, alpha, a, lda, beta, b, ldb, c, ldc);                                            \
  }
GEAM(S, float)
GEAM(D, double)
GEAM(C, std::complex<float>)
GEAM(Z, std::complex<double>)

#define DOT(name, T, conjugated)                                                                   \
  API cublas##name##_v2(Handle* h, int n, const T* x, int incx, const T* y, int incy, T* result) { \
    return dot<T>(h, n, x, incx, y, incy, result, conjugated);                                     \
  }
DOT(Sdot, float, false)
DOT(Ddot, double, false)
DOT(Cdotu, std::complex<float>, false)
DOT(Cdotc, std::complex<float>, true)
DOT(Zdotu, std::complex<double>, false)
DOT(Zdotc, std::complex<double>, true)

// ---- what CuPy links to and the stand-in does not support ------------------------------------------------------------------

#define UNSUPPORTED(name) \
  API cublas##name() { return kNotSupported; }
#define UNSUPPORTED_OF_ALL(name) UNSUPPORTED(S##name) UNSUPPORTED(D##name) UNSUPPORTED(C##name) UNSUPPORTED(Z##name)
UNSUPPORTED_OF_ALL(axpy_v2)
UNSUPPORTED_OF_ALL(dgmm)
UNSUPPORTED_OF_ALL(getrfBatched)
UNSUPPORTED_OF_ALL(getriBatched)
UNSUPPORTED_OF_ALL(getrsBatched)
UNSUPPORTED_OF_ALL(scal_v2)
UNSUPPORTED_OF_ALL(syrk_v2)
UNSUPPORTED_OF_ALL(trsm_v2)
UNSUPPORTED_OF_ALL(trsmBatched)
#define UNSUPPORTED_INDEX(name) UNSUPPORTED(Is##name) UNSUPPORTED(Id##name) UNSUPPORTED(Ic##name) UNSUPPORTED(Iz##name)
UNSUPPORTED_INDEX(amax_v2)
UNSUPPORTED_INDEX(amin_v2)
#define UNSUPPORTED_NORM(name) UNSUPPORTED(S##name) UNSUPPORTED(D##name) UNSUPPORTED(Sc##name) UNSUPPORTED(Dz##name)
UNSUPPORTED_NORM(asum_v2)
UNSUPPORTED_NORM(nrm2_v2)
#define UNSUPPORTED_REAL(name) UNSUPPORTED(S##name) UNSUPPORTED(D##name)
UNSUPPORTED_REAL(ger_v2)
UNSUPPORTED_REAL(sbmv_v2)
UNSUPPORTED_REAL(tpttr)
UNSUPPORTED_REAL(trttp)
#define UNSUPPORTED_COMPLEX(name) UNSUPPORTED(C##name) UNSUPPORTED(Z##name)
UNSUPPORTED_COMPLEX(gerc_v2)
UNSUPPORTED_COMPLEX(geru_v2)
UNSUPPORTED(Csscal_v2)
UNSUPPORTED(Zdscal_v2)
