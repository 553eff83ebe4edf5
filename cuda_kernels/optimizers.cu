// Optimizers: one launch over all parameters of a group.  Each block processes 2048 elements of one tensor.
//
// Each is an update rule (common/update_rules.cuh), whose functions are called by one kernel body, update_tensors.
// The hyperparameters and the counters are in device memory, so that a CUDA graph uses their current values.  All blocks
// read the counters first; the last block to finish advances them.  A launch does nothing if *skip is not 0: the gradients of a
// scaled loss were not finite.
//
// Versions: 1. packs of four, pointers by value: memory-bound.  2. update rules (this one).  Next: unscaling and clipping
// fused in.

#include "common/pack.cuh"
#include "common/reduce.cuh"
#include "common/tensor_table.cuh"
#include "common/update_rules.cuh"

// ---- the kernel body ------------------------------------------------------------------------------------------------

// Calls body(start, valid) for each pack of four in this block's part of `count` elements.
template <class Body>
__device__ __forceinline__ void for_each_pack_of_block(long long first, long long count, Body body) {
#pragma unroll
  for (int offset = 0; offset < ELEMENTS_PER_BLOCK; offset += 4 * 256) {
    const long long start = first + offset + 4 * threadIdx.x;
    if (start < count) body(start, count - start);
  }
}

template <class Rule, int LISTS, int CAPACITY, int COUNTERS>
__device__ __forceinline__ void load_counters(
    double (&counters)[COUNTERS], const TensorTable<LISTS, CAPACITY>& table, int tensor) {
#pragma unroll
  for (int c = 0; c < COUNTERS; c++) counters[c] = table.template pointer<double>(1 + Rule::STATES + c, tensor)[0];
}

// Updates all tensors of a table whose lists are the parameters, the states of the rule, the counters and the gradients.
template <class Rule, class T, int LISTS, int CAPACITY>
__device__ __forceinline__ void update_tensors(
    const TensorTable<LISTS, CAPACITY>& table, const double* hyperparameters, const double* skip,
    unsigned int* ticket, int maximize) {
  if (skip != nullptr && skip[0] != 0.0) return;  // all blocks alike
  using A = Accumulator<T>;
  constexpr int STATES = Rule::STATES;
  const int tensor = table.tensor_of_block();
  double counters[LISTS - STATES - 2];
  __shared__ double shared_factors[Rule::FACTORS];
  if (threadIdx.x == 0) {  // float64 pow is slow on most GPUs
    load_counters<Rule>(counters, table, tensor);
    Rule::prepare(shared_factors, counters, hyperparameters);
  }
  __syncthreads();
  A factors[Rule::FACTORS];
#pragma unroll
  for (int f = 0; f < Rule::FACTORS; f++) factors[f] = A(shared_factors[f]);
  T* params = table.template pointer<T>(0, tensor);
  const T* grads = table.template pointer<const T>(LISTS - 1, tensor);
  T* states[STATES];
  int width = access_width(0, params, grads);
#pragma unroll
  for (int k = 0; k < STATES; k++) {
    states[k] = table.template pointer<T>(1 + k, tensor);
    width = min(width, access_width(0, states[k]));
  }
  const long long first = static_cast<long long>(blockIdx.x - table.first_block[tensor]) * ELEMENTS_PER_BLOCK;
  for_each_pack_of_block(first, table.counts[tensor], [&](long long start, long long valid) {
    update_pack<Rule>(params, states, grads, factors, maximize, start, valid, width);
  });
  if (!last_block(ticket)) return;
  for (int each = threadIdx.x; each < table.tensors; each += blockDim.x) {
    load_counters<Rule>(counters, table, each);
    Rule::advance(counters, hyperparameters);
#pragma unroll
    for (int c = 0; c < LISTS - STATES - 2; c++) table.template pointer<double>(1 + STATES + c, each)[0] = counters[c];
  }
}

// averages = (1 - weight) averages + weight values, which is exact at weight 1.
template <class T, int CAPACITY>
__global__ void __launch_bounds__(256) average_step(
    const __grid_constant__ TensorTable<2, CAPACITY> table, const double* weight) {
  using A = Accumulator<T>;
  const int tensor = table.tensor_of_block();
  T* averages = table.template pointer<T>(0, tensor);
  const T* values = table.template pointer<const T>(1, tensor);
  const A share = A(weight[0]), rest = A(1.0 - weight[0]);
  const int width = access_width(0, averages, values);
  const long long first = static_cast<long long>(blockIdx.x - table.first_block[tensor]) * ELEMENTS_PER_BLOCK;
  for_each_pack_of_block(first, table.counts[tensor], [&](long long start, long long valid) {
    Pack<A, 4> a = load_pack<4>(averages + start, valid, width);
    const Pack<A, 4> b = load_pack<4>(values + start, valid, width);
#pragma unroll
    for (int e = 0; e < 4; e++) a.v[e] = rest * a.v[e] + share * b.v[e];
    store_pack(averages + start, a, valid, width);
  });
}

// ---- entry points ----------------------------------------------------------------------------------------------------

template <class T, bool MOMENTUM, bool NESTEROV, int CAPACITY>
__global__ void __launch_bounds__(256) sgd_step(
    const __grid_constant__ TensorTable<4, CAPACITY> table, const double* hyperparameters, const double* skip,
    unsigned int* ticket, int maximize) {
  update_tensors<Sgd<MOMENTUM, NESTEROV>, T>(table, hyperparameters, skip, ticket, maximize);
}

template <class T, bool AMSGRAD, bool DECOUPLED, int CAPACITY>
__global__ void __launch_bounds__(256) adam_step(
    const __grid_constant__ TensorTable<6, CAPACITY> table, const double* hyperparameters, const double* skip,
    unsigned int* ticket, int maximize) {
  update_tensors<Adam<AMSGRAD, DECOUPLED>, T>(table, hyperparameters, skip, ticket, maximize);
}

template <class T, int CAPACITY>
__global__ void __launch_bounds__(256) adamax_step(
    const __grid_constant__ TensorTable<5, CAPACITY> table, const double* hyperparameters, const double* skip,
    unsigned int* ticket, int maximize) {
  update_tensors<Adamax, T>(table, hyperparameters, skip, ticket, maximize);
}

template <class T, bool DECOUPLED, int CAPACITY>
__global__ void __launch_bounds__(256) nadam_step(
    const __grid_constant__ TensorTable<6, CAPACITY> table, const double* hyperparameters, const double* skip,
    unsigned int* ticket, int maximize) {
  update_tensors<Nadam<DECOUPLED>, T>(table, hyperparameters, skip, ticket, maximize);
}

template <class T, bool DECOUPLED, int CAPACITY>
__global__ void __launch_bounds__(256) radam_step(
    const __grid_constant__ TensorTable<5, CAPACITY> table, const double* hyperparameters, const double* skip,
    unsigned int* ticket, int maximize) {
  update_tensors<Radam<DECOUPLED>, T>(table, hyperparameters, skip, ticket, maximize);
}

template <class T, bool MOMENTUM, bool CENTERED, int CAPACITY>
__global__ void __launch_bounds__(256) rmsprop_step(
    const __grid_constant__ TensorTable<6, CAPACITY> table, const double* hyperparameters, const double* skip,
    unsigned int* ticket, int maximize) {
  update_tensors<Rmsprop<MOMENTUM, CENTERED>, T>(table, hyperparameters, skip, ticket, maximize);
}

template <class T, int CAPACITY>
__global__ void __launch_bounds__(256) adagrad_step(
    const __grid_constant__ TensorTable<4, CAPACITY> table, const double* hyperparameters, const double* skip,
    unsigned int* ticket, int maximize) {
  update_tensors<Adagrad, T>(table, hyperparameters, skip, ticket, maximize);
}

template <class T, int CAPACITY>
__global__ void __launch_bounds__(256) adadelta_step(
    const __grid_constant__ TensorTable<5, CAPACITY> table, const double* hyperparameters, const double* skip,
    unsigned int* ticket, int maximize) {
  update_tensors<Adadelta, T>(table, hyperparameters, skip, ticket, maximize);
}

template <class T, int CAPACITY>
__global__ void __launch_bounds__(256) asgd_step(
    const __grid_constant__ TensorTable<6, CAPACITY> table, const double* hyperparameters, const double* skip,
    unsigned int* ticket, int maximize) {
  update_tensors<Asgd, T>(table, hyperparameters, skip, ticket, maximize);
}

template <class T, int CAPACITY>
__global__ void __launch_bounds__(256) rprop_step(
    const __grid_constant__ TensorTable<5, CAPACITY> table, const double* hyperparameters, const double* skip,
    unsigned int* ticket, int maximize) {
  update_tensors<Rprop, T>(table, hyperparameters, skip, ticket, maximize);
}

template <class T, int CAPACITY>
__global__ void __launch_bounds__(256) lion_step(
    const __grid_constant__ TensorTable<4, CAPACITY> table, const double* hyperparameters, const double* skip,
    unsigned int* ticket, int maximize) {
  update_tensors<Lion, T>(table, hyperparameters, skip, ticket, maximize);
}
