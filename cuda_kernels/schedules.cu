// Learning-rate schedules: one launch advances a parameter group's learning rate, and optionally its momentum, by one step.
//
// The step count, the rate and the momentum are in device memory, so that a CUDA graph uses their current values.  The
// formulas and the constants of each kind are those of the NumPy twin in gpunet/optim/lr_scheduler/kernel.py.  In a sequence
// of schedules, `position` is the sequence's step count: a schedule advances only while low <= position < high, and restarts
// at low.
//
// Versions: 1. one thread (this one): a dozen float64 operations.

#include "common/half.cuh"

enum ScheduleKind { STEP, POINTS, EXPONENTIAL, LINEAR, POLYNOMIAL, COSINE, WARM_RESTARTS, CYCLIC, ONE_CYCLE, ANNEAL };

constexpr double PI = 3.14159265358979323846;

__device__ __forceinline__ double modulo(double a, double b) { return a - b * floor(a / b); }

__device__ __forceinline__ double one_cycle(double t, const double* constants, int size) {
  const int points = (size - 1) / 2;
  const double* ends = constants + 1;  // end, value, end, value, ...
  t = min(t, ends[2 * (points - 1)] + 1.0);
  int segment = 1;
  while (segment < points - 1 && t > ends[2 * segment]) segment++;
  const double* from = ends + 2 * (segment - 1);
  const double share = (t - from[0]) / (from[2] - from[0]);
  if (constants[0] == 0.0) return (from[3] - from[1]) * share + from[1];
  return from[3] + (from[1] - from[3]) / 2.0 * (cos(PI * share) + 1.0);
}

// Returns the share of the way that an annealing has gone at step t.
__device__ __forceinline__ double share_of_way(double t, const double* c) {
  const double share = min(max(t / max(c[1], 1.0), 0.0), 1.0);
  return c[2] == 0.0 ? share : (1.0 - cos(PI * share)) / 2.0;
}

// Returns the schedule's value at step t, given the value `rate` at step t - 1; `restart`: the schedule restarts at t.
__device__ __forceinline__ double scheduled(
    double rate, double t, bool restart, const double* state, const double* c, int kind, int size) {
  if (restart && kind < WARM_RESTARTS) return c[0];
  switch (kind) {
    case STEP: return t > 0.0 && modulo(t, c[1]) == 0.0 ? rate * c[2] : rate;
    case POINTS:
      for (int point = 1; point < size; point += 2)
        if (c[point] == t) rate *= c[point + 1];
      return rate;
    case EXPONENTIAL: return rate * c[1];
    case LINEAR: {
      const double slope = c[2] - c[1];
      if (t == 0.0) return rate * c[1];
      return t > c[3] ? rate : rate * (1.0 + slope / (c[3] * c[1] + (t - 1.0) * slope));
    }
    case POLYNOMIAL: return t > c[1] ? rate : rate * pow((1.0 - t / c[1]) / (1.0 - (t - 1.0) / c[1]), c[2]);
    case COSINE:
      if (modulo(t - 1.0 - c[1], 2.0 * c[1]) == 0.0) return rate + (c[0] - c[2]) * (1.0 - cos(PI / c[1])) / 2.0;
      return (1.0 + cos(PI * t / c[1])) / (1.0 + cos(PI * (t - 1.0) / c[1])) * (rate - c[2]) + c[2];
    case WARM_RESTARTS: return c[2] + (c[0] - c[2]) * (1.0 + cos(PI * state[1] / state[2])) / 2.0;
    case CYCLIC: {
      const double cycle = floor(1.0 + t / c[2]), x = 1.0 + t / c[2] - cycle;
      const double scale = x <= c[3] ? x / c[3] : (x - 1.0) / (c[3] - 1.0);
      return c[0] + (c[1] - c[0]) * scale * pow(c[4], t) * pow(c[5], cycle - 1.0);
    }
    case ANNEAL: {
      if (c[1] == 0.0) t = 1.0;  // the first step arrives
      const double before = share_of_way(t - 1.0, c), now = share_of_way(t, c);
      const double start = before == 1.0 ? c[0] : (rate - before * c[0]) / (1.0 - before);
      return c[0] * now + start * (1.0 - now);
    }
    default: return one_cycle(t, c, size);
  }
}

template <class T>
__global__ void schedule_step(
    T* rate, T* momentum, double* state, const double* constants, const double* position, int kind, int size,
    double low, double high) {
  if (position && !(position[0] >= low && position[0] < high)) return;
  const bool restart = position && position[0] == low;
  const double t = restart ? 0.0 : state[0] + 1.0;
  state[0] = t;
  if (kind == WARM_RESTARTS && !restart) {
    state[1] += 1.0;
    if (state[1] >= state[2]) {
      state[1] = modulo(state[1], state[2]);
      state[2] *= constants[1];
    }
  }
  rate[0] = T(scheduled(double(rate[0]), t, restart, state, constants, kind, size));
  if (momentum) momentum[0] = T(scheduled(double(momentum[0]), t, restart, state, constants + size, kind, size));
}
