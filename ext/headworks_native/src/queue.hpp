// The way in of a lane: tickets from the loop to the decoders, first in, first out. It owns no ticket's
// memory, only the chain through Ticket::next, so it never allocates and is bounded by the tickets that exist.
//
// The loop never waits for a lock here: push is one compare-and-swap on `inbox_`. The takers share a mutex
// among themselves, under which they turn the inbox (newest first) into `fifo_` (oldest first).
#pragma once

#include <mutex>

#include "eventcount.hpp"
#include "ticket.hpp"

namespace headworks {

class TicketQueue {
 public:
  // Returns false, and takes nothing, once closed.
  bool push(Ticket& ticket) noexcept {
    ticket.load = &load_;
    load_.add();
    Ticket* top = inbox_.load(std::memory_order_relaxed);
    do {
      if (top == closed_mark()) {
        ticket.settle();
        return false;
      }
      ticket.next = top;
      // release: the taker's acquire in refill() sees the whole ticket. No ABA: takers only take all.
    } while (!inbox_.compare_exchange_weak(top, &ticket, std::memory_order_release, std::memory_order_relaxed));
    arrived_.notify_one();
    return true;
  }

  // Take up to `max` tickets of one seat, in order, and never past a ticket of another seat. Blocks until there
  // is one, the queue is closed, or `until_ns` (monotonic; FOREVER) has passed. Returns how many.
  int32_t take(Ticket** out, int32_t max, int64_t until_ns) noexcept {
    for (bool in_time = true;;) {
      int32_t count = take_now(out, max);
      if (count != 0 || !in_time || closed()) return count;
      uint32_t key = arrived_.prepare();
      count = take_now(out, max);
      if (count == 0 && !closed()) {
        in_time = arrived_.wait(key, until_ns);
        continue;
      }
      arrived_.cancel();
      return count;
    }
  }

  // Refuse further tickets, wake the takers, and hand back what nobody took, oldest first, chained by `next`,
  // no longer counted.
  Ticket* close() noexcept {
    Ticket* rest;
    {
      std::lock_guard guard(takers_);
      refill(closed_mark());
      rest = fifo_;
      fifo_ = last_ = nullptr;
    }
    for (Ticket* ticket = rest; ticket != nullptr; ticket = ticket->next) ticket->settle();
    arrived_.notify_all();
    return rest;
  }

  bool closed() const noexcept { return inbox_.load(std::memory_order_acquire) == closed_mark(); }
  int64_t ahead() const noexcept { return load_.ahead(); }

 private:
  int32_t take_now(Ticket** out, int32_t max) noexcept {
    std::lock_guard guard(takers_);
    refill(nullptr);
    int32_t count = 0;
    while (count < max && fifo_ != nullptr && (count == 0 || fifo_->seat == out[0]->seat)) {
      out[count++] = fifo_;
      fifo_ = std::exchange(fifo_->next, nullptr);
    }
    // What stays had its own notify, which may have woken the taker that now took only its neighbour: pass it on.
    if (fifo_ != nullptr) arrived_.notify_one();
    else last_ = nullptr;
    return count;
  }

  // Move the inbox behind `fifo_` and leave `mark` in it. Only under the takers' mutex, so only pushes compete.
  void refill(Ticket* mark) noexcept {
    Ticket* top = inbox_.load(std::memory_order_relaxed);
    if (top == closed_mark() || (top == nullptr && mark == nullptr)) return;
    // acquire: pairs with the release of every push in the chain (each is a read-modify-write of the same word).
    top = inbox_.exchange(mark, std::memory_order_acq_rel);
    Ticket* newest = top;
    Ticket* oldest = nullptr;
    while (top != nullptr) oldest = std::exchange(top, std::exchange(top->next, oldest));
    if (oldest == nullptr) return;
    (fifo_ == nullptr ? fifo_ : last_->next) = oldest;
    last_ = newest;
  }

  Ticket* closed_mark() const noexcept { return const_cast<Ticket*>(&closed_); }

  alignas(64) std::atomic<Ticket*> inbox_{nullptr};
  EventCount arrived_;
  std::mutex takers_;
  Ticket* fifo_ = nullptr;  // under takers_
  Ticket* last_ = nullptr;  // under takers_; the end of fifo_
  Ticket closed_;           // its address in inbox_ says "closed"; nothing else of it is used
  LaneLoad load_;
};

}  // namespace headworks
