// The functions that sanitizers call in check mode.  -fsanitize=thread inserts a call at each memory access; -fsanitize=bounds,
// alignment and others insert a call for each error.  These definitions replace the sanitizers' runtime libraries.

#include "runtime.h"

using emulator::Access;

extern "C" {

#define CALLBACKS(BYTES)                                                                                        \
  void __tsan_read##BYTES(void* p) { emulator::access(p, BYTES, Access::read, __builtin_return_address(0)); }     \
  void __tsan_write##BYTES(void* p) { emulator::access(p, BYTES, Access::write, __builtin_return_address(0)); }   \
  void __tsan_unaligned_read##BYTES(void* p) { emulator::access(p, BYTES, Access::read, __builtin_return_address(0)); }   \
  void __tsan_unaligned_write##BYTES(void* p) { emulator::access(p, BYTES, Access::write, __builtin_return_address(0)); } \
  void __tsan_volatile_read##BYTES(void* p) {                                                                    \
    emulator::poll();                                                                                            \
    emulator::access(p, BYTES, Access::read, __builtin_return_address(0));                                       \
  }                                                                                                              \
  void __tsan_volatile_write##BYTES(void* p) { emulator::access(p, BYTES, Access::write, __builtin_return_address(0)); }
CALLBACKS(1)
CALLBACKS(2)
CALLBACKS(4)
CALLBACKS(8)
CALLBACKS(16)
#undef CALLBACKS

void __tsan_read_range(void* p, size_t bytes) { emulator::access(p, bytes, Access::read, __builtin_return_address(0)); }
void __tsan_write_range(void* p, size_t bytes) { emulator::access(p, bytes, Access::write, __builtin_return_address(0)); }
void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_vptr_update(void**, void*) {}

struct SourcePlace {
  const char* file;
  uint32_t line, column;
};

void __ubsan_handle_out_of_bounds(SourcePlace* at, size_t index) {
  emulator::fail("array index", "index %zd is out of range at %s:%u", static_cast<ssize_t>(index), at->file, at->line);
}
struct Mismatch {
  SourcePlace place;
  const void* type;
  unsigned char log_of_alignment, access;
};
void __ubsan_handle_type_mismatch_v1(Mismatch* found, uintptr_t address) {
  const SourcePlace* at = &found->place;
  if (address && address % (uintptr_t(1) << found->log_of_alignment) == 0)
    emulator::fail("out of bounds", "access past the end of a %s at %s:%u",
                   emulator::on_a_stack(address) ? "local variable" : "shared array", at->file, at->line);
  if (address)
    emulator::fail("misaligned", "a vector access needs a more aligned address than %#zx at %s:%u", address, at->file, at->line);
  emulator::fail("null pointer", "access through a null pointer at %s:%u", at->file, at->line);
}
void __ubsan_handle_pointer_overflow(SourcePlace* at, uintptr_t, uintptr_t) {
  emulator::fail("overflow", "pointer arithmetic at %s:%u", at->file, at->line);
}
void __ubsan_handle_shift_out_of_bounds(SourcePlace* at, uintptr_t, uintptr_t) {
  emulator::fail("overflow", "shift by too many bits at %s:%u", at->file, at->line);
}
#define OVERFLOW(name, what) \
  void __ubsan_handle_##name##_overflow(SourcePlace* at) { emulator::fail("overflow", what " at %s:%u", at->file, at->line); }
OVERFLOW(add, "integer addition")
OVERFLOW(sub, "integer subtraction")
OVERFLOW(mul, "integer multiplication")
OVERFLOW(negate, "integer negation")
OVERFLOW(divrem, "integer division, or division by zero,")
#undef OVERFLOW

}  // extern "C"
