// The ticket: the native form of one admitted frame, from the loop's submit until it comes back through the
// completion ring. It owns its detections and its error text; the payload belongs to the loop, which keeps it
// alive that long. Exactly one thread owns a ticket at a time (see the ownership table in DESIGN.md); only
// `cancelled` may be set by the loop while another thread owns it.
#pragma once

#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <utility>
#include <vector>

namespace headworks {

enum class Status : int32_t { PENDING = 0, DONE = 1, FAILED = 2, DEADLINE = 3, CANCELLED = 4 };

// The numbers of core/outcomes.py (DropStage, FrameErrorCode); a test holds them together.
enum class Stage : int32_t { NONE = 0, BEFORE_DECODE = 2, BEFORE_BATCH = 3 };
enum ErrorCode : int32_t { UNDECODABLE = 1, ENGINE_FAILED = 4 };

// Little-endian, packed, 24 bytes: what nms writes and wire encodes.
struct Detection {
  float x1, y1, x2, y2, score;
  uint32_t class_id;
};
static_assert(sizeof(Detection) == 24);

// A broken rule of this library is a bug that must not serve another frame.
inline void require(bool holds, const char* rule) noexcept {
  if (holds) return;
  std::fprintf(stderr, "headworks_native: %s\n", rule);
  std::abort();
}

// How many tickets a lane has taken and not yet launched: what admission looks at. Written by every thread
// that launches or concludes a ticket, read by the loop; relaxed, because it is a hint that publishes nothing
// (the completion ring's wake-up, which follows each change, is what makes the loop look).
class LaneLoad {
 public:
  int64_t ahead() const noexcept { return ahead_.load(std::memory_order_relaxed); }
  void add() noexcept { ahead_.fetch_add(1, std::memory_order_relaxed); }
  void remove() noexcept { ahead_.fetch_sub(1, std::memory_order_relaxed); }

 private:
  alignas(64) std::atomic<int64_t> ahead_{0};
};

struct Ticket {
  // Set by the loop before it submits, constant from then on.
  const uint8_t* data = nullptr;
  size_t length = 0;
  int32_t encoding = 0;
  uint32_t width = 0;  // as stated, whatever it is
  uint32_t height = 0;
  int64_t deadline_ns = 0;  // absolute, monotonic; 0: none
  float score_threshold = 0.0f;
  int32_t max_detections = 0;
  int32_t form = 1;  // of ResultOptions.Form; native lanes serve detections (1) only
  const void* seat = nullptr;  // identity only, never followed
  void* object = nullptr;      // the Python object around this struct, never followed without the GIL

  // May be set by the loop at any time. Relaxed: it orders nothing, a late look only costs work.
  std::atomic<bool> cancelled{false};

  // Filled by the lane.
  Status status = Status::PENDING;
  Stage stage = Stage::NONE;
  int32_t error_code = 0;
  int32_t source_width = 0;
  int32_t source_height = 0;
  int32_t batch_size = 0;
  bool leads_batch = false;  // the first wanted one of a launched batch: who counts batches counts these
  int64_t decode_started_ns = 0;
  int64_t decoded_ns = 0;  // when it first asked for a position
  int64_t published_ns = 0;
  int64_t launched_ns = 0;
  int64_t executed_ns = 0;
  int64_t completed_ns = 0;
  std::string detail;
  std::vector<Detection> detections;

  // Of the lane's own book-keeping.
  Ticket* next = nullptr;    // in the queue
  LaneLoad* load = nullptr;  // counted there until launched or concluded
  bool reserved = false;     // has its cell in the completion ring

  bool pending() const noexcept { return status == Status::PENDING; }
  bool late(int64_t now_ns) const noexcept { return deadline_ns != 0 && now_ns >= deadline_ns; }

  void drop(Status why, Stage how_far) noexcept {
    status = why;
    stage = how_far;
  }

  void fail(int32_t code, std::string why) {
    status = Status::FAILED;
    error_code = code;
    detail = std::move(why);
  }

  // Looked at before each piece of work: false when the frame is not wanted any more, and its status says so.
  bool wanted(Stage stage_now, int64_t now_ns) noexcept {
    if (!pending()) return false;
    if (cancelled.load(std::memory_order_relaxed)) drop(Status::CANCELLED, stage_now);
    else if (late(now_ns)) drop(Status::DEADLINE, stage_now);
    return pending();
  }

  bool begin_decode(int64_t now_ns) noexcept {
    decode_started_ns = now_ns;
    return wanted(Stage::BEFORE_DECODE, now_ns);
  }

  // Leave the lane's count, at launch or at the end, whichever comes first. The owner calls it.
  void settle() noexcept {
    if (load != nullptr) std::exchange(load, nullptr)->remove();
  }
};

}  // namespace headworks
