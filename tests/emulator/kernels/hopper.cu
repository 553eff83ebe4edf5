// Kernels for tests/emulator/test_hopper.py: each instruction of hopper.cuh, on operands that the test lays out as bytes.

#include "hopper.cuh"

constexpr int THREADS = 128;

__device__ __forceinline__ void copy_bytes(unsigned char* to, const unsigned char* from, int bytes) {
  for (int i = threadIdx.x; i < bytes; i += blockDim.x) to[i] = from[i];
}

// ---- wgmma -----------------------------------------------------------------------------------------------------------

struct Layout {
  int swizzle, leading, stride, start;
};

__device__ __forceinline__ unsigned long long descriptor(const unsigned char* matrix, Layout of) {
  return matrix_descriptor(matrix + of.start, static_cast<Swizzle>(of.swizzle), of.leading, of.stride);
}

// registers: [128][N / 2], input and output
template <Format FORMAT, int N, Major MAJOR_A, Major MAJOR_B>
__global__ void __launch_bounds__(THREADS) multiply(float* registers, const unsigned char* a, const unsigned char* b, int bytes_a,
                                                    int bytes_b, Layout layout_a, Layout layout_b, int accumulate) {
  extern __shared__ __align__(1024) unsigned char shared[];
  unsigned char* shared_b = shared + (bytes_a + 1023) / 1024 * 1024;
  copy_bytes(shared, a, bytes_a);
  copy_bytes(shared_b, b, bytes_b);
  fence_proxy_async_shared();
  __syncthreads();
  float d[N / 2];
  for (int i = 0; i < N / 2; i++) d[i] = registers[threadIdx.x * (N / 2) + i];
  wgmma_fence();
  wgmma<FORMAT, N, MAJOR_A, MAJOR_B>(d, descriptor(shared, layout_a), descriptor(shared_b, layout_b), accumulate);
  wgmma_commit();
  wgmma_wait<0>(d);
  for (int i = 0; i < N / 2; i++) registers[threadIdx.x * (N / 2) + i] = d[i];
}

// a: [128][4] words
template <Format FORMAT, int N, Major MAJOR_B>
__global__ void __launch_bounds__(THREADS) multiply_registers(float* registers, const unsigned int* a, const unsigned char* b,
                                                              int bytes_b, Layout layout_b, int accumulate) {
  extern __shared__ __align__(1024) unsigned char shared[];
  copy_bytes(shared, b, bytes_b);
  fence_proxy_async_shared();
  __syncthreads();
  float d[N / 2];
  for (int i = 0; i < N / 2; i++) d[i] = registers[threadIdx.x * (N / 2) + i];
  unsigned int words[4];
  for (int i = 0; i < 4; i++) words[i] = a[threadIdx.x * 4 + i];
  wgmma_fence();
  wgmma<FORMAT, N, MAJOR_B>(d, words, descriptor(shared, layout_b), accumulate);
  wgmma_commit();
  wgmma_wait<0>(d);
  for (int i = 0; i < N / 2; i++) registers[threadIdx.x * (N / 2) + i] = d[i];
}

// ---- copies ----------------------------------------------------------------------------------------------------------

struct Coordinates {
  int of[5];
};

template <int DIMENSIONS>
struct At {
  int of[DIMENSIONS];
  __device__ explicit At(const Coordinates& all) {
    for (int d = 0; d < DIMENSIONS; d++) of[d] = all.of[d];
  }
};

__device__ __forceinline__ MBarrier* ready_barrier(unsigned char* shared, int arrivals, int count = 1) {
  MBarrier* barrier = reinterpret_cast<MBarrier*>(shared);
  if (threadIdx.x == 0) {
    for (int i = 0; i < count; i++) mbarrier_init(barrier + i, arrivals);
    fence_mbarrier_init();
  }
  __syncthreads();
  return barrier;
}

template <int DIMENSIONS>
__global__ void load_box(unsigned char* out, const __grid_constant__ TensorMap map, Coordinates coordinates, int bytes) {
  extern __shared__ __align__(1024) unsigned char shared[];
  MBarrier* barrier = ready_barrier(shared, 1);
  const At<DIMENSIONS> at(coordinates);
  if (threadIdx.x == 0) {
    prefetch_tensor_map(&map);
    mbarrier_arrive_expect_tx(barrier, bytes);
    tensor_load(shared + 1024, &map, at.of, barrier);
  }
  mbarrier_wait(barrier, 0);
  copy_bytes(out, shared + 1024, bytes);
}

template <int DIMENSIONS>
__global__ void store_box(const __grid_constant__ TensorMap map, const unsigned char* in, Coordinates coordinates, int bytes) {
  extern __shared__ __align__(1024) unsigned char shared[];
  const At<DIMENSIONS> at(coordinates);
  copy_bytes(shared, in, bytes);
  fence_proxy_async();
  __syncthreads();
  if (threadIdx.x == 0) {
    tensor_store(&map, at.of, shared);
    bulk_commit();
    bulk_wait<0>();
  }
}

// Copies in two halves, which use the same shared memory one after the other.
__global__ void copy_in_bulk(unsigned char* out, const unsigned char* in, int bytes) {
  extern __shared__ __align__(1024) unsigned char shared[];
  MBarrier* barrier = ready_barrier(shared, 1);
  unsigned char* tile = shared + 1024;
  for (int half = 0; half < 2; half++) {
    if (threadIdx.x == 0) {
      bulk_wait_read<0>();
      mbarrier_expect_tx(barrier, bytes);
      bulk_load(tile, in + half * bytes, bytes, barrier);
      mbarrier_arrive(barrier);
    }
    while (!mbarrier_try_wait(barrier, half)) {
    }
    __syncthreads();
    if (threadIdx.x == 0) {
      bulk_store(out + half * bytes, tile, bytes);
      bulk_commit();
    }
  }
  if (threadIdx.x == 0) {
    bulk_wait<0>();
    mbarrier_inval(barrier);
  }
}

// Each of the four blocks loads 1 KB into the blocks whose bits are set in its mask.
template <class T>
__global__ void __cluster_dims__(4) multicast(T* out, const __grid_constant__ TensorMap map, const int* masks) {
  extern __shared__ __align__(1024) unsigned char shared[];
  MBarrier* barrier = ready_barrier(shared, 1);
  const unsigned int rank = cluster_rank();
  unsigned char* tiles = shared + 1024;
  for (int i = threadIdx.x; i < 4 * 1024; i += blockDim.x) tiles[i] = 0xee;
  fence_proxy_async();
  int bytes = 0;
  for (unsigned int from = 0; from < cluster_blocks(); from++) bytes += masks[from] >> rank & 1 ? 1024 : 0;
  if (threadIdx.x == 0) mbarrier_arrive_expect_tx(barrier, bytes);
  cluster_arrive();
  cluster_wait();
  if (threadIdx.x == 0) {
    const int row = 8 * static_cast<int>(rank);
    tensor_load_multicast(tiles + rank * 1024, &map, {0, row}, barrier, static_cast<unsigned short>(masks[rank]));
  }
  mbarrier_wait(barrier, 0);
  copy_bytes(out + rank * 4 * 1024, tiles, 4 * 1024);
  cluster_arrive();
  cluster_wait();
}

// ---- clusters --------------------------------------------------------------------------------------------------------

// Three times, each block passes its numbers to the next block; mbarriers order the accesses.
__global__ void __cluster_dims__(2, 2, 1) pass_around(int* out, const int* in) {
  extern __shared__ __align__(1024) unsigned char shared[];
  int* numbers = reinterpret_cast<int*>(shared + 1024);
  MBarrier* full = ready_barrier(shared, blockDim.x, 3);  // one for each round: a block can be two rounds ahead of the next
  const unsigned int rank = cluster_rank(), next = (rank + 1) % cluster_blocks();
  const int block = blockIdx.x + gridDim.x * blockIdx.y, thread = threadIdx.x;
  int mine = in[block * blockDim.x + thread];
  cluster_arrive();
  cluster_wait();
  for (int round = 0; round < 3; round++) {
    map_shared(numbers, next)[round * blockDim.x + thread] = mine;
    mbarrier_arrive_remote(full + round, next);
    mbarrier_wait_cluster(full + round, 0);
    mine = numbers[round * blockDim.x + (thread + 1) % blockDim.x];
  }
  out[block * blockDim.x + thread] = mine + 1000 * static_cast<int>(rank);
  cluster_arrive();
  cluster_wait();
}

// ---- warps and warpgroups --------------------------------------------------------------------------------------------

__global__ void elect(int* out) { out[threadIdx.x] = elect_one(); }

template <int FEWER, int MORE>
__global__ void __launch_bounds__(2 * THREADS, 1) resize(int* out) {
  if (threadIdx.x < THREADS)
    set_fewer_registers<FEWER>();
  else
    set_more_registers<MORE>();
  out[threadIdx.x] = threadIdx.x;
}
