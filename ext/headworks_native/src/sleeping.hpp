// Stand-ins for a device lane's decoder and engine: they take time by sleeping, no CPU, and compute something
// checkable. For tests, fault tests and benchmarks, chosen by configuration only. Sleeps run to absolute times,
// and each begins as much earlier as its predecessor overslept, if it follows at once: so the stand-in is as
// fast as it says, and what the lane itself adds between two jobs still counts.
#pragma once

#include <sys/prctl.h>

#include <algorithm>
#include <cstring>
#include <numeric>
#include <random>

#include "device_lane.hpp"

namespace headworks {

inline void sleep_until(int64_t until_ns) noexcept {
  // The kernel may delay a sleeper by its timer slack, 50 us unless told otherwise.
  static thread_local const int exact = prctl(PR_SET_TIMERSLACK, 1UL);
  (void)exact;
  timespec until = to_timespec(until_ns);
  while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, nullptr) == EINTR) {
  }
}

// A worker that is busy for given times, one job after another.
class SleepingWorker {
 public:
  void begin(int64_t duration_ns) noexcept {
    int64_t now = monotonic_ns();
    bool at_once = now - woke_ns_ < 200'000;
    due_ns_ = now + duration_ns - (at_once ? std::min(woke_ns_ - due_ns_, duration_ns) : 0);
  }
  void end() noexcept {
    sleep_until(due_ns_);
    woke_ns_ = monotonic_ns();
  }

 private:
  int64_t due_ns_ = 0;
  int64_t woke_ns_ = 0;
};

struct DecodeTimes {
  int64_t usual_ns;
  double slow_fraction;  // of the frames
  int64_t slow_ns;
};

// "Decodes" by keeping the head of the payload; payloads that begin with "BAD!" are undecodable.
class SleepingDecoder final : public Decoder {
 public:
  // Keeps `head_bytes` of a payload, as much as a position holds.
  SleepingDecoder(const DecodeTimes& times, uint64_t seed, size_t head_bytes)
      : times_(times), head_bytes_(head_bytes), random_(seed) {}

  bool decode(Ticket& ticket) override {
    rest();
    if (ticket.length >= 4 && std::memcmp(ticket.data, "BAD!", 4) == 0) {
      ticket.fail(UNDECODABLE, "expected a picture, got a payload marked BAD!");
      return false;
    }
    ticket.source_width = static_cast<std::int32_t>(ticket.width);
    ticket.source_height = static_cast<std::int32_t>(ticket.height);
    scratch_.assign(ticket.data, ticket.data + std::min(ticket.length, head_bytes_));
    return true;
  }

  void write(uint8_t* position, size_t bytes) noexcept override {
    size_t used = std::min(bytes, scratch_.size());
    std::memcpy(position, scratch_.data(), used);
    std::memset(position + used, 0, bytes - used);  // nothing of the position's last frame may show
  }

  // The time of one decode, without a ticket.
  void rest() noexcept {
    worker_.begin(chance_(random_) < times_.slow_fraction ? times_.slow_ns : times_.usual_ns);
    worker_.end();
  }

 private:
  const DecodeTimes times_;
  const size_t head_bytes_;
  std::mt19937_64 random_;
  std::uniform_real_distribution<double> chance_{0.0, 1.0};
  std::vector<uint8_t> scratch_;
  SleepingWorker worker_;
};

struct EngineTimes {
  int64_t base_ns;
  int64_t frame_ns;
};

// Batches that end in an error: `count` of them, beginning with number `from` (the first batch is 0).
struct FailingBatches {
  int64_t from;
  int64_t count;
  bool contains(int64_t number) const noexcept { return number >= from && number < from + count; }
};

// Takes base + frame x count; its one detection for a frame is a function of the position's bytes.
class SleepingEngine final : public Engine {
 public:
  SleepingEngine(const EngineTimes& times, const FailingBatches& failing, size_t position_bytes, int32_t detections)
      : times_(times), failing_(failing), position_bytes_(position_bytes), detections_(detections) {}

  bool launch(Batch& batch) override {
    begin(batch.count());
    outputs_[flip_].clear();
    for (int32_t i = 0; i < batch.count(); ++i)
      outputs_[flip_].push_back(look({batch.memory + i * position_bytes_, position_bytes_}));
    return true;
  }

  bool wait(Batch& batch) override {
    end();
    flip_ ^= 1;  // the finished outputs stay valid while the next batch runs
    int64_t number = number_++;
    if (failing_.contains(number)) batch.error = "sleeping engine: batch " + std::to_string(number) + " was told to fail";
    return batch.error.empty();
  }

  void postprocess(const Batch&, int32_t index, Ticket& ticket) override {
    ticket.detections.assign(detections_, outputs_[flip_ ^ 1][index]);
  }

  // The time of one batch, without one.
  void begin(int32_t count) noexcept { worker_.begin(times_.base_ns + times_.frame_ns * count); }
  void end() noexcept { worker_.end(); }

 private:
  static Detection look(std::span<const uint8_t> bytes) noexcept {
    float x = static_cast<float>(std::accumulate(bytes.begin(), bytes.end(), uint64_t{0}) % 65536);
    float y = static_cast<float>(bytes.size() > 1 ? bytes[0] | bytes[1] << 8 : bytes[0]);
    return {x, y, x + 1.0f, y + 1.0f, 0.5f, bytes[0]};
  }

  const EngineTimes times_;
  const FailingBatches failing_;
  const size_t position_bytes_;
  const int32_t detections_;  // copies of the one, a frame
  int64_t number_ = 0;
  int flip_ = 0;
  std::vector<Detection> outputs_[2];
  SleepingWorker worker_;
};

// What SleepingLane is made of; times in nanoseconds.
inline std::unique_ptr<DeviceLane> make_sleeping_lane(const RingShape& shape, int32_t decoders, DecodeTimes decode,
                                                      uint64_t seed, EngineTimes engine, FailingBatches failing,
                                                      int32_t detections, CompletionRing& completions) {
  std::vector<std::unique_ptr<Decoder>> pool;
  for (int32_t i = 0; i < decoders; ++i) pool.push_back(std::make_unique<SleepingDecoder>(decode, seed + i, shape.position_bytes));
  return std::make_unique<DeviceLane>(shape, std::make_unique<SleepingEngine>(engine, failing, shape.position_bytes, detections),
                                      std::move(pool), completions);
}

}  // namespace headworks
