// Barriers, warp collectives, fences and atomics: who waits for whom, and what that orders.

#include "runtime.h"

#include <stdio.h>
#include <string.h>

#include <algorithm>

namespace emulator {

struct Meeting {  // of the lanes of a warp
  unsigned int mask, arrived;
  Collective kind;
  Site site;
  void* of_lane[32];
};

struct Barrier {
  int arrived;
  Site site;
  Vote vote;
  int result;
};

struct NamedBarrier {
  int count, arrived;  // threads: that take part, that are here
  Site site;           // of the first
  unsigned int lanes[MOST_THREADS / 32];
  std::vector<int> waiting;
  Order order;
  char text[48];
};

constexpr int NAMED_BARRIERS = 16;

static std::vector<Meeting> meetings[MOST_THREADS / 32];
static Barrier barriers[MOST_CLUSTER];  // of each block
static NamedBarrier named_barriers[MOST_CLUSTER][NAMED_BARRIERS];
static int polls;

void reset_synchronisation() {
  for (auto& of_warp : meetings) of_warp.clear();
  for (Barrier& barrier : barriers) barrier = {};
  for (auto& of_block : named_barriers)
    for (NamedBarrier& other : of_block) other.arrived = 0;
}

static bool same(Site a, Site b) { return a.line == b.line && (a.file == b.file || strcmp(a.file, b.file) == 0); }

// ---- warps -----------------------------------------------------------------------------------------------------------

static const char* name(Collective kind) {
  static const char* const names[] = {"__syncwarp", "shuffle", "vote", "reduction", "ldmatrix", "stmatrix", "mma", "elect_one"};
  return names[static_cast<int>(kind)];
}

void warp_collective(unsigned int mask, Collective kind, Site site, void* mine, Exchange exchange) {
  const int my_lane = lane(), warp = current->thread / 32;
  if (!(mask >> my_lane & 1u))
    fail("divergence", "lane %d calls the %s of %s:%d, but is not in its mask %#x", my_lane, name(kind), site.file, site.line, mask);
  mask &= lanes_of_warp();  // lanes that the launch does not have
  auto& of_warp = meetings[warp];
  size_t at = 0;
  while (at < of_warp.size() && !(of_warp[at].mask & mask)) at++;
  if (at == of_warp.size()) of_warp.push_back({mask, 0, kind, site, {}});
  Meeting& meeting = of_warp[at];
  if (meeting.kind != kind || meeting.mask != mask || !same(meeting.site, site))
    fail("divergence", "lanes %#x of warp %d are at the %s of %s:%d with mask %#x, but lane %d is at the %s of %s:%d with mask %#x",
         meeting.arrived, warp, name(meeting.kind), meeting.site.file, meeting.site.line, meeting.mask, my_lane, name(kind),
         site.file, site.line, mask);
  meeting.arrived |= 1u << my_lane;
  meeting.of_lane[my_lane] = mine;
  if (meeting.arrived != mask) {
    wait(name(kind), site);
    return;
  }
  void* of_lane[32];
  memcpy(of_lane, meeting.of_lane, sizeof of_lane);
  of_warp.erase(of_warp.begin() + static_cast<long>(at));
  if (exchange) exchange(of_lane, mask);
  static std::vector<int> threads;
  threads.clear();
  for (int l = 0; l < 32; l++)
    if (mask >> l & 1u) threads.push_back(warp * 32 + l);
  if (linting() && mask == lanes_of_warp()) lint_warp(warp);
  if (launch->check && kind == Collective::syncwarp) order_threads(threads);  // shuffles and votes order no memory
  threads.erase(std::find(threads.begin(), threads.end(), current->thread));
  wake_all(threads);
}

// ---- blocks ----------------------------------------------------------------------------------------------------------

static void need_one_kind() {  // __syncthreads is barrier 0
  const Barrier& barrier = barriers[current->rank];
  const NamedBarrier* named = named_barriers[current->rank];
  if (barrier.arrived && named[0].arrived)
    fail("divergence", "barrier 0 is used by the __syncthreads of %s:%d and by the bar of %s:%d at once", barrier.site.file,
         barrier.site.line, named[0].site.file, named[0].site.line);
}

static int threads_expected(int rank) { return launch->returned_pass ? running[rank] : block_threads; }

// Ends the round of a block's barrier, at which all the threads that it returns have arrived.
static std::vector<int> pass_barrier(int rank) {
  Barrier& barrier = barriers[rank];
  launch->barriers++;
  barrier.arrived = 0;
  std::vector<int> threads;
  for (int first = block_first(rank), thread = first; thread < first + block_threads; thread++) {
    if (fibers[thread].finished) continue;
    fibers[thread].vote = barrier.result;
    threads.push_back(thread);
  }
  if (linting()) lint_block();
  if (launch->check && cluster_size == 1) order_everybody();
  if (launch->check && cluster_size > 1) order_threads(threads);
  return threads;
}

int block_barrier(Site site, Vote vote, int predicate) {
  Barrier& barrier = barriers[current->rank];
  if (!barrier.arrived) barrier = {0, site, vote, vote == Vote::all};
  if (!same(barrier.site, site))
    fail("divergence", "%d threads are at the __syncthreads of %s:%d, but thread %d is at that of %s:%d", barrier.arrived,
         barrier.site.file, barrier.site.line, in_block(current->thread), site.file, site.line);
  if (vote == Vote::count) barrier.result += predicate != 0;
  if (vote == Vote::all) barrier.result &= predicate != 0;
  if (vote == Vote::any) barrier.result |= predicate != 0;
  barrier.arrived++;
  need_one_kind();
  if (barrier.arrived < threads_expected(current->rank)) {
    wait("__syncthreads", site);
    return current->vote;
  }
  std::vector<int> others = pass_barrier(current->rank);
  others.erase(std::find(others.begin(), others.end(), current->thread));
  wake_all(others);
  let_others_run();  // if the last to arrive always went on first, skew between threads would hide
  return current->vote;
}

void leave_block(int rank) {
  const int arrived = barriers[rank].arrived;
  if (launch->returned_pass && arrived && arrived == running[rank]) wake_all(pass_barrier(rank));
}

// ---- barriers of some warps ------------------------------------------------------------------------------------------

static void end_round(int number, NamedBarrier& round) {
  for (int warp = 0; warp < (thread_count + 31) / 32; warp++)
    if (round.lanes[warp] && round.lanes[warp] != 0xffffffffu)
      fail("divergence", "of warp %d only lanes %#x came to barrier %d of %s:%d; whole warps take part", warp, round.lanes[warp],
           number, round.site.file, round.site.line);
  launch->barriers++;
  round.arrived = 0;
  if (launch->check)
    for (int thread : round.waiting) acquire(round.order, thread);
}

void named_barrier(int number, int count, bool waits, Site site) {
  const int me = current->thread;
  if (number < 0 || number >= NAMED_BARRIERS)
    fail("barrier", "there is no barrier %d at %s:%d: a block has 0 to %d", number, site.file, site.line, NAMED_BARRIERS - 1);
  if (count <= 0 || count % 32 || count > block_threads)
    fail("barrier", "barrier %d of %s:%d is for %d threads; expected a multiple of 32 up to the %d of the block", number, site.file,
         site.line, count, block_threads);
  NamedBarrier& round = named_barriers[current->rank][number];
  if (!round.arrived) {
    round.count = count;
    round.site = site;
    round.waiting.clear();
    round.order = {};
    memset(round.lanes, 0, sizeof round.lanes);
  }
  if (round.count != count)
    fail("barrier", "barrier %d is for %d threads at %s:%d, but for %d at %s:%d", number, round.count, round.site.file,
         round.site.line, count, site.file, site.line);
  if (round.lanes[me / 32] >> me % 32 & 1u)
    fail("barrier", "%s comes to barrier %d a second time, at %s:%d, before it had its %d threads", thread_title(me), number, site.file,
         site.line, count);
  round.lanes[me / 32] |= 1u << me % 32;
  round.arrived++;
  if (number == 0) need_one_kind();
  snprintf(round.text, sizeof round.text, "barrier %d (for %d threads, %d came)", number, count, round.arrived);
  if (launch->check) publish(round.order, me);
  if (waits) round.waiting.push_back(me);
  if (round.arrived < count) {
    if (waits) wait(round.text, site);
    return;
  }
  end_round(number, round);
  std::vector<int> others;
  for (int thread : round.waiting)
    if (thread != me) others.push_back(thread);
  wake_all(others);
  let_others_run();
}

// ---- fences and atomics ----------------------------------------------------------------------------------------------

// An atomic that changed nothing, a volatile read: many of them are a loop that waits for another thread.
void poll() {
  if (++polls % 64 == 0) give_way();
}

void fence() {
  if (launch->check) order_fence();
}

void begin_atomic(const volatile void* address, size_t bytes, Access kind, void* return_address) {
  if (!launch->check) return;
  access(address, bytes, kind, return_address);
  order_atomic(reinterpret_cast<uintptr_t>(address));
}

}  // namespace emulator
