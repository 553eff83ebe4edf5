// gpunet's emulator as the driver calls it, and the functions of tests/driver/emulator_adapter.py that compile for it.
#pragma once
#include <stddef.h>
#include <stdint.h>

namespace driver {

struct EmulatorArray {  // as emulator::Array in gpunet/emulator/runtime.h
  void* address;
  uint64_t bytes;
  int element_bytes, shared, written;
  const char* name;
};

struct EmulatorLaunch {  // as emulator::Launch in gpunet/emulator/runtime.h
  void (*entry)(void**);
  void** arguments;
  unsigned grid[3], block[3], cluster[3];
  unsigned shared_bytes, seed;
  int schedule, completion, check, returned_pass, unset_allowed;
  int array_count, message_bytes;
  const EmulatorArray* arrays;
  char* message;
  uint64_t library;
  uint64_t switches, barriers, accesses, transfers;
};

struct EmulatorParameter {  // as emulator::Parameter in gpunet/emulator/cuda_on_cpu.h
  int bytes;
  char kind, pointer, constant;
  unsigned char element_bytes;
};

// The rest is as in tests/driver/emulator_adapter.py.
struct KernelCode {
  const char* name;  // lowered, as in the cubin
  void (*entry)(void**);
  unsigned cluster[3];
  int parameter_count;
  const EmulatorParameter* parameters;
};

struct VariableCode {
  const char* name;
  void* address;
  uint64_t bytes;
};

struct ModuleCode {
  uint64_t library;  // where it is loaded
  int kernel_count, variable_count, array_count;
  const KernelCode* kernels;
  const VariableCode* variables;
  const EmulatorArray* arrays;  // static shared memory and the source's own variables
  const char* error;            // why it does not compile, or null
};

struct EmulatorFunctions {
  int (*launch)(EmulatorLaunch*);
  void* (*dynamic_shared)(int rank);
  void (*fault)(const char* kind, uint64_t site, const char* what);  // ends the running launch; does not return
  // Compiles a module: its record and the names of its kernels and variables, each list separated by newlines.  The
  // result stays valid.
  const ModuleCode* (*compile)(const char* record, uint64_t bytes, const char* kernels, const char* variables);
  // Replaces addresses such as @0x12ab in a message by source lines.
  const char* (*explain)(uint64_t library, const char* message);
};
extern EmulatorFunctions emulator;

}  // namespace driver
