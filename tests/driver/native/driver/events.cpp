// Events: positions in the queue of a stream, or among the nodes of a capture.
#include "driver.h"

namespace driver {
namespace {
CUresult check_event(CUevent event) {
  return event && !event->destroyed
             ? CUDA_SUCCESS
             : fail(CUDA_ERROR_INVALID_HANDLE, "%p is no event, or was destroyed", static_cast<void*>(event));
}
CUresult check_not_captured(CUevent event) {
  if (const CUresult status = check_event(event)) return status;
  return event->capture ? fail(CUDA_ERROR_CAPTURED_EVENT, "the event was recorded while its stream was captured")
                        : CUDA_SUCCESS;
}
}  // namespace
}  // namespace driver

using namespace driver;

API cuEventCreate(CUevent* event, unsigned flags) {
  BEGIN_CALL;
  if (!current_context()) return fail(CUDA_ERROR_INVALID_CONTEXT, "no context is current");
  *event = new CUevent_st{flags, current_context()};
  return CUDA_SUCCESS;
}
API cuEventDestroy(CUevent event) {
  const Call call(__func__);
  if (const CUresult status = check_event(event)) return status;
  event->destroyed = true;
  return CUDA_SUCCESS;
}
API cuEventRecord(CUevent event, CUstream handle) {
  BEGIN_CALL;
  if (const CUresult status = check_event(event)) return status;
  const CUstream stream = resolve(handle);
  if (!stream) return fail(CUDA_ERROR_INVALID_HANDLE, "%p is no stream, or was destroyed", static_cast<void*>(handle));
  if (event->context != stream->context)
    return fail(CUDA_ERROR_INVALID_HANDLE, "the event belongs to device %d, the stream to device %d", event->context->device,
                stream->context->device);
  const Lock lock(state_lock);
  if (const CUresult status = check_legacy(stream)) return status;
  if (stream->capture && !stream->capture->invalid.empty())
    return fail(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, "%s", stream->capture->invalid.c_str());
  if (!stream->capture) append_implicit_waits(stream);
  event->stream = stream;
  event->position = stream->enqueued;
  event->time = std::chrono::steady_clock::now();
  event->capture = stream->capture;
  event->nodes = stream->tail;
  return CUDA_SUCCESS;
}
API cuEventRecordWithFlags(CUevent event, CUstream stream, unsigned) { return cuEventRecord(event, stream); }
API cuEventSynchronize(CUevent event) {
  BEGIN_CALL;
  if (const CUresult status = check_not_captured(event)) return status;
  if (const CUresult status = check_unsafe_call()) return status;
  return event->stream ? run_queue(event->stream, event->position) : CUDA_SUCCESS;
}
API cuEventQuery(CUevent event) {
  BEGIN_CALL;
  if (const CUresult status = check_not_captured(event)) return status;
  if (const CUresult status = check_unsafe_call()) return status;
  if (!event->stream) return CUDA_SUCCESS;
  const std::unique_lock running(run_lock, std::try_to_lock);
  const bool busy = event->stream->finished < event->position;
  if (running)
    if (const CUresult status = run_queue(event->stream, event->position)) return status;
  return busy ? CUDA_ERROR_NOT_READY : CUDA_SUCCESS;
}
API cuEventElapsedTime(float* milliseconds, CUevent start, CUevent end) {
  BEGIN_CALL;
  for (CUevent event : {start, end}) {
    if (const CUresult status = check_not_captured(event)) return status;
    if (!event->stream)
      return fail(CUDA_ERROR_INVALID_HANDLE, "the %s event was not recorded", event == start ? "first" : "second");
    if (event->flags & CU_EVENT_DISABLE_TIMING)
      return fail(CUDA_ERROR_INVALID_HANDLE, "the %s event was created without timing", event == start ? "first" : "second");
    if (event->stream->finished < event->position) return CUDA_ERROR_NOT_READY;
  }
  *milliseconds = std::chrono::duration<float, std::milli>(end->time - start->time).count();
  return CUDA_SUCCESS;
}
API cuStreamWaitEvent(CUstream handle, CUevent event, unsigned) {
  BEGIN_CALL;
  if (const CUresult status = check_event(event)) return status;
  const CUstream stream = resolve(handle);
  if (!stream) return fail(CUDA_ERROR_INVALID_HANDLE, "%p is no stream, or was destroyed", static_cast<void*>(handle));
  {
    const Lock lock(state_lock);
    if (const CUresult status = check_legacy(stream)) return status;
    if (event->capture) return wait_for_captured_event(stream, event);
    if (stream->capture && event->stream)
      return invalidate(stream->capture, CUDA_ERROR_STREAM_CAPTURE_ISOLATION, "the event was recorded outside of the capture");
  }
  if (!event->stream || event->stream == stream) return CUDA_SUCCESS;
  return enqueue(handle, wait_for(event->stream, event->position));
}
