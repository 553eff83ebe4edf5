// Integer division as on a GPU.  x86 raises a signal where a quotient has no value: for the smallest integer divided by -1,
// which on a GPU wraps to the smallest integer with the remainder 0, and for division by zero, whose result on a GPU is
// unspecified, and which is a finding here.  In check mode the compiler's checks find both first.  Other CPUs raise no signal.

#include "runtime.h"

#ifdef __x86_64__
#include <signal.h>
#include <string.h>
#include <ucontext.h>

namespace emulator {
namespace {

struct sigaction outer_action;  // of the program, while a launch runs

// A div or idiv instruction with its divisor.
struct Division {
  bool known, is_wide;  // wide: of 64 bits, else 32
  int length;
  int64_t divisor;
};

greg_t register_of(const ucontext_t& state, int number) {
  static constexpr int order[] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
                                  REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};
  return state.uc_mcontext.gregs[order[number]];
}

template <class T>
T read(uintptr_t address) {
  T value;
  memcpy(&value, reinterpret_cast<const void*>(address), sizeof value);
  return value;
}

// Intel's manual, volume 2, chapter 2: an optional REX prefix, the opcode F7 /6 or /7, ModRM, SIB, displacement.
Division decode(const ucontext_t& state) {
  const auto begin = static_cast<uintptr_t>(state.uc_mcontext.gregs[REG_RIP]);
  uintptr_t at = begin;
  const int rex = (read<uint8_t>(at) & 0xf0) == 0x40 ? read<uint8_t>(at++) : 0;
  if (read<uint8_t>(at++) != 0xf7) return {};
  const int form = read<uint8_t>(at++), mode = form >> 6, operation = form >> 3 & 7;
  const bool wide = rex & 8;
  int base = form & 7;
  if (mode == 3) {
    const greg_t value = register_of(state, base | (rex & 1) << 3);
    return {operation >= 6, wide, static_cast<int>(at - begin), wide ? value : static_cast<int32_t>(value)};
  }
  greg_t address = 0;
  const bool relative = mode == 0 && base == 5;  // to the next instruction
  if (base == 4) {
    const int sib = read<uint8_t>(at++), index = (sib >> 3 & 7) | (rex & 2) << 2;
    base = sib & 7;
    if (index != 4) address = register_of(state, index) << (sib >> 6);
  }
  const bool has_base = mode || base != 5;
  if (has_base) address += register_of(state, base | (rex & 1) << 3);
  if (mode == 1) address += read<int8_t>(at++);
  if (mode == 2 || !has_base) address += read<int32_t>(at), at += 4;
  if (relative) address += static_cast<greg_t>(at);
  const auto operand = static_cast<uintptr_t>(address);
  return {operation >= 6, wide, static_cast<int>(at - begin), wide ? read<int64_t>(operand) : read<int32_t>(operand)};
}

void on_signal(int, siginfo_t*, void* interrupted) {
  auto& state = *static_cast<ucontext_t*>(interrupted);
  greg_t* registers = state.uc_mcontext.gregs;
  const Division division =
      current && on_a_stack(static_cast<uintptr_t>(registers[REG_RSP])) ? decode(state) : Division{};
  if (division.known && !division.divisor)
    fail("division", "divides an integer by zero, at @%#zx", static_cast<size_t>(registers[REG_RIP]) - launch->library);
  if (!division.known || division.divisor != -1) {  // none of a kernel: the signal comes again, without this handler
    sigaction(SIGFPE, &outer_action, nullptr);
    return;
  }
  // The dividend is the smallest integer and the divisor -1: RAX has the quotient already.
  if (!division.is_wide) registers[REG_RAX] &= 0xffffffff;
  registers[REG_RDX] = 0;
  registers[REG_RIP] += division.length;
}
}  // namespace

void begin_division() {
  struct sigaction action = {};
  action.sa_sigaction = on_signal;
  action.sa_flags = SA_SIGINFO | SA_NODEFER;  // fail() leaves the handler by a switch of stacks
  sigaction(SIGFPE, &action, &outer_action);
}
void end_division() { sigaction(SIGFPE, &outer_action, nullptr); }

}  // namespace emulator

#else

namespace emulator {
void begin_division() {}
void end_division() {}
}  // namespace emulator

#endif
