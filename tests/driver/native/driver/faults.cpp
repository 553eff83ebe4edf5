// Invalid accesses of running work become CUDA errors: a kernel, copy or host function that touches freed memory, or memory of
// nobody, ends with CUDA_ERROR_ILLEGAL_ADDRESS, and its context stays unusable as on a GPU.
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <ucontext.h>

#include "driver.h"

namespace driver {

thread_local bool kernel_is_running = false;  // on this thread, in the emulator

namespace {
thread_local sigjmp_buf* return_point = nullptr;
thread_local char fault_text[512];

constexpr int kSignals[] = {SIGSEGV, SIGBUS};
struct sigaction outer_actions[std::size(kSignals)];  // of the program, while ours are installed

void restore_outer_actions() {
  for (size_t i = 0; i < std::size(kSignals); i++) sigaction(kSignals[i], &outer_actions[i], nullptr);
}

void on_fault(int, siginfo_t* info, void* state) {
  if (!return_point) return restore_outer_actions();  // of a thread that runs no work: it faults again, without us
  const auto address = reinterpret_cast<uintptr_t>(info->si_addr);
  const auto* registers = static_cast<ucontext_t*>(state)->uc_mcontext.gregs;
  snprintf(fault_text, sizeof fault_text, "%s %#zx, which is %s", registers[REG_ERR] & 2 ? "writes to" : "reads", address,
           describe_address(address).c_str());
  if (kernel_is_running) emulator.fault("illegal address", static_cast<uint64_t>(registers[REG_RIP]), fault_text);
  siglongjmp(*return_point, 1);
}

// While it lives, faults of this thread come to on_fault.  Handlers are the process's: the first of several threads installs
// them, the last one removes them.
class FaultHandler {
 public:
  FaultHandler() {
    const std::lock_guard lock(mutex);
    if (users++) return;
    struct sigaction action = {};
    action.sa_sigaction = on_fault;
    action.sa_flags = SA_SIGINFO | SA_NODEFER;  // the emulator leaves the handler by a switch of stacks
    for (size_t i = 0; i < std::size(kSignals); i++) sigaction(kSignals[i], &action, &outer_actions[i]);
  }
  ~FaultHandler() {
    const std::lock_guard lock(mutex);
    if (!--users) restore_outer_actions();
  }

 private:
  static inline std::mutex mutex;
  static inline int users = 0;
};

bool leaves_context_usable(CUresult status) {
  return status == CUDA_SUCCESS || status == CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES || status == CUDA_ERROR_INVALID_VALUE;
}
}  // namespace

CUresult guarded(const char* name, const std::function<CUresult()>& run) {
  if (return_point) return run();  // inside of other guarded work
  sigjmp_buf point;
  const FaultHandler handler;
  if (sigsetjmp(point, 1)) {
    return_point = nullptr;
    return fail(CUDA_ERROR_ILLEGAL_ADDRESS, "%s %s", name, fault_text);
  }
  return_point = &point;
  const CUresult status = run();
  return_point = nullptr;
  return status;
}

CUresult run_work(CUcontext context, const Work& work) {
  if (context->fault) return context->fault;
  const CUresult status = guarded(work.name.c_str(), work.run);
  if (leaves_context_usable(status)) return status;
  context->fault = status;
  context->fault_message = last_message();
  return status;
}

}  // namespace driver
