// Streams: queues of work, and who waits for whom.
#include <algorithm>

#include "driver.h"

namespace driver {
namespace {
std::vector<CUstream> streams;  // created ones, those of threads, destroyed ones too: events still point to them

CUresult invalid_stream(CUstream handle) {
  return fail(CUDA_ERROR_INVALID_HANDLE, "%p is no stream, or was destroyed", static_cast<void*>(handle));
}

std::vector<CUstream> streams_of(CUcontext context) {
  const Lock lock(state_lock);
  std::vector<CUstream> found = {&context->legacy};
  for (CUstream stream : streams)
    if (stream->context == context) found.push_back(stream);
  return found;
}
// The calling thread's default stream.
CUstream stream_of_thread(CUcontext context) {
  thread_local std::map<CUcontext, CUstream> made;
  CUstream& stream = made[context];
  if (!stream) {
    const Lock lock(state_lock);
    streams.push_back(stream = new CUstream_st{0, 0, context, next_id(), true});
  }
  return stream;
}
}  // namespace

CUstream resolve(CUstream handle) {
  const CUcontext context = current_context();
  if (handle == nullptr || handle == CU_STREAM_LEGACY) return context ? &context->legacy : nullptr;
  if (handle == CU_STREAM_PER_THREAD) return context ? stream_of_thread(context) : nullptr;
  const Lock lock(state_lock);
  const bool known = std::find(streams.begin(), streams.end(), handle) != streams.end();
  return known && !handle->destroyed ? handle : nullptr;
}

bool is_legacy(CUstream stream) { return stream == &stream->context->legacy; }

namespace {
int running_works = 0;  // those that wait for others included
uint64_t host_waits = 0;

// Runs a work of a stream; the caller holds run_lock.
CUresult run_in(CUstream stream, const Work& work) {
  stream->running = true;
  running_works++;
  const CUresult status = run_work(stream->context, work);
  running_works--;
  stream->running = false;
  const Lock lock(state_lock);
  stream->finished++;
  return status;
}
}  // namespace

CUresult run_queue(CUstream stream, uint64_t position) {
  const Lock running(run_lock);
  bool is_host_wait = !running_works;
  while (!stream->running) {  // else a host function waits for its own stream
    Work work;
    {
      const Lock lock(state_lock);
      if (stream->queue.empty() || stream->finished >= position) break;
      work = std::move(stream->queue.front());
      stream->queue.pop_front();
    }
    host_waits += is_host_wait;
    is_host_wait = false;
    if (const CUresult status = run_in(stream, work)) return status;
  }
  return stream->context->fault;
}

void drop_queues(CUcontext context) {
  for (CUstream stream : streams_of(context)) {
    stream->queue.clear();
    stream->finished = stream->enqueued;
  }
}

CUresult run_queues(CUcontext context, bool blocking_only) {
  for (CUstream stream : streams_of(context)) {
    if (blocking_only && stream->flags & CU_STREAM_NON_BLOCKING) continue;
    if (const CUresult status = run_queue(stream)) return status;
  }
  return CUDA_SUCCESS;
}

Work wait_for(CUstream stream, uint64_t position) {
  return {CU_GRAPH_NODE_TYPE_WAIT_EVENT, "the wait for another stream", [=] {
            run_queue(stream, position);  // an error there is that of its own device
            return CUDA_SUCCESS;
          }};
}

namespace {
void append(CUstream stream, Work work) {
  stream->queue.push_back(std::move(work));
  stream->enqueued++;
}
}  // namespace

void append_implicit_waits(CUstream stream) {
  if (stream->flags & CU_STREAM_NON_BLOCKING) return;
  const std::vector<CUstream> others =
      is_legacy(stream) ? streams_of(stream->context) : std::vector<CUstream>{&stream->context->legacy};
  for (CUstream other : others)
    if (other != stream && !(other->flags & CU_STREAM_NON_BLOCKING) && other->finished < other->enqueued)
      append(stream, wait_for(other, other->enqueued));
}

CUresult enqueue(CUstream handle, Work work) {
  const CUstream stream = resolve(handle);
  if (!stream) return invalid_stream(handle);
  {
    const Lock lock(state_lock);
    if (const CUresult status = check_legacy(stream)) return status;
    if (stream->capture) return add_node(stream, std::move(work));
  }
  if (!settings.lazy) {
    const Lock running(run_lock);
    {
      const Lock lock(state_lock);
      stream->enqueued++;
    }
    return run_in(stream, work);
  }
  const Lock lock(state_lock);
  append_implicit_waits(stream);
  append(stream, std::move(work));
  return CUDA_SUCCESS;
}

namespace {
// For calls that need the stream to be done, or to know whether it is.
CUresult check_wait(CUstream stream) {
  const Lock lock(state_lock);
  if (const CUresult status = check_legacy(stream)) return status;
  if (!stream->capture) return CUDA_SUCCESS;
  return invalidate(stream->capture, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, "the stream is being captured");
}
}  // namespace
}  // namespace driver

using namespace driver;

extern "C" __attribute__((visibility("default"))) uint64_t standin_host_waits() { return host_waits; }

#define RESOLVE(stream, handle)            \
  const CUstream stream = resolve(handle); \
  if (!stream) return invalid_stream(handle)

API cuStreamCreateWithPriority(CUstream* stream, unsigned flags, int priority) {
  BEGIN_CALL;
  if (!current_context()) return fail(CUDA_ERROR_INVALID_CONTEXT, "no context is current");
  if (flags & ~CU_STREAM_NON_BLOCKING) return fail(CUDA_ERROR_INVALID_VALUE, "flags are %#x", flags);
  const Lock lock(state_lock);
  *stream = new CUstream_st{flags, std::clamp(priority, -5, 0), current_context(), next_id()};
  streams.push_back(*stream);
  return CUDA_SUCCESS;
}
API cuStreamCreate(CUstream* stream, unsigned flags) { return cuStreamCreateWithPriority(stream, flags, 0); }
API cuStreamDestroy(CUstream handle) {
  const Call call(__func__);
  RESOLVE(stream, handle);
  const Lock lock(state_lock);
  if (is_legacy(stream) || stream->is_per_thread)
    return fail(CUDA_ERROR_INVALID_HANDLE, "a default stream cannot be destroyed");
  if (Capture* capture = stream->capture) {
    capture->invalid = "a stream that is being captured was destroyed";
    std::erase(capture->streams, stream);
    if (capture->origin == stream) std::erase(captures, capture);
    stream->capture = nullptr;
  }
  stream->destroyed = true;  // its queue still runs when the device is waited for
  return CUDA_SUCCESS;
}
API cuStreamGetPriority(CUstream handle, int* priority) {
  BEGIN_CALL;
  RESOLVE(stream, handle);
  *priority = stream->priority;
  return CUDA_SUCCESS;
}
API cuStreamGetFlags(CUstream handle, unsigned* flags) {
  BEGIN_CALL;
  RESOLVE(stream, handle);
  *flags = stream->flags;
  return CUDA_SUCCESS;
}
API cuStreamGetId(CUstream handle, unsigned long long* id) {
  BEGIN_CALL;
  RESOLVE(stream, handle);
  *id = stream->id;
  return CUDA_SUCCESS;
}
API cuStreamGetCtx(CUstream handle, CUcontext* context) {
  BEGIN_CALL;
  RESOLVE(stream, handle);
  *context = stream->context;
  return CUDA_SUCCESS;
}
API cuStreamSynchronize(CUstream handle) {
  BEGIN_CALL;
  RESOLVE(stream, handle);
  if (const CUresult status = check_wait(stream)) return status;
  return is_legacy(stream) ? run_queues(stream->context, true) : run_queue(stream);
}
// Not ready while work is queued; the query also lets the work run, so that a loop of queries ends.
API cuStreamQuery(CUstream handle) {
  BEGIN_CALL;
  RESOLVE(stream, handle);
  if (const CUresult status = check_wait(stream)) return status;
  const std::unique_lock running(run_lock, std::try_to_lock);
  const bool busy = !running || !stream->queue.empty();
  if (running)
    if (const CUresult status = is_legacy(stream) ? run_queues(stream->context, true) : run_queue(stream)) return status;
  return busy ? CUDA_ERROR_NOT_READY : CUDA_SUCCESS;
}
API cuStreamAddCallback(CUstream handle, CUstreamCallback callback, void* data, unsigned) {
  BEGIN_CALL;
  RESOLVE(stream, handle);
  if (stream->capture)
    return invalidate(stream->capture, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, "the stream is being captured");
  return enqueue(handle, {CU_GRAPH_NODE_TYPE_HOST, "a callback", [=] {
                            callback(handle, CUDA_SUCCESS, data);
                            return CUDA_SUCCESS;
                          }});
}
API cuLaunchHostFunc(CUstream handle, CUhostFn function, void* data) {
  BEGIN_CALL;
  return enqueue(handle, {CU_GRAPH_NODE_TYPE_HOST, "a host function", [=] {
                            function(data);
                            return CUDA_SUCCESS;
                          }});
}
