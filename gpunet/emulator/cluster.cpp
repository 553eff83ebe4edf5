// What the blocks of a cluster have in common: a barrier, and each other's shared memory.

#include "runtime.h"

namespace emulator {

struct ClusterBarrier {
  int absent;                  // threads that run and have not arrived in this phase
  std::vector<char> arrived;   // of each thread: whether it is between its arrival and its wait
  std::vector<uint32_t> phase;  // of each thread: in which it arrived
  uint32_t number;             // of this phase
  Order gathered, over;
  std::vector<int> waiting;
};

static ClusterBarrier barrier;

void reset_cluster() {
  const size_t threads = static_cast<size_t>(thread_count);
  barrier = {block_threads * cluster_size, std::vector<char>(threads), std::vector<uint32_t>(threads), 0, {}, {}, {}};
}

static void settle() {
  if (barrier.absent) return;
  barrier.number++;
  for (int rank = 0; rank < cluster_size; rank++) barrier.absent += running[rank];
  barrier.over = barrier.gathered;
  std::vector<int> waiting;
  waiting.swap(barrier.waiting);
  wake_all(waiting);
}

void cluster_arrive(Site site) {
  const int me = current->thread;
  if (barrier.arrived[me])
    fail("divergence", "a second cluster_arrive at %s:%d without a cluster_wait in between", site.file, site.line);
  barrier.arrived[me] = true;
  barrier.phase[me] = barrier.number;
  if (launch->check) publish(barrier.gathered, me);
  barrier.absent--;
  settle();
}

void cluster_wait(Site site) {
  const int me = current->thread;
  if (!barrier.arrived[me]) fail("divergence", "a cluster_wait at %s:%d without a cluster_arrive before", site.file, site.line);
  if (barrier.phase[me] == barrier.number) {
    barrier.waiting.push_back(me);
    wait("cluster_wait", site);
  } else {
    let_others_run();
  }
  barrier.arrived[me] = false;
  if (launch->check) acquire(barrier.over, me);
}

// Those that have returned are not waited for.
void leave_cluster() {
  const int me = current->thread;
  if (barrier.arrived[me] && barrier.phase[me] == barrier.number) return;
  barrier.absent--;
  settle();
}

unsigned int cluster_rank() { return static_cast<unsigned int>(current->rank); }
unsigned int cluster_blocks() { return static_cast<unsigned int>(cluster_size); }

static uintptr_t at(void* caller) { return reinterpret_cast<uintptr_t>(caller) - launch->library; }

void* map_shared(void* mine, unsigned int rank, void* caller) {
  if (rank >= static_cast<unsigned int>(cluster_size))
    fail("cluster", "block %u asked for at @%#zx; the cluster has %d", rank, at(caller), cluster_size);
  const int owner = rank_of_shared(reinterpret_cast<uintptr_t>(mine));
  if (owner < 0 && cluster_size > 1) fail("cluster", "at @%#zx: the address is not in dynamic shared memory", at(caller));
  return owner < 0 ? mine : shared_memory_of(static_cast<int>(rank)) + (static_cast<char*>(mine) - shared_memory_of(owner));
}

unsigned int shared_offset(const void* pointer) {
  const auto address = reinterpret_cast<uintptr_t>(pointer);
  const int owner = rank_of_shared(address);
  if (owner < 0) fail("shared memory", "operands of wgmma have to lie in dynamic shared memory in the emulator");
  return static_cast<unsigned int>(address - reinterpret_cast<uintptr_t>(shared_memory_of(owner)));
}

}  // namespace emulator
