// The way out of the lanes: finished tickets from many lane threads to the one loop, and the wake-up that
// makes the loop look. It owns its cells and an eventfd; what it carries are 64-bit handles that mean
// something only to the process that submitted them (today the ticket's address), so the cells are
// position-independent.
//
// Bound: one cell for each ticket that can be outstanding (streams x max in flight), held by reserve() from
// submit until drain. A push can therefore never find the ring full; if it did, a frame would be lost or
// answered twice, so it is a bug and stops the process.
#pragma once

#include <sys/eventfd.h>

#include <bit>
#include <memory>

#include "eventcount.hpp"
#include "ticket.hpp"

namespace headworks {

class CompletionRing {
 public:
  explicit CompletionRing(int64_t capacity)
      : capacity_(capacity),
        mask_(std::bit_ceil(static_cast<uint64_t>(capacity)) - 1),
        cells_(new Cell[mask_ + 1]),
        eventfd_(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) {
    for (uint64_t i = 0; i <= mask_; ++i) cells_[i].sequence.store(i, std::memory_order_relaxed);
  }
  ~CompletionRing() {
    if (eventfd_ >= 0) ::close(eventfd_);
  }
  CompletionRing(const CompletionRing&) = delete;
  CompletionRing& operator=(const CompletionRing&) = delete;

  int fileno() const noexcept { return eventfd_; }
  int64_t capacity() const noexcept { return capacity_; }

  // Hold a cell for a ticket. False when as many are outstanding as the ring was made for.
  bool reserve(Ticket& ticket) noexcept {
    if (ticket.reserved) return true;
    // acquire/release: see push(), "why the cell is free".
    if (outstanding_.fetch_add(1, std::memory_order_acq_rel) >= capacity_) {
      outstanding_.fetch_sub(1, std::memory_order_relaxed);
      return false;
    }
    return ticket.reserved = true;
  }

  // Hand a concluded, reserved ticket to the loop, which wake() tells. Afterwards the caller must not touch it.
  //
  // Why the cell is free: this is push number n, so n tickets with a reservation each were pushed, and one of
  // them holds reservation n or a later one. That reservation was granted only after drain had given back cell
  // n - capacity (acquire on `outstanding_`), and its push came before this one on `tail_` (acq_rel), so what
  // drain wrote into the cell is visible here.
  void push(Ticket& ticket) noexcept {
    if (ticket.completed_ns == 0) ticket.completed_ns = monotonic_ns();
    ticket.settle();
    require(ticket.reserved, "a ticket without a reservation was pushed to the completion ring");
    uint64_t index = tail_.fetch_add(1, std::memory_order_acq_rel);
    Cell& cell = cells_[index & mask_];
    require(cell.sequence.load(std::memory_order_acquire) == index, "the completion ring overran its bound");
    cell.handle = reinterpret_cast<uintptr_t>(&ticket);
    cell.sequence.store(index + 1, std::memory_order_release);  // publishes the ticket's fields too
  }

  // Make the eventfd readable, unless it has been since the last drain began: at most one write a drain.
  void wake() noexcept {
    if (armed_.exchange(true, std::memory_order_acq_rel)) return;
    uint64_t one = 1;
    [[maybe_unused]] ssize_t written = ::write(eventfd_, &one, sizeof one);
  }

  // Begin a drain. The loop only. The order is: empty the eventfd, then disarm, then pop.
  //   - A wake() before the disarm found the flag armed and wrote nothing, but its push came before its exchange,
  //     and our exchange, later on the same word, acquires it: pop() sees that ticket now.
  //   - A wake() after the disarm writes: the eventfd is readable and the loop comes back.
  //   - pop() stops at a cell that a slower thread has taken and not filled. That thread's wake() is still to
  //     come, and by the first point it comes after our disarm: it writes.
  // Disarming before emptying would lose wake-ups: a write between the two would be eaten with the flag left
  // armed, and nobody would write again.
  void begin_drain() noexcept {
    uint64_t count;
    [[maybe_unused]] ssize_t got = ::read(eventfd_, &count, sizeof count);
    armed_.exchange(false, std::memory_order_acq_rel);
  }

  // The next finished ticket, or nullptr. The loop only.
  Ticket* pop() noexcept {
    Cell& cell = cells_[head_ & mask_];
    if (cell.sequence.load(std::memory_order_acquire) != head_ + 1) return nullptr;
    Ticket* ticket = reinterpret_cast<Ticket*>(cell.handle);
    cell.sequence.store(head_ + mask_ + 1, std::memory_order_release);
    ++head_;
    ticket->reserved = false;
    outstanding_.fetch_sub(1, std::memory_order_acq_rel);
    return ticket;
  }

 private:
  struct Cell {
    std::atomic<uint64_t> sequence;  // index: free for push number index; index + 1: filled by it
    uint64_t handle = 0;
  };

  const int64_t capacity_;
  const uint64_t mask_;
  const std::unique_ptr<Cell[]> cells_;
  const int eventfd_;
  alignas(64) std::atomic<uint64_t> tail_{0};
  alignas(64) std::atomic<int64_t> outstanding_{0};
  alignas(64) std::atomic<bool> armed_{false};
  alignas(64) uint64_t head_ = 0;  // the loop's alone
};

}  // namespace headworks
