// C = A B^T on Hopper, for A (M, K), B (N, K) and C (M, N), all row-major: in bfloat16, or in float with TF32 products.
//
// A block computes a tile of 128 x 128.  One thread of its first warpgroup, the producer, starts tensor copies that fill a
// ring buffer of stages; the other two warpgroups, the consumers, multiply 64 rows each.  Two mbarriers guard each stage:
// `full` counts the bytes written, `empty` gets one arrival from each warp that has read the stage.  In a cluster the two
// blocks compute tiles below each other; each loads half of the tile of B that they share, for both.

#include "hopper.cuh"

constexpr int ROWS = 128, COLUMNS = 128, STAGES = 4, CONSUMERS = 2, WARPGROUP = 128;
constexpr int LINE = 128;  // bytes of K in a stage, and of a row of C that one copy stores: the swizzle's span
constexpr int OPERAND = ROWS * LINE, STAGE = 2 * OPERAND;

template <Format FORMAT>
struct Element;
template <>
struct Element<Format::BF16> {
  static constexpr int BYTES = 2;
};
template <>
struct Element<Format::TF32> {
  static constexpr int BYTES = 4;
};

// Dynamic shared memory of a block; the tiles of C reuse the ring buffer.
struct Shared {
  unsigned char stages[STAGES][STAGE];  // A, then B
  MBarrier full[STAGES], empty[STAGES];
};

template <int CLUSTER>
__device__ __forceinline__ void sync_cluster() {
  if constexpr (CLUSTER > 1) {
    cluster_arrive();
    cluster_wait();
  } else {
    __syncthreads();
  }
}

// Called by one thread.
template <Format FORMAT, int CLUSTER>
__device__ __forceinline__ void produce(Shared& shared, const TensorMap* a, const TensorMap* b, int row, int column, int steps) {
  constexpr int DEPTH = LINE / Element<FORMAT>::BYTES, SHARE = COLUMNS / CLUSTER;
  const int rank = CLUSTER > 1 ? static_cast<int>(cluster_rank()) : 0;
  prefetch_tensor_map(a);
  prefetch_tensor_map(b);
  for (int step = 0; step < steps; step++) {
    const int stage = step % STAGES, parity = step / STAGES % 2;
    unsigned char* tile_a = shared.stages[stage];
    unsigned char* tile_b = tile_a + OPERAND + rank * SHARE * LINE;
    mbarrier_wait(&shared.empty[stage], parity ^ 1);
    mbarrier_arrive_expect_tx(&shared.full[stage], STAGE);
    tensor_load(tile_a, a, {step * DEPTH, row}, &shared.full[stage]);
    if constexpr (CLUSTER > 1)
      tensor_load_multicast(tile_b, b, {step * DEPTH, column + rank * SHARE}, &shared.full[stage], (1 << CLUSTER) - 1);
    else
      tensor_load(tile_b, b, {step * DEPTH, column}, &shared.full[stage]);
  }
}

template <int CLUSTER>
__device__ __forceinline__ void hand_back(Shared& shared, int stage) {
  if (threadIdx.x % 32 != 0) return;
  if constexpr (CLUSTER > 1)
    for (unsigned int rank = 0; rank < CLUSTER; rank++) mbarrier_arrive_remote_async(&shared.empty[stage], rank);
  else
    mbarrier_arrive(&shared.empty[stage]);
}

template <Format FORMAT, int CLUSTER>
__device__ __forceinline__ void consume(Shared& shared, float (&d)[COLUMNS / 2], int consumer, int steps) {
  for (int step = 0; step < steps; step++) {
    const int stage = step % STAGES, parity = step / STAGES % 2;
    const unsigned char* tile_a = shared.stages[stage] + consumer * 64 * LINE;
    const unsigned char* tile_b = shared.stages[stage] + OPERAND;
    mbarrier_wait(&shared.full[stage], parity);
    wgmma_fence();
#pragma unroll
    for (int byte = 0; byte < LINE; byte += 32)
      wgmma<FORMAT, COLUMNS>(d, matrix_descriptor(tile_a + byte, Swizzle::bytes128, 16, 8 * LINE),
                             matrix_descriptor(tile_b + byte, Swizzle::bytes128, 16, 8 * LINE), step + byte > 0);
    wgmma_commit();
    wgmma_wait<1>();  // the previous stage has been read; this stage's multiplications continue
    if (step > 0) hand_back<CLUSTER>(shared, (step - 1) % STAGES);
  }
  wgmma_wait<0>(d);
}

// Stores a warpgroup's 64 rows of C through shared memory, in the swizzled layout.
template <Format FORMAT>
__device__ __forceinline__ void store(unsigned char* tile, const float (&d)[COLUMNS / 2], const TensorMap* c, int row, int column,
                                      int consumer) {
  constexpr int BYTES = Element<FORMAT>::BYTES, SLICE = LINE / BYTES;  // columns of one copy
  const int thread = threadIdx.x % WARPGROUP, warp = thread / 32, lane = thread % 32;
#pragma unroll
  for (int i = 0; i < COLUMNS / 2; i += 2) {
    const int r = warp * 16 + lane / 4 + i / 2 % 2 * 8, byte = (i / 4 * 8 + lane % 4 * 2) * BYTES;
    unsigned char* line = tile + byte / LINE * 64 * LINE + r * LINE;
    unsigned char* to = line + ((byte % LINE / 16 ^ r % 8) * 16 + byte % 16);
    if constexpr (FORMAT == Format::BF16)
      *reinterpret_cast<unsigned int*>(to) = pack_bf16(d[i], d[i + 1]);
    else
      *reinterpret_cast<float2*>(to) = make_float2(d[i], d[i + 1]);
  }
  fence_proxy_async_shared();
  bar_sync(2 + consumer, WARPGROUP);
  if (thread != 0) return;
#pragma unroll
  for (int slice = 0; slice < COLUMNS / SLICE; slice++)
    tensor_store(c, {column + slice * SLICE, row + consumer * 64}, tile + slice * 64 * LINE);
  bulk_commit();
  bulk_wait<0>();
}

template <Format FORMAT, int CLUSTER>
__device__ __forceinline__ void multiply(const TensorMap* a, const TensorMap* b, const TensorMap* c, int depth) {
  extern __shared__ __align__(1024) unsigned char dynamic[];
  Shared& shared = *reinterpret_cast<Shared*>(dynamic);
  constexpr int DEPTH = LINE / Element<FORMAT>::BYTES;
  const int row = blockIdx.x * ROWS, column = blockIdx.y * COLUMNS, steps = (depth + DEPTH - 1) / DEPTH;
  const int warpgroup = threadIdx.x / WARPGROUP;
  if (threadIdx.x == 0) {
    for (int stage = 0; stage < STAGES; stage++) {
      mbarrier_init(&shared.full[stage], 1);
      mbarrier_init(&shared.empty[stage], CLUSTER * CONSUMERS * 4);
    }
    fence_mbarrier_init();
  }
  sync_cluster<CLUSTER>();
  if (warpgroup == 0) {
    set_fewer_registers<40>();
    if (threadIdx.x == 0) produce<FORMAT, CLUSTER>(shared, a, b, row, column, steps);
  } else {
    set_more_registers<232>();
    float d[COLUMNS / 2];
    consume<FORMAT, CLUSTER>(shared, d, warpgroup - 1, steps);
    bar_sync(1, CONSUMERS * WARPGROUP);  // both consumers have finished reading the ring buffer
    store<FORMAT>(dynamic + (warpgroup - 1) * 64 * COLUMNS * Element<FORMAT>::BYTES, d, c, row, column, warpgroup - 1);
  }
  if constexpr (CLUSTER > 1) sync_cluster<CLUSTER>();  // the other block may still arrive at this one's barriers
}

template <Format FORMAT>
__global__ void __launch_bounds__((1 + CONSUMERS) * WARPGROUP, 1)
    gemm_wgmma(const __grid_constant__ TensorMap a, const __grid_constant__ TensorMap b, const __grid_constant__ TensorMap c,
               int depth) {
  multiply<FORMAT, 1>(&a, &b, &c, depth);
}

template <Format FORMAT>
__global__ void __cluster_dims__(2) __launch_bounds__((1 + CONSUMERS) * WARPGROUP, 1)
    gemm_wgmma_pairs(const __grid_constant__ TensorMap a, const __grid_constant__ TensorMap b, const __grid_constant__ TensorMap c,
                     int depth) {
  multiply<FORMAT, 2>(&a, &b, &c, depth);
}
