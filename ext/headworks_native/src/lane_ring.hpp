// The ring with the tickets in its positions: what both forms of a lane drive. It adds to ring.hpp who sits in
// each position, the rules for frames that are late or cancelled, the time stamps, and the two places where a
// thread sleeps. Owns its region. Claim and publish come from any thread, the rest from the dispatching one.
#pragma once

#include <memory>
#include <span>

#include "eventcount.hpp"
#include "ring.hpp"

namespace headworks {

class LaneRing {
 public:
  explicit LaneRing(const RingShape& shape)
      : region_(shape.region_bytes()),
        ring_(Ring::create(region_.memory(), shape)),
        slots_(new Ticket*[static_cast<size_t>(shape.buffers) * shape.max_batch]()),
        counts_(new int32_t[shape.buffers]()) {}

  const Ring& ring() const noexcept { return ring_; }

  // --- any thread ---

  // Claim a position for a decoded ticket. NO_POSITION: no room (the ticket is still pending), or the frame is
  // late or cancelled (its status says so): such a frame never claims.
  int32_t claim(Ticket& ticket, int64_t now_ns) noexcept {
    if (ticket.decoded_ns == 0) ticket.decoded_ns = now_ns;
    if (!ticket.wanted(Stage::BEFORE_BATCH, now_ns)) return NO_POSITION;
    int32_t position = ring_.claim();
    if (position != NO_POSITION) slots_[position] = &ticket;  // told to the dispatcher by publish's release
    return position;
  }

  // Claim, and sleep while there is no room, until `stopping`, which concludes the ticket CANCELLED.
  int32_t claim_wait(Ticket& ticket, const std::atomic<bool>& stopping) noexcept {
    for (;;) {
      uint32_t key = opened_.prepare();
      if (stopping.load(std::memory_order_acquire)) ticket.drop(Status::CANCELLED, Stage::BEFORE_BATCH);
      int32_t position = ticket.pending() ? claim(ticket, monotonic_ns()) : NO_POSITION;
      if (position != NO_POSITION || !ticket.pending()) {
        opened_.cancel();
        return position;
      }
      opened_.wait(key);  // no time limit: a buffer opens within a batch or two, and then lateness is looked at
    }
  }

  void publish(int32_t position, int64_t now_ns) noexcept {
    slots_[position]->published_ns = now_ns;
    ring_.publish(position);
    published_.notify_one();
  }

  // --- the dispatching thread ---

  // Sleep until something is published in the open buffer. Returns false when `stopping` instead.
  bool wait_published(const std::atomic<bool>& stopping) noexcept {
    for (;;) {
      uint32_t key = published_.prepare();
      bool stopped = stopping.load(std::memory_order_acquire);
      if (stopped || ring_.anything_published()) {
        published_.cancel();
        return !stopped;
      }
      published_.wait(key);
    }
  }

  // Close the open buffer to claims (the next free one opens). NO_BUFFER when nothing is claimed.
  int32_t seal() noexcept {
    int32_t buffer = ring_.seal();
    if (buffer == NO_BUFFER) return NO_BUFFER;
    counts_[buffer] = ring_.claimed(buffer);
    if (ring_.open_buffer() != NO_BUFFER) opened_.notify_all();
    return buffer;
  }

  bool settled(int32_t buffer) const noexcept { return ring_.published(buffer) == ring_.claimed(buffer); }

  // Sleep until every claimed position of a sealed buffer is published: at most one write, as decoding is done
  // before claiming.
  void wait_settled(int32_t buffer) noexcept {
    while (!settled(buffer)) {
      uint32_t key = published_.prepare();
      if (settled(buffer)) published_.cancel();
      else published_.wait(key);
    }
  }

  // Conclude the frames of a settled buffer that are late or cancelled by now. They keep their positions: moving
  // pictures would cost more than running them. Returns how many are still wanted; with 0 the launch is skipped.
  int32_t judge(int32_t buffer, int64_t now_ns) noexcept {
    int32_t wanted = 0;
    for (Ticket* ticket : tickets(buffer)) wanted += ticket->wanted(Stage::BEFORE_BATCH, now_ns);
    return wanted;
  }

  void launch(int32_t buffer, int64_t now_ns) noexcept {
    ring_.launch(buffer);
    for (Ticket* ticket : tickets(buffer)) {
      ticket->launched_ns = now_ns;
      ticket->batch_size = counts_[buffer];
      ticket->settle();
    }
    // The first that is still wanted: what becomes of it is what became of the batch.
    for (Ticket* ticket : tickets(buffer)) {
      if (!ticket->pending()) continue;
      ticket->leads_batch = true;
      break;
    }
  }

  void drained(int32_t buffer, int64_t now_ns) noexcept {
    ring_.drained(buffer);
    for (Ticket* ticket : tickets(buffer)) ticket->executed_ns = now_ns;
  }

  // The positions' tickets are forgotten; whoever releases has taken them over.
  void release(int32_t buffer) noexcept {
    counts_[buffer] = 0;
    if (ring_.release(buffer)) opened_.notify_all();
  }

  // The tickets of a sealed buffer, in position order, until release.
  std::span<Ticket* const> tickets(int32_t buffer) const noexcept {
    return {slots_.get() + static_cast<size_t>(buffer) * ring_.shape().max_batch, static_cast<size_t>(counts_[buffer])};
  }

  // Wake every sleeper, so that it looks at its `stopping`.
  void wake_all() noexcept {
    opened_.notify_all();
    published_.notify_all();
  }

 private:
  Region region_;
  Ring ring_;
  std::unique_ptr<Ticket*[]> slots_;    // a position's claimant writes its slot, the dispatcher reads it settled
  std::unique_ptr<int32_t[]> counts_;   // positions of each sealed buffer; the dispatcher's alone
  EventCount opened_;                   // decoders without room sleep here
  EventCount published_;                // the dispatcher sleeps here
};

}  // namespace headworks
