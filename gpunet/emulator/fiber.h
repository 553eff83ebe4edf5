// Fibers: execution contexts with their own stacks.  On x86-64 a switch takes a dozen instructions (10 ns); on other
// machines, and with EMULATOR_UCONTEXT, it uses ucontext (200 ns).
#pragma once
#include <stddef.h>

#if !defined(__x86_64__) && !defined(EMULATOR_UCONTEXT)
#define EMULATOR_UCONTEXT 1
#endif

#ifdef EMULATOR_UCONTEXT
#include <ucontext.h>

namespace emulator {

struct Context {
  ucontext_t state;
};

inline void prepare(Context& context, char* stack, size_t bytes, void (*entry)()) {
  getcontext(&context.state);
  context.state.uc_stack.ss_sp = stack;
  context.state.uc_stack.ss_size = bytes;
  context.state.uc_link = nullptr;
  makecontext(&context.state, entry, 0);
}

inline void switch_context(Context& from, Context& to) { swapcontext(&from.state, &to.state); }

}  // namespace emulator

#else

// Saves the callee-saved registers on the current stack, stores the stack pointer in `from`, and switches to stack `to`.
extern "C" void gpunet_emulator_switch(void** from, void* to);

namespace emulator {

struct Context {
  void* stack_pointer;
};

inline void prepare(Context& context, char* stack, size_t bytes, void (*entry)()) {
  void** top = reinterpret_cast<void**>(stack + bytes);
  *--top = nullptr;  // return address of the entry, which never returns; keeps the stack aligned as after a call
  *--top = reinterpret_cast<void*>(entry);
  for (int saved = 0; saved < 6; saved++) *--top = nullptr;
  context.stack_pointer = top;
}

inline void switch_context(Context& from, Context& to) {
  gpunet_emulator_switch(&from.stack_pointer, to.stack_pointer);
}

}  // namespace emulator

#endif
