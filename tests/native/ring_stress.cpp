// A stress test of the lanes without Python: random device lanes (decoders, buffers, batch sizes), a loop that
// submits, cancels, gives deadlines and drains, and a shutdown at a random moment, so in every state. Checked:
// each ticket comes back exactly once and with its own result; no position is leaked, shared, read before it is
// published or changed while the engine has it. Run under sanitizers by test_sanitizers.py and sanitize.sh.
//
//     ring_stress SECONDS [SEED]
#include <poll.h>
#include <sys/syscall.h>

#include <cstring>
#include <random>
#include <unordered_map>

#include "device_lane.hpp"

using namespace headworks;
using Random = std::mt19937_64;

namespace {

constexpr uint8_t POISON = 0xDD;

void check(bool holds, const char* what, uint64_t detail = 0) {
  if (holds) return;
  std::fprintf(stderr, "ring_stress: broken: %s (%llu)\n", what, static_cast<unsigned long long>(detail));
  std::_Exit(1);
}

int64_t pick(Random& random, int64_t low, int64_t high) {
  return std::uniform_int_distribution<int64_t>(low, high)(random);
}

void pause_us(int64_t us) {
  if (us > 0) std::this_thread::sleep_for(std::chrono::microseconds(us));
}

// A payload is a frame's number; a negative one is undecodable.
struct Payload {
  int64_t number;
};

class NumberDecoder final : public Decoder {
 public:
  NumberDecoder(uint64_t seed, int64_t max_us) : random_(seed), max_us_(max_us) {}

  bool decode(Ticket& ticket) override {
    pause_us(pick(random_, -max_us_, max_us_));
    std::memcpy(&number_, ticket.data, sizeof number_);
    if (number_ >= 0) return true;
    ticket.fail(UNDECODABLE, "negative");
    return false;
  }

  void write(uint8_t* position, size_t bytes) noexcept override {
    for (size_t i = 0; i < bytes; i += sizeof number_) std::memcpy(position + i, &number_, sizeof number_);
  }

 private:
  Random random_;
  const int64_t max_us_;
  int64_t number_ = 0;
};

// Reads each position at launch and again at the end, answers with what it finds in postprocessing, and poisons
// it. A position that two tickets share, that is read early, written late or freed early, shows another frame.
class CheckingEngine final : public Engine {
 public:
  CheckingEngine(uint64_t seed, int64_t max_us, size_t position_bytes)
      : random_(seed), max_us_(max_us), position_bytes_(position_bytes) {}

  bool launch(Batch& batch) override {
    check(busy_ == NO_BUFFER, "two batches on the device");
    if (pick(random_, 0, 99) == 0) {
      batch.error = "refused";
      return false;
    }
    busy_ = batch.buffer;
    look(batch);
    return true;
  }

  bool wait(Batch& batch) override {
    check(busy_ == batch.buffer, "waited for a batch that is not on the device");
    pause_us(pick(random_, -max_us_, max_us_));
    look(batch);
    busy_ = NO_BUFFER;
    if (pick(random_, 0, 49) == 0) batch.error = "failed";
    return batch.error.empty();
  }

  void postprocess(const Batch& batch, int32_t index, Ticket& ticket) override {
    ticket.detections.assign(1, Detection{});
    uint8_t* position = const_cast<uint8_t*>(batch.memory) + index * position_bytes_;
    std::memcpy(&ticket.detections[0], position, sizeof(int64_t));
    std::memset(position, POISON, position_bytes_);
  }

 private:
  void look(const Batch& batch) const {
    for (int32_t i = 0; i < batch.count(); ++i) {
      int64_t wanted;
      std::memcpy(&wanted, batch.tickets[i]->data, sizeof wanted);
      for (size_t at = 0; at < position_bytes_; at += sizeof wanted)
        check(std::memcmp(batch.memory + i * position_bytes_ + at, &wanted, sizeof wanted) == 0,
              "a position does not hold its ticket's frame", static_cast<uint64_t>(wanted));
    }
  }

  Random random_;
  const int64_t max_us_;
  const size_t position_bytes_;
  int32_t busy_ = NO_BUFFER;
};

struct Totals {
  int64_t lanes = 0, tickets = 0;
  int64_t by_status[5] = {};
};

// One lane from start to shutdown, with this thread as its loop.
class Episode {
 public:
  Episode(Random& random, Totals& totals)
      : random_(random), totals_(totals), capacity_(pick(random, 1, 96)), completions_(capacity_) {
    RingShape shape{static_cast<int32_t>(pick(random, 1, 4)), static_cast<int32_t>(pick(random, 1, 9)), 64};
    std::vector<std::unique_ptr<Decoder>> decoders;
    int64_t decode_us = pick(random, 0, 3) ? 0 : 200;
    for (int64_t i = pick(random, 1, 10); i > 0; --i)
      decoders.push_back(std::make_unique<NumberDecoder>(random(), decode_us));
    auto engine = std::make_unique<CheckingEngine>(random(), pick(random, 0, 2) ? 0 : 400, shape.position_bytes);
    lane_ = std::make_unique<DeviceLane>(shape, std::move(engine), std::move(decoders), completions_);
  }

  void run() {
    int64_t wanted = pick(random_, 0, 1500);
    bool drain_before_close = pick(random_, 0, 1);
    for (int64_t i = 0; i < wanted; ++i) {
      while (static_cast<int64_t>(out_.size()) >= capacity_) drain(true);
      submit(i);
      if (pick(random_, 0, 7) == 0) cancel_some();
      if (pick(random_, 0, 3) == 0) drain(false);
    }
    while (drain_before_close && !out_.empty()) drain(true);
    lane_->close();
    drain(false);
    check(out_.empty(), "tickets did not come back", out_.size());
    check(lane_->ahead() == 0, "the lane's count is off", static_cast<uint64_t>(lane_->ahead()));
    Ticket late;
    check(completions_.reserve(late), "the completion ring leaked a cell");
    check(!lane_->submit(late), "a closed lane took a ticket");
    ++totals_.lanes;
  }

 private:
  void submit(int64_t number) {
    auto owned = std::make_unique<std::pair<Ticket, Payload>>();
    auto& [ticket, payload] = *owned;
    payload.number = pick(random_, 0, 19) == 0 ? -number - 1 : number;
    ticket.data = reinterpret_cast<const uint8_t*>(&payload);
    ticket.length = sizeof payload;
    if (pick(random_, 0, 9) == 0) ticket.deadline_ns = monotonic_ns() + pick(random_, 0, 500'000);
    ticket.cancelled.store(pick(random_, 0, 19) == 0);
    check(completions_.reserve(ticket), "no cell for a ticket within the bound");
    Ticket* key = &ticket;
    out_.emplace(key, std::move(owned));
    check(lane_->submit(*key), "an open lane refused a ticket");
  }

  void cancel_some() {
    if (out_.empty()) return;
    auto one = out_.begin();
    std::advance(one, pick(random_, 0, std::min<int64_t>(3, static_cast<int64_t>(out_.size()) - 1)));
    one->first->cancelled.store(true);
  }

  void drain(bool wait) {
    if (wait) {
      pollfd fd{completions_.fileno(), POLLIN, 0};
      check(::poll(&fd, 1, 20'000) == 1, "a wake-up was lost");
    }
    completions_.begin_drain();
    while (Ticket* ticket = completions_.pop()) {
      auto mine = out_.find(ticket);
      check(mine != out_.end(), "a ticket came back twice or from nowhere");
      look(*ticket, mine->second->second);
      ++totals_.tickets;
      ++totals_.by_status[static_cast<int>(ticket->status)];
      out_.erase(mine);
    }
  }

  void look(const Ticket& ticket, const Payload& payload) const {
    check(!ticket.pending(), "a ticket came back without an outcome");
    check(ticket.load == nullptr, "a ticket came back and is still counted");
    if (ticket.status == Status::DONE) {
      int64_t seen;
      std::memcpy(&seen, &ticket.detections.at(0), sizeof seen);
      check(seen == payload.number, "a result belongs to another frame", static_cast<uint64_t>(seen));
      check(ticket.published_ns <= ticket.launched_ns && ticket.launched_ns <= ticket.executed_ns, "time runs backwards");
    }
    if (payload.number < 0) check(ticket.published_ns == 0, "an undecodable picture claimed a position");
    if (ticket.status == Status::DEADLINE) check(ticket.deadline_ns != 0, "a frame without a deadline was late");
  }

  Random& random_;
  Totals& totals_;
  const int64_t capacity_;
  CompletionRing completions_;
  std::unordered_map<Ticket*, std::unique_ptr<std::pair<Ticket, Payload>>> out_;  // outstanding
  std::unique_ptr<DeviceLane> lane_;                                              // goes first
};

// One region at two addresses: claims through one mapping, dispatch through the other, as acceptor processes would.
void two_mappings() {
  RingShape shape{3, 4, 32};
  int file = memfd_create("ring", MFD_CLOEXEC);
  check(file >= 0 && ftruncate(file, static_cast<off_t>(shape.region_bytes())) == 0, "no shared memory");
  auto map = [&] {
    void* at = mmap(nullptr, shape.region_bytes(), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    check(at != MAP_FAILED, "no mapping");
    return static_cast<uint8_t*>(at);
  };
  Ring dispatcher = Ring::create(map(), shape);
  Ring decoder = Ring::attach(map(), shape);
  for (int round = 0; round < 1000; ++round) {
    int count = 1 + round % shape.max_batch;
    for (int i = 0; i < count; ++i) {
      int32_t position = decoder.claim();
      check(position % shape.max_batch == i, "a claim through the second mapping is out of step");
      std::memcpy(decoder.memory(position), &round, sizeof round);
      decoder.publish(position);
    }
    int32_t buffer = dispatcher.seal();
    check(dispatcher.published(buffer) == count && dispatcher.claimed(buffer) == count, "counts differ by mapping");
    check(std::memcmp(dispatcher.buffer_memory(buffer), &round, sizeof round) == 0, "bytes differ by mapping");
    dispatcher.launch(buffer);
    dispatcher.drained(buffer);
    dispatcher.release(buffer);
  }
  munmap(dispatcher.buffer_memory(0) - shape.words_bytes(), shape.region_bytes());
  munmap(decoder.buffer_memory(0) - shape.words_bytes(), shape.region_bytes());
  ::close(file);
}

// Two threads that only ever run by each other's wake-up: one lost, and both sleep.
void ping_pong(int rounds) {
  EventCount moved;
  std::atomic<int> turn{0};
  auto play = [&](int me) {
    for (int i = 0; i < rounds; ++i) {
      while (turn.load(std::memory_order_acquire) != me) {
        uint32_t key = moved.prepare();
        if (turn.load(std::memory_order_acquire) == me) moved.cancel();
        else check(moved.wait(key, monotonic_ns() + 20'000'000'000), "an eventcount lost a wake-up");
      }
      turn.store(1 - me, std::memory_order_release);
      moved.notify_one();
    }
  };
  std::thread other(play, 1);
  play(0);
  other.join();
}

}  // namespace

int main(int argc, char** argv) {
  double seconds = argc > 1 ? std::atof(argv[1]) : 2.0;
  uint64_t seed = argc > 2 ? std::strtoull(argv[2], nullptr, 10) : std::random_device{}();
  std::printf("seed %llu\n", static_cast<unsigned long long>(seed));
  std::fflush(stdout);
  Random random(seed);
  Totals totals;
  two_mappings();
  ping_pong(20'000);
  int64_t until = monotonic_ns() + static_cast<int64_t>(seconds * 1e9);
  while (monotonic_ns() < until) Episode(random, totals).run();
  std::printf("%lld lanes, %lld tickets: %lld done, %lld failed, %lld late, %lld cancelled\n", (long long)totals.lanes,
              (long long)totals.tickets, (long long)totals.by_status[1], (long long)totals.by_status[2],
              (long long)totals.by_status[3], (long long)totals.by_status[4]);
  return totals.tickets > 0 ? 0 : 1;
}
