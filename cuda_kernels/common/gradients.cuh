// The walk over the gradients of a launch over many tensors: each block processes ELEMENTS_PER_BLOCK elements of one of them.

#include "pack.cuh"
#include "tensor_table.cuh"

// Calls body(pointer, valid, width) for each pack of four in this block's part of its tensor.
template <class T, int CAPACITY, class Body>
__device__ __forceinline__ void for_each_pack_of_gradient(const TensorTable<1, CAPACITY>& table, Body body) {
  const int tensor = table.tensor_of_block();
  T* grads = table.template pointer<T>(0, tensor);
  const int width = access_width(0, grads);
  const long long first = static_cast<long long>(blockIdx.x - table.first_block[tensor]) * ELEMENTS_PER_BLOCK;
#pragma unroll
  for (int offset = 0; offset < ELEMENTS_PER_BLOCK; offset += 4 * 256) {
    const long long start = first + offset + 4 * threadIdx.x;
    if (start < table.counts[tensor]) body(grads + start, table.counts[tensor] - start, width);
  }
}
