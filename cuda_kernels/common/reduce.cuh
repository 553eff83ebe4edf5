// Reductions in an order that depends only on the launch's shape: the same inputs give the same bits on every run and GPU.
//
// No floating-point atomics.  For a sum over the grid, each block writes a partial and draws a ticket; the block that draws
// the last ticket adds the partials.

struct Sum {
  template <class T>
  static __device__ T combine(T a, T b) { return a + b; }
};

struct Maximum {
  template <class T>
  static __device__ T combine(T a, T b) { return a > b ? a : b; }
};

// The least finite number, where the maximum of a softmax begins.
template <class T>
constexpr T LOWEST = T(-3.402823466e38f);
template <>
constexpr double LOWEST<double> = -1.7976931348623157e308;

// Returns the warp's result in every lane.  All 32 lanes must call it.
template <class Operation, class T>
__device__ __forceinline__ T warp_reduce(T value) {
#pragma unroll
  for (int distance = 16; distance > 0; distance /= 2)
    value = Operation::combine(value, __shfl_xor_sync(0xffffffffu, value, distance));
  return value;
}

// Returns the block's result in every thread.  All threads of a block of at most 32 full warps must call it.
template <class Operation, class T>
__device__ __forceinline__ T block_reduce(T value) {
  __shared__ T of_warp[32];
  value = warp_reduce<Operation>(value);
  __syncthreads();  // all threads have read the result of a previous call
  if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = value;
  __syncthreads();
  value = of_warp[0];
  for (int warp = 1; warp < blockDim.x / 32; warp++) value = Operation::combine(value, of_warp[warp]);
  return value;
}

// Returns true in all threads of the last of `count` blocks that call it; that block then sees the earlier writes of the
// others.  atomicInc wraps to zero at the last block, so the ticket is ready for the next launch.
__device__ __forceinline__ bool is_last(unsigned int* ticket, unsigned int count) {
  __shared__ bool last;
  __syncthreads();
  if (threadIdx.x == 0) {
    __threadfence();
    last = atomicInc(ticket, count - 1) == count - 1;
    __threadfence();
  }
  __syncthreads();
  return last;
}

__device__ __forceinline__ bool last_block(unsigned int* ticket) { return is_last(ticket, gridDim.x); }

// Returns the sum of the blocks' partials in every thread.  Only the last block calls it.
template <class T>
__device__ __forceinline__ T sum_of_partials(const T* partials) {
  T sum = T(0);
  // __ldcg bypasses the L1 cache, which is not coherent with the writes of other SMs
  for (int block = threadIdx.x; block < gridDim.x; block += blockDim.x) sum += __ldcg(partials + block);
  return block_reduce<Sum>(sum);
}
