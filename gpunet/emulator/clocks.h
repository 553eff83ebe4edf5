// The clocks of check mode, for checker.cpp.
//
// Each thread of the running blocks has a clock, which moves on at whatever publishes its work, and knows of the clocks
// of others: an access is ordered before another one if its clock is known to the other's thread (vector clocks).  A
// barrier of the whole block is by far the most frequent, so what everybody knows is kept once, in `known_to_all`, and
// a thread has a row of its own only after something else told it more.
//
// Clusters run one after another, but a card promises no order, so accesses of two of them are ordered only by a fence and
// an atomic in the first, and an atomic on the same address and a fence in the second.
#pragma once
#include <algorithm>

#include "runtime.h"

namespace emulator {

using Clock = uint32_t;

struct Knowledge {  // of a thread
  Clock clock;
  uint32_t row_of_barrier;  // since which barrier its row is its own
  bool fenced;
  uint64_t seen, acquired;  // publications: by an atomic, and by a fence after it
  uint64_t fenced_acquired;
  std::vector<Clock> fenced_row;  // what it knew at its last fence
  // when its proxy fences for shared and for global memory were, and what it knew at the last
  std::vector<Clock> proxy_fences[2], proxied_row[2];
};

extern Knowledge knowledge[MOST_THREADS];
extern std::vector<Clock> known_to_all, rows;
extern uint32_t barrier_count;
extern Clock engine_clocks[MOST_ENGINES];

// An agent is a thread or, from MOST_THREADS on, an engine: rows have a column for each.
inline int columns() { return thread_count + MOST_ENGINES; }
inline int column(int agent) { return agent < MOST_THREADS ? agent : thread_count + agent - MOST_THREADS; }
inline Clock clock_of(int agent) {
  return agent < MOST_THREADS ? knowledge[agent].clock : engine_clocks[agent - MOST_THREADS];
}

inline Clock* row(int thread) { return &rows[static_cast<size_t>(thread) * columns()]; }

inline Clock known(int to, int of) {  // of: a column
  if (to == of) return knowledge[of].clock;
  return (knowledge[to].row_of_barrier == barrier_count ? row(to) : known_to_all.data())[of];
}

inline Clock* own_row(int thread) {
  if (knowledge[thread].row_of_barrier != barrier_count) {
    std::copy(known_to_all.begin(), known_to_all.end(), row(thread));
    knowledge[thread].row_of_barrier = barrier_count;
  }
  row(thread)[thread] = knowledge[thread].clock;
  return row(thread);
}

inline void join(Clock* into, const Clock* from) {
  for (int i = 0; i < columns(); i++) into[i] = std::max(into[i], from[i]);
}

bool is_published(uint32_t cluster, int column, Clock clock);
bool is_behind_a_proxy_fence(int writer, Clock written, bool global);
void engine_works();
void begin_clocks();          // of a launch
void begin_cluster_clocks();

}  // namespace emulator
