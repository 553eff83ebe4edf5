// What the files of the runtime share.
//
//   scheduler.cpp    fibers, schedules, blocks, the launch
//   synchronise.cpp  barriers, warp collectives, fences, atomics: who waits for whom
//   checker.cpp      check mode: clocks, races, bounds, uninitialised shared memory
//   callbacks.cpp    what the compiler calls in check mode
#pragma once
#include <stddef.h>
#include <stdint.h>

#include <vector>

#include "fiber.h"
// the kernels' view of CUDA comes last: its macros would meet those of the system's headers
#include "cuda_on_cpu.h"

namespace emulator {

constexpr int MOST_CLUSTER = 8, MOST_THREADS = 1024 * MOST_CLUSTER;
constexpr size_t SHARED_APART = 256 << 10;  // from the dynamic shared memory of one block of a cluster to the next one's

enum class Schedule : int { depth_first, reversed, random, breadth_first };
enum class Waits : int { no, warp, block, cluster, finished };

struct Fiber {
  Context context;
  uint3 index;
  int thread;  // number among the threads that run together: block_first(rank) + number in its block
  int rank;    // of its block in the cluster
  Waits waits;
  Site site;              // of what it waits for
  Collective collective;  // that it waits for
  int vote;               // result of its last barrier
};

struct Array {  // as launch.py describes it
  void* address;
  uint64_t bytes;
  int element_bytes;  // 0 where unknown
  int shared;         // whether every block begins with it uninitialised
  int written;        // whether the kernel may write it
  const char* name;
};

struct Launch {  // as launch.py fills it in
  void (*entry)(void**);
  void** arguments;
  unsigned int grid[3], block[3], cluster[3];
  unsigned int shared_bytes, seed;
  int schedule, check;
  const Array* arrays;
  int array_count, message_bytes;
  char* message;
  uint64_t library;  // where it is loaded: sites are relative to it
  uint64_t switches, barriers, accesses;
};

// ---- scheduler.cpp ---------------------------------------------------------------------------------------------------

extern Launch* launch;
extern Fiber* fibers;
extern Fiber* current;
// The blocks of a cluster run together, those of different clusters one after another.  A kernel without
// __cluster_dims__ has clusters of one block.
extern int cluster_size;
extern int block_threads;           // threads of one block
extern int thread_count;            // of the cluster; where it has several blocks, each begins at a multiple of 32
extern int running[MOST_CLUSTER];   // threads of each block that are not finished
extern uint32_t cluster_number;

void wait(Waits reason, Site site);  // the current fiber waits, others run
void let_others_run();               // the current fiber goes on after all others that can
void wake(int thread);
void wake_all(const std::vector<int>& threads);  // in the order of the schedule
bool on_a_stack(uintptr_t address);
int block_first(int rank);                   // number of a block's first thread
int in_block(int thread);                    // a thread's number in its block
const char* thread_title(int thread);        // "thread 5", and of which block where there are several; the last 4 stay
uint32_t block_in_grid(uint32_t cluster, int rank);  // number of a block
char* shared_memory_of(int rank);
int rank_of_shared(uintptr_t address);       // whose dynamic shared memory it is in; -1 for nobody's

// ---- synchronise.cpp -------------------------------------------------------------------------------------------------

void reset_synchronisation();  // before each cluster

// ---- checker.cpp -----------------------------------------------------------------------------------------------------

void begin_checks();  // of a launch
void begin_cluster_checks();
void end_checks();
void order_everybody();                            // a barrier of all threads of the cluster
void order_threads(const std::vector<int>& threads);  // a collective that orders memory
void order_fence();
void order_atomic(uintptr_t address);

// What threads left at a place where they meet, for those who come later: at an mbarrier, at a cluster's barrier.
using Clock = uint32_t;
struct Release {
  std::vector<Clock> row;
  uint64_t acquired = 0;
};
void release(Release& into);  // by the current thread
void acquire(const Release& from);

// Agents work on memory beside the threads: asynchronous copies, the tensor cores.  What an agent did when its clock stood
// at n is over for those threads that know its clock to be n, whom whatever they waited at has told.
int new_agent(const char* title, const char* way_out);
void agent_is_done(int agent, Clock clock, Release& into);
void agent_is_done(int agent, Clock clock);  // the current thread knows
struct Issuers {                             // what all threads that started an operation know
  std::vector<Clock> known, fenced;          // fenced: and a proxy fence made visible to agents
};
Issuers issuers(const std::vector<int>& threads);
void agent_access(int agent, Clock clock, const Issuers& by, const volatile void* address, size_t bytes, Access kind,
                  uintptr_t site);
void order_proxy_fence();
bool is_known(int thread, Clock clock);  // whether the current thread does
Clock clock_of(int thread);
void tick();                             // of the current thread
void check_exit(int rank);               // of a block's last thread

}  // namespace emulator
