// Users' kernels with CUDA's 16-bit types.

#include <cuda_bf16.h>
#include <cuda_fp16.h>

__global__ void halves(__half* out, const __half* in) {
  const int t = threadIdx.x;
  const __half x = in[t], y = in[63 - t];
  out[t] = x + y;
  out[64 + t] = __hmul(x, y);
  out[128 + t] = x / y;
  out[192 + t] = hexp(x);
  out[256 + t] = hsqrt(__habs(x));
  const __half2 both = __hfma2(__half2half2(x), __halves2half2(y, y), __half2half2(x));
  out[320 + t] = __low2half(both);
  out[384 + t] = __hmax(x, y);
  out[448 + t] = __shfl_xor_sync(0xffffffffu, x, 1);
  out[512 + t] = __high2half(h2tanh(__half2half2(x)));
  out[576 + t] = __int2half_rn(__half2int_rn(x));
}

__global__ void brains(float* out, const float* in) {
  const int t = threadIdx.x;
  const __nv_bfloat16 x = __float2bfloat16(in[t]), one = __float2bfloat16(1.0f);
  out[t] = __bfloat162float(__hfma(x, x, one));
  out[64 + t] = static_cast<float>(hlog(one + __habs(x)));
}

// shared memory of a type with constructors
__global__ void reverse(__half* out, const __half* in) {
  __shared__ __half tile[64];
  const int t = threadIdx.x;
  tile[t] = in[t];
  __syncthreads();
  // a test removes the barrier above

  out[t] = tile[63 - t];
}
