// Stream capture: the work of a stream becomes nodes of a graph, and events between streams become dependencies.
#include <stdarg.h>
#include <stdio.h>

#include <algorithm>

#include "driver.h"

namespace driver {

std::vector<Capture*> captures;  // not ended yet

namespace {
thread_local CUstreamCaptureMode thread_mode = CU_STREAM_CAPTURE_MODE_GLOBAL;

bool is_active(const Capture* capture) { return std::find(captures.begin(), captures.end(), capture) != captures.end(); }

void collect_ancestors(CUgraphNode node, std::set<CUgraphNode>& found) {
  if (!found.insert(node).second) return;
  for (CUgraphNode before : node->dependencies) collect_ancestors(before, found);
}

// Whether the origin waits for all nodes of the streams that joined the capture.
bool is_joined(const Capture& capture) {
  std::set<CUgraphNode> before_end;
  for (CUgraphNode node : capture.origin->tail) collect_ancestors(node, before_end);
  for (CUstream stream : capture.streams)
    for (CUgraphNode node : stream->tail)
      if (!before_end.count(node)) return false;
  return true;
}
}  // namespace

CUresult invalidate(Capture* capture, CUresult code, const char* format, ...) {
  char text[512];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  fail(code, "%s", text);
  if (capture->invalid.empty()) capture->invalid = last_message();
  return code;
}

CUresult add_node(CUstream stream, Work work) {
  Capture* capture = stream->capture;
  if (!capture->invalid.empty()) return fail(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, "%s", capture->invalid.c_str());
  auto node = std::make_shared<CUgraphNode_st>(CUgraphNode_st{std::move(work), stream->tail});
  stream->tail = {node.get()};
  capture->graph->nodes.push_back(std::move(node));
  return CUDA_SUCCESS;
}

namespace {
// The capture of a blocking stream, which work on the legacy stream would wait for; null if there is none.
Capture* capture_that_legacy_waits_for(CUstream stream) {
  if (!is_legacy(stream)) return nullptr;
  for (Capture* capture : captures)
    for (CUstream other : capture->streams)
      if (other->context == stream->context && !(other->flags & CU_STREAM_NON_BLOCKING)) return capture;
  return nullptr;
}
constexpr char kLegacyWaits[] = "the default stream waits for a blocking stream that is being captured";
}  // namespace

CUresult check_legacy(CUstream stream) {
  Capture* capture = capture_that_legacy_waits_for(stream);
  return capture ? invalidate(capture, CUDA_ERROR_STREAM_CAPTURE_IMPLICIT, "%s", kLegacyWaits) : CUDA_SUCCESS;
}

CUresult check_unsafe_call() {
  if (thread_mode == CU_STREAM_CAPTURE_MODE_RELAXED) return CUDA_SUCCESS;
  const Lock lock(state_lock);
  for (Capture* capture : captures) {
    const bool here = capture->thread == std::this_thread::get_id();
    if (capture->mode == CU_STREAM_CAPTURE_MODE_RELAXED) continue;
    const bool thread_local_only =
        capture->mode == CU_STREAM_CAPTURE_MODE_THREAD_LOCAL || thread_mode == CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
    if (!here && thread_local_only) continue;
    return invalidate(capture, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED,
                      "the call may wait for the device while a stream is captured");
  }
  return CUDA_SUCCESS;
}

CUresult wait_for_captured_event(CUstream stream, CUevent event) {
  Capture* capture = event->capture;
  if (!is_active(capture)) return fail(CUDA_ERROR_CAPTURED_EVENT, "the capture that the event was recorded in has ended");
  if (!capture->invalid.empty()) return fail(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, "%s", capture->invalid.c_str());
  if (stream->capture && stream->capture != capture)
    return fail(CUDA_ERROR_STREAM_CAPTURE_MERGE, "the stream and the event belong to different captures");
  if (is_legacy(stream))
    return invalidate(capture, CUDA_ERROR_STREAM_CAPTURE_IMPLICIT, "the default stream cannot be captured");
  if (!stream->capture) {
    stream->capture = capture;
    stream->tail.clear();
    capture->streams.push_back(stream);
  }
  for (CUgraphNode node : event->nodes)
    if (std::find(stream->tail.begin(), stream->tail.end(), node) == stream->tail.end()) stream->tail.push_back(node);
  return CUDA_SUCCESS;
}

namespace {
CUresult invalid_stream(CUstream handle) {
  return fail(CUDA_ERROR_INVALID_HANDLE, "%p is no stream, or was destroyed", static_cast<void*>(handle));
}
}  // namespace
}  // namespace driver

using namespace driver;

API cuThreadExchangeStreamCaptureMode(CUstreamCaptureMode* mode) {
  std::swap(*mode, thread_mode);
  return CUDA_SUCCESS;
}
API cuStreamBeginCapture(CUstream handle, CUstreamCaptureMode mode) {
  BEGIN_CALL;
  const CUstream stream = resolve(handle);
  if (!stream) return invalid_stream(handle);
  const Lock lock(state_lock);
  if (is_legacy(stream)) return fail(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, "the default stream cannot be captured");
  if (stream->capture) return fail(CUDA_ERROR_ILLEGAL_STATE, "the stream is being captured already");
  auto* capture = new Capture;
  capture->origin = stream;
  capture->mode = mode;
  capture->thread = std::this_thread::get_id();
  capture->id = next_id();
  capture->streams = {stream};
  captures.push_back(capture);
  stream->capture = capture;
  stream->tail.clear();
  return CUDA_SUCCESS;
}
API cuStreamEndCapture(CUstream handle, CUgraph* graph) {
  BEGIN_CALL;
  *graph = nullptr;
  const CUstream stream = resolve(handle);
  if (!stream) return invalid_stream(handle);
  const Lock lock(state_lock);
  Capture* capture = stream->capture;
  if (!capture) return fail(CUDA_ERROR_ILLEGAL_STATE, "the stream is not being captured");
  if (capture->origin != stream)
    return invalidate(capture, CUDA_ERROR_STREAM_CAPTURE_UNMATCHED, "the capture began in another stream");
  if (capture->mode != CU_STREAM_CAPTURE_MODE_RELAXED && capture->thread != std::this_thread::get_id())
    return fail(CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD, "the capture began in another thread");
  const bool joined = is_joined(*capture);
  for (CUstream member : capture->streams) member->capture = nullptr, member->tail.clear();
  std::erase(captures, capture);  // not deleted: events still point to it
  if (!capture->invalid.empty()) return fail(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, "%s", capture->invalid.c_str());
  if (!joined)
    return fail(CUDA_ERROR_STREAM_CAPTURE_UNJOINED, "a forked stream has work that the captured stream does not wait for");
  *graph = capture->graph;
  return CUDA_SUCCESS;
}
API cuStreamIsCapturing(CUstream handle, CUstreamCaptureStatus* status) {
  BEGIN_CALL;
  const CUstream stream = resolve(handle);
  if (!stream) return invalid_stream(handle);
  const Lock lock(state_lock);
  if (capture_that_legacy_waits_for(stream)) return fail(CUDA_ERROR_STREAM_CAPTURE_IMPLICIT, "%s", kLegacyWaits);
  *status = !stream->capture                   ? CU_STREAM_CAPTURE_STATUS_NONE
            : stream->capture->invalid.empty() ? CU_STREAM_CAPTURE_STATUS_ACTIVE
                                               : CU_STREAM_CAPTURE_STATUS_INVALIDATED;
  return CUDA_SUCCESS;
}
