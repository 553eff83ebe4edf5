// The phases of a step of a small net up to its gradients.

#include "common/activations.cuh"
#include "common/elementwise_losses.cuh"
#include "common/faults.cuh"
#include "common/philox.cuh"
#include "common/reduce.cuh"
#include "common/softmax_loss.cuh"
#include "product.cuh"

// Whether dropout keeps an element.
__device__ __forceinline__ bool is_kept(const unsigned char* flags, int element) {
  return flags[element / 8] >> element % 8 & 1;
}

// The threshold of a layer's dropout; kept (layers,) are those of a net in a stack.
__device__ __forceinline__ uint64 threshold_of(const NetShape& net, int number, const long long* kept) {
  return kept == nullptr ? net.of[number].kept : static_cast<uint64>(kept[number]);
}

// The factor of elements that dropout keeps.
template <class T>
__device__ __forceinline__ T scale_of(const NetShape& net, int number, const long long* kept) {
  if (kept == nullptr) return T(net.of[number].scale);
  return kept[number] > 0 ? T(0x1p32 / static_cast<double>(kept[number])) : T(0);
}

// Draws the flags of dropout of a layer in a step.  streams: key and counter of each, before the first step.
template <class T>
__device__ __forceinline__ void draw_flags(
    const NetShape& net, int number, const uint64* streams, const long long* kept, int step) {
  const NetLayer& layer = net.of[number];
  const uint64 *const state = streams + 2 * layer.stream, threshold = threshold_of(net, number, kept);
  unsigned char* const flags = reinterpret_cast<unsigned char*>(net_memory<T>() + layer.flags);
  const uint64 here[2] = {state[0], state[1] + static_cast<uint64>(step) * layer.blocks + layer.first_block};
#pragma unroll 1
  for (int block = threadIdx.x; block < (net.rows * layer.outputs + 7) / 8; block += THREADS) {
    const Pack<uint64, 4> words = philox(here, block);
    unsigned int of_block = 0;
#pragma unroll
    for (int i = 0; i < 8; i++) {
      const uint64 word = i % 2 == 0 ? words.v[i / 2] & 0xFFFFFFFF : words.v[i / 2] >> 32;
      of_block |= static_cast<unsigned int>(word < threshold) << i;
    }
    flags[block] = of_block;
  }
}

// y = act(x w^T) of a layer, times its mask and dropout; the last layer has none of these.
template <class T, class Act, bool SAVES_Z>
__device__ __forceinline__ void forward(const NetShape& net, int number, const long long* kept, T alpha) {
  T* const memory = net_memory<T>();
  const NetLayer& layer = net.of[number];
  const int in_stride = stride_of(layer.inputs), out_stride = stride_of(layer.outputs), outputs = layer.outputs;
  const bool is_last = number == net.layers - 1, drops = layer.flags >= 0;
  const unsigned char* const flags = reinterpret_cast<const unsigned char*>(memory + layer.flags);
  const T scale = drops ? scale_of<T>(net, number, kept) : T(1);
  product<T, true, true>(
      memory + (number == 0 ? net.inputs : net.of[number - 1].result), in_stride, memory + layer.parameters, in_stride,
      net.rows, outputs, (layer.inputs + 4) / 4 * 4, layer.lanes_forward, [&](int row, int column, T sum) {
        const int at = row * out_stride + column;
        if (is_last) {
          memory[layer.result + at] = sum;
          return;
        }
        if (SAVES_Z) memory[layer.saved + at] = sum;
        T y = Act::forward(sum, alpha);
        if (layer.mask >= 0) y *= memory[layer.mask + column];
        if (drops) y *= is_kept(flags, row * outputs + column) ? scale : T(0);
        memory[layer.result + at] = y;
      });
}

// dw = factor dz^T x, for weights and biases.  The bias is a column of the last tiles, or else has sums of its own, because
// tiles with one column in use would take a second round.
template <class T>
__device__ __forceinline__ void gradient(const NetShape& net, int number) {
  T* const memory = net_memory<T>();
  const NetLayer& layer = net.of[number];
  const int stride = stride_of(layer.inputs), out_stride = stride_of(layer.outputs);
  const T factor = memory[net.numbers];
  product<T, false, false>(
      memory + layer.slope, out_stride, memory + (number == 0 ? net.inputs : net.of[number - 1].result), stride, layer.outputs,
      layer.inputs, net.rows, layer.lanes_gradient, [&](int row, int column, Pack<T, 4> sums) {
#pragma unroll
        for (int e = 0; e < 4; e++) sums.v[e] *= factor;
        store_pack(memory + layer.gradients + row * stride + column, sums, 4, 4);
      });
  if (layer.inputs % 4 > 0) return;
#pragma unroll 1
  for (int output = threadIdx.x; output < layer.outputs; output += THREADS) {
    T sum = T(0);
#pragma unroll 4
    for (int row = 0; row < net.rows; row++) sum += memory[layer.slope + row * out_stride + output];
    memory[layer.gradients + output * stride + layer.inputs] = sum * factor;
  }
}

// dz of the layer before this one: (dz w) act' times mask and dropout.  Not of its column of ones.
template <class T, class Act, bool SAVES_Z>
__device__ __forceinline__ void backward(const NetShape& net, int number, const long long* kept, T alpha) {
  T* const memory = net_memory<T>();
  const NetLayer &layer = net.of[number], &before = net.of[number - 1];
  const int stride = stride_of(layer.inputs), features = layer.inputs;
  const bool drops = before.flags >= 0;
  const unsigned char* const flags = reinterpret_cast<const unsigned char*>(memory + before.flags);
  const T scale = drops ? scale_of<T>(net, number - 1, kept) : T(1), unscale = scale > T(0) ? T(1) / scale : T(0);
  product<T, true, false>(
      memory + layer.slope, stride_of(layer.outputs), memory + layer.parameters, stride, net.rows, features, layer.outputs,
      layer.lanes_input, [&](int row, int column, Pack<T, 4> sums) {
        const int at = row * stride + column;
        Pack<T, 4> saved = load_pack<4>(memory + before.saved + at, 4, 4);
#pragma unroll
        for (int e = 0; e < 4; e++) {
          if (drops) {
            const bool keeps = column + e < features && is_kept(flags, row * features + column + e);
            sums.v[e] *= keeps ? scale : T(0);
            if (!SAVES_Z) saved.v[e] *= unscale;
          }
          if (before.mask >= 0) {
            const T mask = memory[before.mask + column + e];
            sums.v[e] *= mask;
            if (!SAVES_Z) saved.v[e] = mask == T(0) ? T(0) : saved.v[e] / mask;
          }
          sums.v[e] *= Act::derivative(saved.v[e], alpha);
        }
        store_pack(memory + before.slope + at, sums, features - column, 4);
      });
}

// Four neighbouring lanes, which share a row.
struct Quad {
  static __device__ __forceinline__ int size() { return 4; }
  static __device__ __forceinline__ int member() { return threadIdx.x % 4; }
  template <class Operation, class T>
  static __device__ __forceinline__ T reduce(T value) {
    const unsigned int mask = 0xFu << threadIdx.x % 32 / 4 * 4;
    value = Operation::combine(value, __shfl_xor_sync(mask, value, 2));
    return Operation::combine(value, __shfl_xor_sync(mask, value, 1));
  }
};

// The losses of the rows, and their derivatives by the results of the last layer.
template <class T, class Loss>
__device__ __forceinline__ void loss_of_rows(const NetShape& net, long long ignore_index, T delta) {
  T* const memory = net_memory<T>();
  const NetLayer& layer = net.of[net.layers - 1];
  const int stride = stride_of(layer.outputs);
#pragma unroll 1
  for (int row = threadIdx.x / 4; row < net.rows; row += THREADS / 4) {
    const T* const result = memory + layer.result + row * stride;
    T *const slope = memory + layer.slope + row * stride, loss = T(0);
    if constexpr (HAS_LABELS<Loss>) {
      const long long label = reinterpret_cast<const long long*>(memory + net.targets)[row];
      loss = labelled_row<Quad>(
          result, slope, layer.outputs, label, label != ignore_index, label >= 0 && label < layer.outputs);
    } else {
      const T* const target = memory + net.targets + row * stride;
      for (int column = Quad::member(); column < layer.outputs; column += 4)
        loss += Loss::loss(result[column], target[column], delta, slope[column]);
      loss = Quad::reduce<Sum>(loss);
    }
    if (Quad::member() == 0) memory[net.losses + row] = loss;
  }
}

struct BadLabelOfBatch {
  const long long* labels;
  long long ignore_index;
  int classes;
  __device__ __forceinline__ bool operator()(long long row) const {
    return labels[row] != ignore_index && !(labels[row] >= 0 && labels[row] < classes);
  }
};

// Called by one warp: the factor of the gradients in a step, to numbers[0], and the elements of the mean, to numbers[1].
template <class T, class Loss>
__device__ __forceinline__ void find_factor(const NetShape& net, long long ignore_index, int reduction) {
  T* const memory = net_memory<T>();
  T counted = T(0);
  if constexpr (HAS_LABELS<Loss>) {
    const long long* const labels = reinterpret_cast<const long long*>(memory + net.targets);
    for (int row = threadIdx.x % 32; row < net.rows; row += 32)
      counted += reduction == ROW_MEAN || labels[row] != ignore_index ? T(1) : T(0);
    counted = warp_reduce<Sum>(counted);
  } else {
    counted = T(net.rows) * T(net.of[net.layers - 1].outputs);
  }
  if (threadIdx.x % 32 > 0) return;
  memory[net.numbers] = reduction == SUM ? T(1) : counted > T(0) ? T(1) / counted : T(0);
  memory[net.numbers + 1] = counted;
}

// Called by one warp: stores the loss of a step, and reports the first label out of range.
template <class T, class Loss>
__device__ __forceinline__ void store_loss(
    T* value, long long* fault, const NetShape& net, long long ignore_index, int code, int reduction) {
  T* const memory = net_memory<T>();
  const int lane = threadIdx.x % 32;
  T total = T(0);
  for (int row = lane; row < net.rows; row += 32) total += memory[net.losses + row];
  total = warp_reduce<Sum>(total);
  if (reduction != SUM) total = memory[net.numbers + 1] > T(0) ? total * memory[net.numbers] : not_a_number<T>();
  if (lane == 0) *value = total;
  if constexpr (HAS_LABELS<Loss>) {
    const long long* const labels = reinterpret_cast<const long long*>(memory + net.targets);
    const int classes = net.of[net.layers - 1].outputs;
    const BadLabelOfBatch is_bad{labels, ignore_index, classes};
    for (int first = 0; first < net.rows; first += 32) {
      const unsigned int found = __ballot_sync(0xffffffffu, first + lane < net.rows && is_bad(first + lane));
      if (!found) continue;
      const int row = first + __ffs(found) - 1;
      report_first(fault, row, is_bad, code, labels[row], classes, ignore_index);
      return;
    }
  }
}
