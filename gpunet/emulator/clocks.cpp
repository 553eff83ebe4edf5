// Vector clocks; see clocks.h.

#include "clocks.h"

#include <algorithm>
#include <unordered_map>

namespace emulator {

struct Publication {  // the clocks published by fences and atomics on one address
  BitSet acquired;    // publications that the publishing threads had acquired, and so pass on
  std::unordered_map<uint32_t, std::vector<Clock>> of_cluster;
};

ThreadState thread_states[MAX_THREADS];
std::vector<Clock> known_to_all, rows;
static std::vector<Publication> publications;
static std::unordered_map<uintptr_t, size_t> publication_at;  // by address
uint32_t barrier_count = 1;
Clock engine_clocks[MAX_ENGINES];
static bool engines_active;  // whether an engine has completed a transfer in this cluster

void order_all_threads() {
  BitSet acquired;
  for (int thread = 0; thread < thread_count; thread++) {
    acquired.add(thread_states[thread].acquired);
    if (engines_active && thread_states[thread].row_of_barrier == barrier_count) merge(known_to_all.data(), row(thread));
  }
  for (int thread = 0; thread < thread_count; thread++) known_to_all[thread] = thread_states[thread].clock++;
  for (int thread = 0; thread < thread_count; thread++) thread_states[thread].acquired = acquired;
  barrier_count++;
}

void order_threads(const std::vector<int>& threads) {
  static Order all;
  std::fill(all.clocks.begin(), all.clocks.end(), 0);
  all.acquired = {};
  for (int thread : threads) publish(all, thread);
  for (int thread : threads) acquire(all, thread);
}

void publish(Order& order, int thread) {
  order.clocks.resize(columns());
  merge(order.clocks.data(), own_row(thread));
  order.acquired.add(thread_states[thread].acquired);
  thread_states[thread].clock++;
}

void publish_engines(Order& order, int thread) {
  order.clocks.resize(columns());
  const Clock* own = own_row(thread);
  for (int i = thread_count; i < columns(); i++) order.clocks[i] = std::max(order.clocks[i], own[i]);
}

void publish_engine(Order& order, int engine) {
  order.clocks.resize(columns());
  order.clocks[thread_count + engine] = engine_clocks[engine]++;
}

void acquire(const Order& order, int thread) {
  if (order.clocks.empty()) return;
  merge(own_row(thread), order.clocks.data());
  thread_states[thread].acquired.add(order.acquired);
}

// Acquires the publications that earlier atomics of the thread have seen; later atomics publish the thread's earlier accesses.
void order_fence() {
  ThreadState& mine = thread_states[current->thread];
  Clock* own = own_row(current->thread);
  for (size_t i = 0; i < publications.size(); i++) {
    if (!mine.seen.has(i)) continue;
    mine.acquired.add(i);
    mine.acquired.add(publications[i].acquired);
    const auto of_this_cluster = publications[i].of_cluster.find(cluster_number);
    if (of_this_cluster != publications[i].of_cluster.end()) merge(own, of_this_cluster->second.data());
  }
  mine.fenced = true;
  mine.fenced_acquired = mine.acquired;
  mine.fenced_row.assign(own, own + columns());
  mine.clock++;
}

void order_atomic(uintptr_t address) {
  ThreadState& mine = thread_states[current->thread];
  const size_t i = publication_at.emplace(address, publications.size()).first->second;
  if (i == publications.size()) publications.emplace_back();
  mine.seen.add(i);
  if (!mine.fenced) return;
  publications[i].acquired.add(mine.fenced_acquired);
  auto& published = publications[i].of_cluster[cluster_number];
  published.resize(columns());
  merge(published.data(), mine.fenced_row.data());
}

// Whether the accesses of another cluster's agent up to `clock` were published to the current thread.
bool is_published(uint32_t cluster, int column, Clock clock) {
  for (size_t i = 0; i < publications.size(); i++) {
    if (!thread_states[current->thread].acquired.has(i)) continue;
    const auto found = publications[i].of_cluster.find(cluster);
    if (found != publications[i].of_cluster.end() && clock <= found->second[column]) return true;
  }
  return false;
}

void mark_engine_active() { engines_active = true; }
uint32_t tick(int thread) { return thread_states[thread].clock++; }
bool knows(int thread, int other, uint32_t clock) { return clock <= known_clock(thread, other); }

// ---- proxies ---------------------------------------------------------------------------------------------------------

// Bulk copies and wgmma see a write only after a proxy fence: either by the writer, before it synchronises with the thread
// that starts the transfer, or by that thread.
void order_proxy_fence(bool global) {
  ThreadState& mine = thread_states[current->thread];
  const Clock* own = own_row(current->thread);
  for (int space = 0; space <= global; space++) {
    mine.proxy_fences[space].push_back(mine.clock);
    mine.proxied_row[space].assign(own, own + columns());
  }
  mine.clock++;
}

bool is_after_proxy_fence(int writer, Clock written, bool global) {
  const int me = current->thread;
  const auto& proxied = thread_states[me].proxied_row[global];
  if (!proxied.empty() && written <= proxied[writer]) return true;
  const auto& fences = thread_states[writer].proxy_fences[global];
  const auto next = std::lower_bound(fences.begin(), fences.end(), written);
  return next != fences.end() && *next <= known_clock(me, writer);
}

// ---- a launch and its clusters ---------------------------------------------------------------------------------------

void begin_clocks() {
  publications.clear();
  publication_at.clear();
  rows.resize(std::max(rows.size(), static_cast<size_t>(thread_count) * columns()));
  known_to_all.resize(columns());
}

void begin_cluster_clocks() {
  barrier_count++;
  std::fill(known_to_all.begin(), known_to_all.end(), 0);
  std::fill(engine_clocks, engine_clocks + MAX_ENGINES, 1);
  engines_active = false;
  for (int thread = 0; thread < thread_count; thread++) {
    ThreadState& of = thread_states[thread];
    of.clock = 1;
    of.row_of_barrier = 0;
    of.fenced = false;
    of.seen = of.acquired = of.fenced_acquired = {};
    for (int space = 0; space < 2; space++) of.proxy_fences[space].clear(), of.proxied_row[space].clear();
  }
}

}  // namespace emulator
