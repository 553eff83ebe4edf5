// What the files of the runtime share.
//
//   scheduler.cpp    fibers, schedules, blocks, the launch
//   synchronise.cpp  barriers, warp collectives, fences, atomics: who waits for whom
//   checker.cpp      check mode: clocks, races, bounds, uninitialised shared memory
//   lint.cpp         check mode's count of bank conflicts and sectors, where it is asked for
//   callbacks.cpp    what the compiler calls in check mode
#pragma once
#include <stddef.h>
#include <stdint.h>

#include <vector>

#include "fiber.h"
// the kernels' view of CUDA comes last: its macros would meet those of the system's headers
#include "cuda_on_cpu.h"

namespace emulator {

constexpr int MOST_THREADS = 1024;

enum class Schedule : int { depth_first, reversed, random, breadth_first };
enum class Waits : int { no, warp, block, finished };

struct Fiber {
  Context context;
  uint3 index;
  int thread;  // number in its block
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
  unsigned int grid[3], block[3];
  unsigned int shared_bytes, seed;
  int schedule, check;  // 2: with the lint
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
extern int thread_count, running;  // of the block: all, and those not finished
extern uint32_t block_number;

void wait(Waits reason, Site site);  // the current fiber waits, others run
void let_others_run();               // the current fiber goes on after all others that can
void wake(int thread);
void wake_all(const std::vector<int>& threads);  // in the order of the schedule
bool on_a_stack(uintptr_t address);

// ---- synchronise.cpp -------------------------------------------------------------------------------------------------

void reset_synchronisation();  // before each block

// ---- checker.cpp -----------------------------------------------------------------------------------------------------

void begin_checks();  // of a launch
void begin_block_checks();
void end_checks();
void order_block();                                // a barrier of all threads
void order_threads(const std::vector<int>& threads);  // a collective that orders memory
void order_fence();
void order_atomic(uintptr_t address);

// ---- lint.cpp --------------------------------------------------------------------------------------------------------

inline bool linting() { return launch->check > 1; }
void begin_lint();  // of a launch
void lint_access(uintptr_t address, size_t bytes, Access kind, uintptr_t site, bool shared);
void lint_warp(int warp);  // its lanes have met
void lint_block();         // all of them have

}  // namespace emulator
