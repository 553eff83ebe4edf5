// Reductions in an order fixed by the launch's shape: the same inputs give the same bits, every run, on every card.
//
// Nothing here adds with atomics.  A sum over the grid is: one partial a block, a ticket, and the block that drew the
// last ticket adds the partials up.

struct Sum {
  template <class T>
  static __device__ T combine(T a, T b) { return a + b; }
};

struct Maximum {
  template <class T>
  static __device__ T combine(T a, T b) { return a > b ? a : b; }
};

// Every lane gets the result of its whole warp.  All 32 lanes call it.
template <class Operation, class T>
__device__ __forceinline__ T warp_reduce(T value) {
#pragma unroll
  for (int distance = 16; distance > 0; distance /= 2)
    value = Operation::combine(value, __shfl_xor_sync(0xffffffffu, value, distance));
  return value;
}

// Every thread gets the result of its whole block, of at most 32 full warps.  All threads call it.
template <class Operation, class T>
__device__ __forceinline__ T block_reduce(T value) {
  __shared__ T of_warp[32];
  value = warp_reduce<Operation>(value);
  __syncthreads();  // a previous call's readers are done
  if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = value;
  __syncthreads();
  value = of_warp[0];
  for (int warp = 1; warp < blockDim.x / 32; warp++) value = Operation::combine(value, of_warp[warp]);
  return value;
}

// True in all threads of the one block that comes here last; what the other blocks' threads 0 wrote before is then
// visible to it.  atomicInc wraps to zero at the last block, so the ticket is ready for the next launch.
__device__ __forceinline__ bool last_block(unsigned int* ticket) {
  __shared__ bool last;
  __syncthreads();
  if (threadIdx.x == 0) {
    __threadfence();
    last = atomicInc(ticket, gridDim.x - 1) == gridDim.x - 1;
    __threadfence();
  }
  __syncthreads();
  return last;
}

// The sum of one partial a block.  Only the last block calls it; every thread gets the sum.
template <class T>
__device__ __forceinline__ T sum_of_partials(const T* partials) {
  T sum = T(0);
  // __ldcg reads past the L1 cache, which knows nothing of what other processors wrote
  for (int block = threadIdx.x; block < gridDim.x; block += blockDim.x) sum += __ldcg(partials + block);
  return block_reduce<Sum>(sum);
}
