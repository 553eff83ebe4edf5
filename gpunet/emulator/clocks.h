// The vector clocks of check mode, used by checker.cpp to find races.
//
// Each thread of the running cluster has a clock that advances whenever the thread publishes its accesses (barrier, fence,
// arrival).  Each thread also knows a clock of every other thread: an access is ordered before the current one if the
// current thread knows a clock of the other thread that is not older than the access.  Barriers of the whole block are by
// far the most frequent synchronisation, so the clocks that all threads know are stored once, in `known_to_all`, and a
// thread gets a row of its own only when it learns more in another way.
//
// Clusters run one after another, but a GPU guarantees no order between them.  So accesses of two clusters are ordered only
// by a fence and an atomic in the first, and an atomic on the same address and a fence in the second.
#pragma once
#include <algorithm>

#include "runtime.h"

namespace emulator {

using Clock = uint32_t;

struct ThreadState {  // of a thread
  Clock clock;
  uint32_t row_of_barrier;  // the thread's own row is valid if this is `barrier_count`
  bool fenced;              // whether the thread has executed a fence
  BitSet seen;              // publications seen by atomics
  BitSet acquired;          // publications acquired by a fence after the atomic
  BitSet fenced_acquired;         // `acquired` at the last fence
  std::vector<Clock> fenced_row;  // the clocks that it knew at its last fence
  // for shared and for global memory: the clocks of its proxy fences, and the clocks that it knew at the last one
  std::vector<Clock> proxy_fences[2], proxied_row[2];
};

extern ThreadState thread_states[MAX_THREADS];
extern std::vector<Clock> known_to_all, rows;
extern uint32_t barrier_count;
extern Clock engine_clocks[MAX_ENGINES];

// An agent is a thread or, from MAX_THREADS on, an engine (see runtime.h).  A row has a column for each agent.
inline int columns() { return thread_count + MAX_ENGINES; }
inline int column(int agent) { return agent < MAX_THREADS ? agent : thread_count + agent - MAX_THREADS; }
inline Clock clock_of(int agent) {
  return agent < MAX_THREADS ? thread_states[agent].clock : engine_clocks[agent - MAX_THREADS];
}

inline Clock* row(int thread) { return &rows[static_cast<size_t>(thread) * columns()]; }

// The clock of column `of` that thread `to` knows.
inline Clock known_clock(int to, int of) {
  if (to == of) return thread_states[of].clock;
  return (thread_states[to].row_of_barrier == barrier_count ? row(to) : known_to_all.data())[of];
}

// Makes the thread's own row valid and returns it.
inline Clock* own_row(int thread) {
  if (thread_states[thread].row_of_barrier != barrier_count) {
    std::copy(known_to_all.begin(), known_to_all.end(), row(thread));
    thread_states[thread].row_of_barrier = barrier_count;
  }
  row(thread)[thread] = thread_states[thread].clock;
  return row(thread);
}

inline void merge(Clock* into, const Clock* from) {
  for (int i = 0; i < columns(); i++) into[i] = std::max(into[i], from[i]);
}

bool is_published(uint32_t cluster, int column, Clock clock);
bool is_after_proxy_fence(int writer, Clock written, bool global);
void mark_engine_active();
void begin_clocks();          // at the start of a launch
void begin_cluster_clocks();  // at the start of each cluster

}  // namespace emulator
