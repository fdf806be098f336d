// The device form of a lane: a pool of decoder threads and one dispatcher thread around a ring of (usually
// three) batch buffers, one open, one on the device, one draining. The loop submits tickets and finds them
// again, each exactly once, in the completion ring. No thread here ever needs the GIL. The lane owns its
// threads, queue, ring, decoders and engine; the completion ring is the loop's and outlives the lane.
#pragma once

#include <pthread.h>
#include <signal.h>

#include <string>
#include <thread>

#include "completion.hpp"
#include "lane_ring.hpp"
#include "queue.hpp"

namespace headworks {

// One decoder thread's own. Constructed on the loop, used by its thread alone.
class Decoder {
 public:
  virtual ~Decoder() = default;
  // Decode the ticket's payload into the decoder's scratch and set its source size. On false the ticket has
  // been failed, and no position will be claimed for it.
  virtual bool decode(Ticket& ticket) = 0;
  // Write what decode() left into a claimed position. Cannot fail: others wait for this position's publish.
  virtual void write(uint8_t* position, size_t bytes) noexcept = 0;
};

// A sealed buffer on its way through the engine.
struct Batch {
  int32_t buffer = NO_BUFFER;
  const uint8_t* memory = nullptr;  // `count` positions, dense
  std::span<Ticket* const> tickets = {};
  std::string error = {};  // why the batch failed; empty: it has not

  int32_t count() const noexcept { return static_cast<int32_t>(tickets.size()); }
  explicit operator bool() const noexcept { return buffer != NO_BUFFER; }
};

// Used by the dispatcher thread alone.
class Engine {
 public:
  virtual ~Engine() = default;
  // Start the batch. Its memory is the engine's until wait() returns. On false nothing was started, the memory is
  // the lane's again, and batch.error says why.
  virtual bool launch(Batch& batch) = 0;
  // Block until the launched batch is executed. On false its outputs are void and batch.error says why.
  virtual bool wait(Batch& batch) = 0;
  // Turn the outputs of one position into the ticket's detections. After wait() and before the next wait().
  virtual void postprocess(const Batch& batch, int32_t index, Ticket& ticket) = 0;
};

class DeviceLane {
 public:
  DeviceLane(const RingShape& shape, std::unique_ptr<Engine> engine, std::vector<std::unique_ptr<Decoder>> decoders,
             CompletionRing& completions)
      : ring_(shape),
        engine_(std::move(engine)),
        decoders_(std::move(decoders)),
        completions_(completions),
        batch_sizes_(new std::atomic<int64_t>[shape.max_batch + 1]()) {
    // Signals are the main thread's: a lane thread that took one would delay it.
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    try {
      for (auto& decoder : decoders_) start("hw-decode", [this, one = decoder.get()] { decode_loop(*one); });
      start("hw-dispatch", [this] { dispatch_loop(); });
    } catch (...) {  // no more threads to be had: end those that run
      pthread_sigmask(SIG_SETMASK, &before, nullptr);
      close();
      throw;
    }
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
  }
  ~DeviceLane() { close(); }
  DeviceLane(const DeviceLane&) = delete;
  DeviceLane& operator=(const DeviceLane&) = delete;

  // Take a reserved ticket. False when closed: the ticket is the caller's still. The loop only.
  bool submit(Ticket& ticket) noexcept { return queue_.push(ticket); }

  // Stop: a batch on the device finishes, every other ticket is concluded CANCELLED, all are in the completion
  // ring when this returns, and the threads are gone. Idempotent. The loop only, without the GIL.
  void close() noexcept {
    if (threads_.empty()) return;
    stopping_.store(true, std::memory_order_release);
    for (Ticket* rest = queue_.close(); rest != nullptr;) {
      Ticket* ticket = std::exchange(rest, rest->next);
      ticket->drop(Status::CANCELLED, Stage::BEFORE_DECODE);
      completions_.push(*ticket);
    }
    ring_.wake_all();
    std::thread dispatcher = std::move(threads_.back());
    threads_.pop_back();
    for (std::thread& decoder : threads_) decoder.join();
    // Only now is every claim published, so the dispatcher may seal for the last time.
    decoders_gone_.store(true, std::memory_order_release);
    ring_.wake_all();
    dispatcher.join();
    threads_.clear();
    completions_.wake();
  }

  int64_t ahead() const noexcept { return queue_.ahead(); }
  int64_t batches(int32_t size) const noexcept { return batch_sizes_[size].load(std::memory_order_relaxed); }
  const RingShape& shape() const noexcept { return ring_.ring().shape(); }

 private:
  template <typename Body>
  void start(const char* name, Body body) {
    threads_.emplace_back(std::move(body));
    pthread_setname_np(threads_.back().native_handle(), name);
  }

  void decode_loop(Decoder& decoder) noexcept {
    Ticket* ticket = nullptr;
    while (queue_.take(&ticket, 1, FOREVER) == 1) {
      int32_t position = NO_POSITION;
      if (ticket->begin_decode(monotonic_ns()) && decoder.decode(*ticket))
        position = ring_.claim_wait(*ticket, stopping_);
      if (position == NO_POSITION) {
        completions_.push(*ticket);
        completions_.wake();
        continue;
      }
      decoder.write(ring_.ring().memory(position), shape().position_bytes);
      ring_.publish(position, monotonic_ns());
    }
  }

  void dispatch_loop() noexcept {
    Batch executed;  // off the device, not postprocessed
    for (;;) {
      Batch running = launch_next();
      if (executed) finish(executed);  // while the device runs the next one
      if (running) {
        executed = await(running);
        continue;
      }
      executed = {};
      if (!ring_.wait_published(decoders_gone_)) break;
      if (stopping_.load(std::memory_order_acquire)) abandon();
    }
    abandon();
  }

  // Close the open buffer and start what it holds. An empty batch when nothing is published, nobody in it is
  // waited for any more, or the engine refused.
  Batch launch_next() noexcept {
    if (stopping_.load(std::memory_order_acquire) || !ring_.ring().anything_published()) return {};
    Batch batch = close_open();
    if (ring_.judge(batch.buffer, monotonic_ns()) == 0) return finish(batch), Batch{};
    ring_.launch(batch.buffer, monotonic_ns());
    batch_sizes_[batch.count()].fetch_add(1, std::memory_order_relaxed);
    if (!engine_->launch(batch)) {
      ring_.drained(batch.buffer, monotonic_ns());
      return finish(batch), Batch{};
    }
    completions_.wake();  // room for admission has appeared
    return batch;
  }

  Batch close_open() noexcept {
    int32_t buffer = ring_.seal();
    ring_.wait_settled(buffer);
    return {buffer, ring_.ring().buffer_memory(buffer), ring_.tickets(buffer)};
  }

  Batch await(Batch& batch) noexcept {
    engine_->wait(batch);
    ring_.drained(batch.buffer, monotonic_ns());
    return std::move(batch);
  }

  // Conclude the batch's tickets, free its buffer, and hand them to the loop under one wake-up.
  void finish(Batch& batch) noexcept {
    std::vector<Ticket*> tickets(batch.tickets.begin(), batch.tickets.end());
    for (int32_t i = 0; i < batch.count(); ++i) conclude(batch, i, *tickets[i]);
    ring_.release(batch.buffer);  // before the loop hears of it: the decoders are waiting
    for (Ticket* ticket : tickets) completions_.push(*ticket);
    completions_.wake();
  }

  void conclude(const Batch& batch, int32_t index, Ticket& ticket) noexcept {
    if (!ticket.pending()) return;  // rode along, or the launch was skipped
    if (!batch.error.empty()) return ticket.fail(ENGINE_FAILED, batch.error);
    engine_->postprocess(batch, index, ticket);
    ticket.status = Status::DONE;
  }

  // While stopping: nothing is launched any more, so what is in the open buffer is given back.
  void abandon() noexcept {
    if (!ring_.ring().anything_published()) return;
    Batch batch = close_open();
    for (Ticket* ticket : batch.tickets)
      if (ticket->pending()) ticket->drop(Status::CANCELLED, Stage::BEFORE_BATCH);
    finish(batch);
  }

  LaneRing ring_;
  TicketQueue queue_;
  const std::unique_ptr<Engine> engine_;
  const std::vector<std::unique_ptr<Decoder>> decoders_;
  CompletionRing& completions_;
  const std::unique_ptr<std::atomic<int64_t>[]> batch_sizes_;  // written by the dispatcher, read by the loop
  alignas(64) std::atomic<bool> stopping_{false};
  std::atomic<bool> decoders_gone_{false};
  std::vector<std::thread> threads_;  // the decoders, then the dispatcher; the loop's
};

}  // namespace headworks
