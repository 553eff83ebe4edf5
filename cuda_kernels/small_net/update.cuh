// The parameters of a small net: copies between tensors and shared memory, and the optimizer's step.

#include "common/reduce.cuh"
#include "common/tensor_table.cuh"
#include "common/update_rules.cuh"
#include "memory.cuh"

// The lists of a launch.
enum { PARAMS, FIRST_STATE, STEPS = FIRST_STATE + 3, GRADS, LISTS };

// The optimizers of gpunet/optim/stacked.py, with numbers of their own for each net.
template <bool MOMENTUM, bool NESTEROV>
struct StackedSgd : Sgd<MOMENTUM, NESTEROV> {
  using Base = Sgd<MOMENTUM, NESTEROV>;
  static __device__ __forceinline__ void prepare(double* f, const double*, const double* h) {  // h: lr, momentum, weight decay
    f[Base::RATE] = h[0], f[Base::DECAY] = h[2], f[Base::AHEAD] = f[Base::KEEP] = h[1], f[Base::SHARE] = 1.0;
  }
};
template <bool DECOUPLED>
struct StackedAdam : Adam<false, DECOUPLED> {
  using Base = Adam<false, DECOUPLED>;
  static __device__ __forceinline__ void prepare(double* f, const double* powers, const double* h) {
    Decay::prepare(f, h[0], h[4], DECOUPLED);
    Averages::prepare(f, h);
    f[Base::SIZE] = h[0] / (1.0 - powers[0] * h[1]);
    f[Base::CORRECTION] = 1.0 / sqrt(1.0 - powers[1] * h[2]);
    f[Base::EPS] = h[3];
  }
};

// The counters of a parameter, and what they are `steps` steps later; all parameters of a net share those of StackedAdam.
template <class Rule>
struct CountersOf {
  enum { COUNT = 1, ARE_SHARED = 0 };
  static __device__ __forceinline__ void pass(double* counters, int steps, const double*) { counters[0] += steps; }
};
template <bool MOMENTUM, bool NESTEROV>
struct CountersOf<StackedSgd<MOMENTUM, NESTEROV>> {
  enum { COUNT = 0, ARE_SHARED = 1 };
  static __device__ __forceinline__ void pass(double*, int, const double*) {}
};
template <bool DECOUPLED>
struct CountersOf<StackedAdam<DECOUPLED>> {  // the powers of the betas
  enum { COUNT = 2, ARE_SHARED = 1 };
  static __device__ __forceinline__ void pass(double* counters, int steps, const double* h) {
    counters[0] *= pow(h[1], static_cast<double>(steps));
    counters[1] *= pow(h[2], static_cast<double>(steps));
  }
};

// ---- parameters ------------------------------------------------------------------------------------------------------

// Calls body(row, column, valid, is_bias) for the packs of a layer's parameters that this thread updates.
template <class Body>
__device__ __forceinline__ void for_each_weight(const NetLayer& layer, Body body) {
  const int across = (layer.inputs + 3) / 4;
#pragma unroll 1
  for (int index = threadIdx.x; index < layer.outputs * across; index += THREADS) {
    const int row = index / across, column = index % across * 4;
    body(row, column, layer.inputs - column);
  }
}
template <class Body>
__device__ __forceinline__ void for_each_bias(const NetLayer& layer, Body body) {
  if (layer.bias >= 0)
#pragma unroll 1
    for (int row = threadIdx.x; row < layer.outputs; row += THREADS) body(row, layer.inputs, 1);
}

template <bool BACK_>
struct Direction {
  static constexpr bool BACK = BACK_;
};

// Copies a layer's matrix from its weight and bias in global memory, or back.
template <bool BACK, class T>
__device__ __forceinline__ void copy_parameters(T* matrix, T* weight, T* bias, const NetLayer& layer) {
  const int inputs = layer.inputs, stride = stride_of(inputs);
  auto copy = [](T& here, T& there) { BACK ? there = here : here = there; };
#pragma unroll 1
  for (int index = threadIdx.x; index < layer.outputs * inputs; index += THREADS)
    copy(matrix[index / inputs * stride + index % inputs], weight[index]);
  for_each_bias(layer, [&](int row, int column, int) { copy(matrix[row * stride + column], bias[row]); });
}

// The square of the norm of all gradients, in every thread.
template <class T>
__device__ __forceinline__ T square_of_norm(const NetShape& net) {
  T sum = T(0);
#pragma unroll 1
  for (int number = 0; number < net.layers; number++) {
    const NetLayer& layer = net.of[number];
    const T* const gradients = net_memory<T>() + layer.gradients;
    auto add = [&](int row, int column, int valid) {
      const Pack<T, 4> g = load_pack<4>(gradients + row * stride_of(layer.inputs) + column, valid, 4);
#pragma unroll
      for (int e = 0; e < 4; e++) sum += g.v[e] * g.v[e];
    };
    for_each_weight(layer, add);
    for_each_bias(layer, add);
  }
  return block_reduce<Sum>(sum);
}

// The net of a block in the tensors of the table, which are those of all nets one behind the other.
template <int CAPACITY>
struct TensorsOfNet {
  const TensorTable<LISTS, CAPACITY>& table;

  template <class T>
  __device__ __forceinline__ T* pointer(int list, int entry) const {
    return table.template pointer<T>(list, entry) + table.counts[entry] / gridDim.x * blockIdx.x;
  }
  // Returns the counters after some steps.
  template <class Rule>
  __device__ __forceinline__ Pack<double, 2> counters(int entry, int steps, const double* hyperparameters) const {
    constexpr int COUNT = CountersOf<Rule>::COUNT;
    Pack<double, 2> found = {};
#pragma unroll
    for (int c = 0; c < COUNT; c++) found.v[c] = table.template pointer<double>(STEPS, entry)[blockIdx.x * COUNT + c];
    CountersOf<Rule>::pass(found.v, steps, hyperparameters);
    return found;
  }
};

// The rule's numbers of steps from `step` on, for each entry: (AHEAD, entries, FACTORS).
template <class T, class Rule, class Tensors>
__device__ __forceinline__ void prepare_updates(
    const NetShape& net, const Tensors& tensors, const double* hyperparameters, int step) {
#pragma unroll 1
  for (int index = threadIdx.x; index < AHEAD * net.entries; index += THREADS) {
    const Pack<double, 2> counters =
        tensors.template counters<Rule>(index % net.entries, step + index / net.entries, hyperparameters);
    double factors[Rule::FACTORS];
    Rule::prepare(factors, counters.v, hyperparameters);
#pragma unroll
    for (int f = 0; f < Rule::FACTORS; f++) net_memory<T>()[net.factors + index * Rule::FACTORS + f] = T(factors[f]);
  }
}

// Multiplies the gradients by `clip`, unless it is 1, and updates the parameters and states of a layer.
template <class T, class Rule, bool HELD, class Tensors>
__device__ __forceinline__ void update_layer(
    const NetShape& net, const NetLayer& layer, const Tensors& tensors, const T* factors_of_step, T clip, int maximize) {
  constexpr int STATES = Rule::STATES;
  T* const memory = net_memory<T>();
  const int stride = stride_of(layer.inputs), size = layer.outputs * stride;
  auto update = [&](int row, int column, int valid, int entry, int stride_of_states, const T (&factors)[Rule::FACTORS]) {
    T *const gradients = memory + layer.gradients + row * stride, *states[STATES];
    int width = 4;
#pragma unroll
    for (int k = 0; k < STATES; k++) {
      if (!Rule::uses(k)) {
        states[k] = nullptr;
      } else if (HELD) {
        states[k] = memory + layer.states + k * size + row * stride;
      } else {
        states[k] = tensors.template pointer<T>(FIRST_STATE + k, entry) + row * stride_of_states;
        if (entry == layer.bias) states[k] -= column;
        width = min(width, access_width(stride_of_states, states[k]));
      }
    }
    if (clip != T(1)) {
      Pack<T, 4> g = load_pack<4>(gradients + column, valid, 4);
#pragma unroll
      for (int e = 0; e < 4; e++) g.v[e] *= clip;
      store_pack(gradients + column, g, valid, 4);
    }
    update_pack<Rule>(memory + layer.parameters + row * stride, states, gradients, factors, maximize, column, valid, width);
  };
  T factors[Rule::FACTORS];
#pragma unroll
  for (int f = 0; f < Rule::FACTORS; f++) factors[f] = factors_of_step[layer.weight * Rule::FACTORS + f];
  for_each_weight(
      layer, [&](int row, int column, int valid) { update(row, column, valid, layer.weight, layer.inputs, factors); });
  if (layer.bias < 0) return;
#pragma unroll
  for (int f = 0; f < Rule::FACTORS; f++) factors[f] = factors_of_step[layer.bias * Rule::FACTORS + f];
  for_each_bias(layer, [&](int row, int column, int valid) { update(row, column, valid, layer.bias, 1, factors); });
}
