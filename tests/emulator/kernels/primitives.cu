// One small kernel per primitive: registers are loaded from memory and stored there, so that a test sees each lane's values.

#include "primitives.cuh"

// ---- multiply and accumulate -------------------------------------------------------------------------------------------

#define MMA(name, instruction, Sum, D, A, B)                                                                   \
  struct name {                                                                                                \
    using T = Sum;                                                                                             \
    static constexpr int d = D, a = A, b = B;                                                                  \
    static __device__ void run(Sum (&d)[D], const unsigned int (&a)[A], const unsigned int (&b)[B]) { instruction(d, a, b); } \
  };
MMA(F16_8, mma_m16n8k8_f16, float, 4, 2, 1)
MMA(F16_16, mma_m16n8k16_f16, float, 4, 4, 2)
MMA(F16_8_HALF, mma_m16n8k8_f16, unsigned int, 2, 2, 1)
MMA(F16_16_HALF, mma_m16n8k16_f16, unsigned int, 2, 4, 2)
MMA(BF16_8, mma_m16n8k8_bf16, float, 4, 2, 1)
MMA(BF16_16, mma_m16n8k16_bf16, float, 4, 4, 2)
MMA(TF32_4, mma_m16n8k4_tf32, float, 4, 2, 1)
MMA(TF32_8, mma_m16n8k8_tf32, float, 4, 4, 2)

template <class M>
__global__ void multiply(typename M::T* d, const unsigned int* a, const unsigned int* b) {
  typename M::T of_d[M::d];
  unsigned int of_a[M::a], of_b[M::b];
  for (int i = 0; i < M::d; i++) of_d[i] = d[threadIdx.x * M::d + i];
  for (int i = 0; i < M::a; i++) of_a[i] = a[threadIdx.x * M::a + i];
  for (int i = 0; i < M::b; i++) of_b[i] = b[threadIdx.x * M::b + i];
  M::run(of_d, of_a, of_b);
  for (int i = 0; i < M::d; i++) d[threadIdx.x * M::d + i] = of_d[i];
}

template <class T>
__global__ void multiply_doubles(T* d, const T* a, const T* b) {
  double of_d[2] = {d[2 * threadIdx.x], d[2 * threadIdx.x + 1]};
  mma_m8n8k4_f64(of_d, a[threadIdx.x], b[threadIdx.x]);
  for (int i = 0; i < 2; i++) d[2 * threadIdx.x + i] = of_d[i];
}

// ---- 8 x 8 matrices ----------------------------------------------------------------------------------------------------

// memory: 32 rows of 8 elements; lane i passes the address of row rows[i]
template <int N, bool TRANSPOSED>
__global__ void load(unsigned int* registers, const unsigned short* memory, const int* rows) {
  __shared__ __align__(16) unsigned short shared[32][8];
  for (int i = threadIdx.x; i < 256; i += 32) shared[i / 8][i % 8] = memory[i];
  __syncthreads();
  unsigned int r[N];
  if (TRANSPOSED) ldmatrix_trans(r, shared[rows[threadIdx.x]]);
  else ldmatrix(r, shared[rows[threadIdx.x]]);
  for (int i = 0; i < N; i++) registers[threadIdx.x * N + i] = r[i];
}

template <int N, bool TRANSPOSED>
__global__ void store(unsigned short* memory, const unsigned int* registers, const int* rows) {
  __shared__ __align__(16) unsigned short shared[32][8];
  for (int i = threadIdx.x; i < 256; i += 32) shared[i / 8][i % 8] = 0;
  __syncthreads();
  unsigned int r[N];
  for (int i = 0; i < N; i++) r[i] = registers[threadIdx.x * N + i];
  if (TRANSPOSED) stmatrix_trans(shared[rows[threadIdx.x]], r);
  else stmatrix(shared[rows[threadIdx.x]], r);
  __syncthreads();
  for (int i = threadIdx.x; i < 256; i += 32) memory[i] = shared[i / 8][i % 8];
}

// ---- asynchronous copies -----------------------------------------------------------------------------------------------

// Thread t copies BYTES bytes, of which valid[t] are valid, in two groups, and reads the bytes that another thread copied.
template <int BYTES, bool PAST_L1>
__global__ void copy(unsigned char* to, const unsigned char* from, const int* valid) {
  __shared__ __align__(16) unsigned char shared[2][64 * BYTES];
  const int at = threadIdx.x * BYTES;
  if constexpr (PAST_L1) cp_async_cg(&shared[0][at], from + at, valid[threadIdx.x]);
  else cp_async<BYTES>(&shared[0][at], from + at, valid[threadIdx.x]);
  cp_async_commit();
  cp_async<BYTES>(&shared[1][at], from + at);
  cp_async_commit();
  cp_async_wait<1>();
  __syncthreads();
  const int other = (63 - threadIdx.x) * BYTES;
  for (int i = 0; i < BYTES; i++) to[other + i] = shared[0][other + i];
  cp_async_wait_all();
  __syncthreads();
  for (int i = 0; i < BYTES; i++) to[64 * BYTES + other + i] = shared[1][other + i];
}

// ---- barriers, reductions, dependent launches ----------------------------------------------------------------------------

// The first two of four warps pass data to the last two through two barriers of 128 threads; then the first three sync.
template <class T>
__global__ void hand_over(T* out, const T* in) {
  __shared__ T piece[64];
  const int warp = threadIdx.x / 32, t = threadIdx.x % 64;
  for (int round = 0; round < 3; round++) {
    if (warp < 2) {
      if (round > 0) bar_sync(2, 128);
      piece[t] = in[64 * round + t];
      bar_arrive(1, 128);
    } else {
      bar_sync(1, 128);
      out[64 * round + t] = piece[63 - t];
      if (round < 2) bar_arrive(2, 128);
    }
  }
  if (warp < 3) bar_sync(3, 96);
}

template <class T>
__global__ void reduce(unsigned int* out, const unsigned int* in, unsigned int mask) {
  const unsigned int value = in[threadIdx.x];
  if (mask >> threadIdx.x & 1u) {
    unsigned int* mine = out + 9 * threadIdx.x;
    mine[0] = redux_add(mask, value);
    mine[1] = redux_min(mask, value);
    mine[2] = redux_max(mask, value);
    mine[3] = redux_add(mask, static_cast<int>(value));
    mine[4] = redux_min(mask, static_cast<int>(value));
    mine[5] = redux_max(mask, static_cast<int>(value));
    mine[6] = redux_and(mask, value);
    mine[7] = redux_or(mask, value);
    mine[8] = redux_xor(mask, value);
  }
}

template <class T>
__global__ void depend(T* out, const T* in) {
  griddepcontrol_wait();
  out[threadIdx.x] = in[threadIdx.x];
  griddepcontrol_launch_dependents();
}

// ---- conversions -------------------------------------------------------------------------------------------------------

template <class T>
__global__ void narrow(unsigned int* out, const float* in, int count) {
  for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < count; i += gridDim.x * blockDim.x) {
    const float other = in[count - 1 - i];
    out[i] = float16(in[i]).bits;
    out[count + i] = bfloat16(in[i]).bits;
    out[2 * count + i] = pack_f16(in[i], other);
    out[3 * count + i] = pack_bf16(in[i], other);
  }
}

template <class T>
__global__ void narrow_to_tf32(unsigned int* out, const float* in, int count) {
  for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < count; i += gridDim.x * blockDim.x) out[i] = float_to_tf32(in[i]);
}

// in: all 16-bit numbers
template <class T>
__global__ void widen(float* out, const unsigned short* in) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x, count = gridDim.x * blockDim.x;
  float16 half;
  half.bits = in[i];
  bfloat16 brain;
  brain.bits = in[i];
  out[i] = half;
  out[count + i] = brain;
  const unsigned int pair = in[i] | static_cast<unsigned int>(in[count - 1 - i]) << 16;
  out[2 * count + i] = unpack_f16(pair).y;
  out[3 * count + i] = unpack_bf16(pair).y;
}
