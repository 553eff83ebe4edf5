// c (rows, columns) = a (rows, depth) b (columns, depth)^T on tensor cores, accumulated in float32: sm_80+.
//
// A block of eight warps computes a 128 x 128 tile of c, each warp 64 x 32 of it, in steps of 64 bytes of depth (16 tf32, 32
// bf16).  Asynchronous copies load the steps into a ring buffer of STAGES, BYTES at a time: 16, or 4 if the rows of a or b
// are not at multiples of 16 bytes.  Elements outside a and b are zero.  A row of 64 bytes has four chunks; chunk i of row r
// is stored at i ^ r / 2 % 4, so that the eight rows of an ldmatrix are in different banks.

#include "primitives.cuh"

constexpr int TILE = 128, STAGES = 3, ROW = 64;  // ROW in bytes

struct Bf16 {
  using Element = bfloat16;
  static __device__ __forceinline__ unsigned int rounded(unsigned int pair) { return pair; }
  static __device__ __forceinline__ void multiply(float (&d)[4], const unsigned int (&a)[4], const unsigned int (&b)[2]) {
    mma_m16n8k16_bf16(d, a, b);
  }
};

struct Tf32 {
  using Element = float;
  static __device__ __forceinline__ unsigned int rounded(unsigned int bits) { return float_to_tf32(__uint_as_float(bits)); }
  static __device__ __forceinline__ void multiply(float (&d)[4], const unsigned int (&a)[4], const unsigned int (&b)[2]) {
    mma_m16n8k8_tf32(d, a, b);
  }
};

__device__ __forceinline__ int chunk_at(int row, int chunk) { return row * ROW + (chunk ^ row / 2 % 4) * 16; }

// One step of one operand: 128 lines from `line0`, 64 bytes of depth from `byte0`.
template <int BYTES>
__device__ __forceinline__ void copy_step(
    unsigned char* shared, const unsigned char* operand, int lines, int depth_bytes, long long pitch, int line0, int byte0) {
  constexpr int ACROSS = ROW / BYTES;
  for (int i = threadIdx.x; i < TILE * ACROSS; i += 256) {
    const int row = i / ACROSS, byte = i % ACROSS * BYTES;
    const int left = line0 + row < lines ? depth_bytes - byte0 - byte : 0;
    const int valid = left < 0 ? 0 : left > BYTES ? BYTES : left;
    const unsigned char* from = valid ? operand + (line0 + row) * pitch + byte0 + byte : operand;
    unsigned char* to = shared + chunk_at(row, byte / 16) + byte % 16;
    if constexpr (BYTES == 16) cp_async_cg(to, from, valid);
    else cp_async<BYTES>(to, from, valid);
  }
}

template <class Format, int BYTES>
__global__ void __launch_bounds__(256) gemm_mma(
    float* c, const typename Format::Element* a, const typename Format::Element* b, int rows, int columns, int depth,
    int a_pitch, int b_pitch) {
  __shared__ __align__(128) unsigned char shared[STAGES][2][TILE * ROW];
  constexpr int SIZE = sizeof(typename Format::Element);
  const int row0 = blockIdx.y * TILE, column0 = blockIdx.x * TILE, steps = (depth * SIZE + ROW - 1) / ROW;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int warp_row = warp / 4 * 64, warp_column = warp % 4 * 32;
  float sums[4][4][4] = {};

  const auto copy = [&](int step) {
    if (step < steps) {
      auto& stage = shared[step % STAGES];
      const auto *of_a = reinterpret_cast<const unsigned char*>(a), *of_b = reinterpret_cast<const unsigned char*>(b);
      copy_step<BYTES>(stage[0], of_a, rows, depth * SIZE, static_cast<long long>(a_pitch) * SIZE, row0, step * ROW);
      copy_step<BYTES>(stage[1], of_b, columns, depth * SIZE, static_cast<long long>(b_pitch) * SIZE, column0, step * ROW);
    }
    cp_async_commit();
  };

  for (int step = 0; step < STAGES - 1; step++) copy(step);
  for (int step = 0; step < steps; step++) {
    cp_async_wait<STAGES - 2>();
    __syncthreads();  // this step is visible to all threads, and all have finished reading the previous one
    copy(step + STAGES - 1);
    const auto& stage = shared[step % STAGES];
#pragma unroll
    for (int chunk = 0; chunk < 4; chunk += 2) {
      unsigned int of_a[4][4], of_b[4][2];
#pragma unroll
      for (int i = 0; i < 4; i++) {
        const int row = warp_row + 16 * i + lane % 16;
        ldmatrix(of_a[i], stage[0] + chunk_at(row, chunk + lane / 16));
#pragma unroll
        for (int r = 0; r < 4; r++) of_a[i][r] = Format::rounded(of_a[i][r]);
      }
#pragma unroll
      for (int j = 0; j < 4; j += 2) {
        const int column = warp_column + 8 * j + lane / 16 * 8 + lane % 8;
        unsigned int of_two[4];
        ldmatrix(of_two, stage[1] + chunk_at(column, chunk + lane / 8 % 2));
#pragma unroll
        for (int r = 0; r < 4; r++) of_b[j + r / 2][r % 2] = Format::rounded(of_two[r]);
      }
#pragma unroll
      for (int i = 0; i < 4; i++)
#pragma unroll
        for (int j = 0; j < 4; j++) Format::multiply(sums[i][j], of_a[i], of_b[j]);
    }
  }

#pragma unroll
  for (int i = 0; i < 4; i++)
#pragma unroll
    for (int j = 0; j < 4; j++)
#pragma unroll
      for (int e = 0; e < 4; e++) {
        const int row = row0 + warp_row + 16 * i + lane / 4 + e / 2 * 8;
        const int column = column0 + warp_column + 8 * j + lane % 4 * 2 + e % 2;
        if (row < rows && column < columns) c[static_cast<long long>(row) * columns + column] = sums[i][j][e];
      }
}
