// What the files of the runtime share.
//
//   scheduler.cpp    fibers, schedules, blocks, the launch
//   synchronise.cpp  barriers, warp collectives, fences, atomics: who waits for whom
//   checker.cpp      check mode: clocks, races, bounds, uninitialised shared memory
//   tensor_core.cpp  instructions of a warp on matrices
//   asynchronous.cpp what an instruction starts and a later one waits for
//   callbacks.cpp    what the compiler calls in check mode
#pragma once
#include <stddef.h>
#include <stdint.h>

#include <functional>
#include <vector>

#include "fiber.h"
// the kernels' view of CUDA comes last: its macros would meet those of the system's headers
#include "cuda_on_cpu.h"

namespace emulator {

constexpr int MOST_THREADS = 1024, MOST_ENGINES = 32;

enum class Schedule : int { depth_first, reversed, random, breadth_first };
enum class Completion : int { eager, lazy };

struct Fiber {
  Context context;
  uint3 index;
  int thread;         // number in its block
  bool finished;
  const char* waits;  // for what; null if it can run
  Site site;          // where it waits
  int vote;           // result of its last barrier
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
  unsigned int grid[3], block[3];
  unsigned int shared_bytes, seed;
  int schedule, completion, check;
  int array_count, message_bytes;
  const Array* arrays;
  char* message;
  uint64_t library;  // where it is loaded: sites are relative to it
  uint64_t switches, barriers, accesses, transfers;
};

// ---- scheduler.cpp ---------------------------------------------------------------------------------------------------

extern Launch* launch;
extern Fiber* fibers;
extern Fiber* current;
extern int thread_count, running;  // of the block: all, and those not finished
extern uint32_t block_number;

void wait(const char* what, Site site);  // the current fiber waits until another one wakes it
void let_others_run();               // the current fiber goes on after all others that can
void wake(int thread);
void wake_all(const std::vector<int>& threads);  // in the order of the schedule
bool on_a_stack(uintptr_t address);
uint32_t random_number();

// ---- synchronise.cpp -------------------------------------------------------------------------------------------------

void reset_synchronisation();  // before each block

// ---- asynchronous.cpp ------------------------------------------------------------------------------------------------
//
// An asynchronous instruction starts a Transfer.  Its data moves at once ("eager"), or when it is complete and not
// before ("lazy"): the first and the last moment that a card may choose.  In check mode, until it is complete, nobody may
// touch what it writes, nor write what it reads.  There are two ways to become complete:
//
//   in groups           cp.async, bulk stores, wgmma: join(groups_of(kind, owner), start(...)), commit(...), and the wait
//                       instruction calls complete(groups, left).  The writes are then those of the thread that waited.
//   by an engine        what signals an mbarrier: fly(start(...), engine, landed).  It lands at once, or at the latest
//                       when no thread can run without it; then `landed` tells the barrier.  The writes are the
//                       engine's: publish_engine() hands them to an Order, which those who wait for the barrier acquire().

struct Range {
  uintptr_t address;
  size_t bytes;
  bool written;
};

struct Transfer {
  std::vector<Range> ranges;      // what it reads and writes, in memory that is checked
  std::function<void()> perform;  // moves the data
  int thread;                     // that started it
  uintptr_t site;                 // the line that did, as an address in the kernel's library
  uint32_t group;
};

enum class Kind : int { copy, bulk, matrix };
constexpr int KINDS = 3;

struct Groups {  // of an owner: a thread, or the first thread of a warp
  std::vector<Transfer> pending;
  uint32_t open;  // number of the group that the next commit closes
};

Transfer start(std::vector<Range> ranges, std::function<void()> perform, void* return_address);
Groups& groups_of(Kind kind, int owner);
void join(Groups& groups, Transfer transfer);
void commit(Groups& groups);
void complete(Groups& groups, uint32_t left);  // all but the latest `left` committed groups
void fly(Transfer transfer, int engine, std::function<void()> landed);
bool land_one();                                                             // false if none is in flight
const Transfer* transfer_at(uintptr_t address, size_t bytes, bool written);  // pending: one that writes there, or any
void finish_transfers();                                                     // at the end of each block
void reset_transfers();                                                      // before each block

// ---- checker.cpp -----------------------------------------------------------------------------------------------------

void begin_checks();  // of a launch
void begin_block_checks();
void end_checks();
void order_block();                                   // a barrier of all threads
void order_threads(const std::vector<int>& threads);  // a collective that orders memory
void order_fence();
void order_atomic(uintptr_t address);

// What is handed on through a barrier: what those who published to it did before is ordered before what those who acquire
// it do afterwards.  Each engine (0 to MOST_ENGINES - 1) has a clock of its own: one a barrier keeps barriers apart.
struct Order {
  std::vector<uint32_t> clocks;
  uint64_t acquired = 0;
};
// These and what follows are called in check mode only.
void publish(Order& order, int thread);
void publish_engine(Order& order, int engine);
void acquire(const Order& order, int thread);

void need_shared(const void* address, const char* what, void* return_address);  // a finding if it is not shared memory
void check_start(const Transfer& transfer);  // its accesses, as the current thread's; then nobody may touch the memory
void check_complete(const Transfer& transfer, int agent);  // its accesses are the agent's: a thread, or MOST_THREADS + engine

}  // namespace emulator
