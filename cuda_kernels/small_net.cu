// Many training steps of small perceptrons in one launch: a block for each net, which keeps the net in shared memory.
//
//   small_net_steps   for each step: gather a batch, forward, loss, backward, clip, update; a net has
//                     y = dropout(act(x w^T + b)) for each layer, the last one without activation and dropout
//
// A layer's parameters are a matrix (outputs, inputs + 1) in shared memory, whose last column is the bias; inputs and results
// have a last column of ones.  So one product computes sums and biases, and another one the gradients of both.
//
// Every sum has a fixed order, which the shapes determine: the same inputs give the same bits, in any number of nets and in any
// division of the steps into launches.
//
// Phases between barriers:
//   forward, a layer          y = dropout(act(x w^T))
//   loss                      four lanes a row
//   gradient, input; a layer  dw = factor dz^T x; then dz of the layer before, in place of what act' reads
//   update                    while the next batch is copied, and the flags of its dropout are drawn
//
// Versions: 1. plain arithmetic, one block a net (this one).  Next: a cluster a net, whose blocks share the rows of a batch.

#include "small_net/phases.cuh"
#include "small_net/update.cuh"

// A net with active[block] == 0 is stopped: its losses are NaN and its gradients 0; parameters and states are left.
//
// SAVES_Z: act' reads z instead of y.  HELD: the states of the optimizer are in shared memory, too.  Without `max_norm`, 0,
// gradients are not clipped.
template <class T, class Act, bool SAVES_Z, class Loss, class Rule, bool HELD, int CAPACITY>
__global__ void __launch_bounds__(THREADS, 1) small_net_steps(
    const __grid_constant__ TensorTable<6, CAPACITY> table, unsigned long long* streams, T* losses, long long* fault,
    const T* x, const T* targets, const long long* labels, const long long* order, const double* hyperparameters,
    const long long* active, const long long* kept, const T* masks, const __grid_constant__ NetShape net, int steps,
    int num_hyperparameters, long long ignore_index, int code, double alpha, double delta, double max_norm, int reduction,
    int maximize) {
  constexpr int STATES = Rule::STATES;
  static_assert(Rule::FACTORS <= MOST_FACTORS, "small_net.py reserves memory for them");
  T* const memory = net_memory<T>();
  const TensorsOfNet<CAPACITY> tensors{table};
  hyperparameters += blockIdx.x * num_hyperparameters;
  streams += 2 * net.streams * blockIdx.x;
  if (kept != nullptr) kept += net.layers * blockIdx.x;

  // Copies a matrix of a layer from the tensors of a list, or back.
  auto copy_list = [&](const NetLayer& layer, int place, int list, auto direction) {
    T* const bias = layer.bias < 0 ? nullptr : tensors.template pointer<T>(list, layer.bias);
    copy_parameters<decltype(direction)::BACK>(memory + place, tensors.template pointer<T>(list, layer.weight), bias, layer);
  };
  auto copy_matrices = [&](auto direction) {
#pragma unroll 1
    for (int number = 0; number < net.layers; number++) {
      const NetLayer& layer = net.of[number];
      copy_list(layer, layer.parameters, PARAMS, direction);
      if (decltype(direction)::BACK) copy_list(layer, layer.gradients, GRADS, direction);
      if constexpr (HELD) {
#pragma unroll
        for (int k = 0; k < STATES; k++)
          if (Rule::uses(k))
            copy_list(layer, layer.states + k * layer.outputs * stride_of(layer.inputs), FIRST_STATE + k, direction);
      }
    }
  };
  auto start_batch = [&](int step) {
    const long long first = static_cast<long long>(step) * net.rows;
    const int outputs = net.of[net.layers - 1].outputs;
    gather(memory + net.inputs, x, order, first, net.rows, net.of[0].inputs, stride_of(net.of[0].inputs));
    if constexpr (HAS_LABELS<Loss>)
      gather(reinterpret_cast<long long*>(memory + net.targets), labels, order, first, net.rows, 1, 1);
    else
      gather(memory + net.targets, targets, order, first, net.rows, outputs, stride_of(outputs));
#pragma unroll 1
    for (int number = 0; number < net.layers; number++)
      if (net.of[number].flags >= 0) draw_flags<T>(net, number, streams, kept, step);
  };

  auto pass_streams = [&] {  // beyond the numbers that the steps use; of stopped nets, too, as if they had drawn
    if (threadIdx.x > 0) return;
#pragma unroll 1
    for (int number = 0; number < net.layers; number++) {
      const NetLayer& layer = net.of[number];
      if (layer.flags >= 0 && layer.first_block == 0)  // the first one of a stream
        streams[2 * layer.stream + 1] += static_cast<uint64>(steps) * layer.blocks;
    }
  };

#pragma unroll 1
  for (int place = threadIdx.x; place < net.size; place += THREADS) memory[place] = T(0);
  __syncthreads();
  if (active != nullptr && active[blockIdx.x] == 0) {
    for (int step = threadIdx.x; step < steps; step += THREADS)
      losses[static_cast<long long>(blockIdx.x) * steps + step] = not_a_number<T>();
#pragma unroll 1
    for (int number = 0; number < net.layers; number++)
      copy_list(net.of[number], net.of[number].gradients, GRADS, Direction<true>());
    pass_streams();
    return;
  }
  copy_matrices(Direction<false>());
#pragma unroll 1
  for (int number = 0; number < net.layers; number++) {
    const int stride = stride_of(net.of[number].inputs), start = number == 0 ? net.inputs : net.of[number - 1].result;
    for (int row = threadIdx.x; row < net.rows; row += THREADS) memory[start + row * stride + net.of[number].inputs] = T(1);
  }
#pragma unroll 1
  for (int number = 0; number < net.layers; number++) {
    const NetLayer& layer = net.of[number];
    if (layer.mask >= 0)
      for (int column = threadIdx.x; column < layer.outputs; column += THREADS)
        memory[layer.mask + column] = masks[static_cast<long long>(net.masks) * blockIdx.x + layer.first_mask + column];
  }
  start_batch(0);
  finish_copies();
  __syncthreads();

#pragma unroll 1
  for (int step = 0; step < steps; step++) {
    if (step % AHEAD == 0) prepare_updates<T, Rule>(net, tensors, hyperparameters, step);
    if (threadIdx.x >= THREADS - 32) find_factor<T, Loss>(net, ignore_index, reduction);
#pragma unroll 1
    for (int number = 0; number < net.layers; number++) {
      forward<T, Act, SAVES_Z>(net, number, kept, T(alpha));
      __syncthreads();
    }
    loss_of_rows<T, Loss>(net, ignore_index, T(delta));
    __syncthreads();
    if (threadIdx.x >= THREADS - 32) {
      T* const loss = losses + static_cast<long long>(blockIdx.x) * steps + step;
      store_loss<T, Loss>(loss, fault, net, ignore_index, code, reduction);
    }
#pragma unroll 1
    for (int number = net.layers - 1; number >= 0; number--) {
      gradient<T>(net, number);
      __syncthreads();
      if (number == 0) break;
      backward<T, Act, SAVES_Z>(net, number, kept, T(alpha));
      __syncthreads();
    }
    T clip = T(1);
    if (max_norm > 0.0) {
      clip = T(max_norm) / (sqrt(square_of_norm<T>(net)) + T(1e-6));
      if (clip >= T(1)) clip = T(1);  // not if it is NaN: then all gradients become NaN
    }
    if (step + 1 < steps) start_batch(step + 1);
    const T* const factors = memory + net.factors + step % AHEAD * net.entries * Rule::FACTORS;
#pragma unroll 1
    for (int number = 0; number < net.layers; number++)
      update_layer<T, Rule, HELD>(net, net.of[number], tensors, factors, clip, maximize);
    finish_copies();
    __syncthreads();
  }

  copy_matrices(Direction<true>());
  constexpr int COUNT = CountersOf<Rule>::COUNT;
  if (threadIdx.x < (CountersOf<Rule>::ARE_SHARED ? 1 : net.entries)) {
    const Pack<double, 2> counters = tensors.template counters<Rule>(threadIdx.x, steps, hyperparameters);
#pragma unroll
    for (int c = 0; c < COUNT; c++)
      table.template pointer<double>(STEPS, threadIdx.x)[blockIdx.x * COUNT + c] = counters.v[c];
  }
  pass_streams();
}
