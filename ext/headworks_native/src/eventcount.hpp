// How a lane's threads sleep until something they look for has become true, without a lock and without a
// busy wait. Used by queue.hpp (no ticket there), ring.hpp (no position, nothing published). It owns two
// words and no thread. The waiter's condition lives elsewhere, in atomics.
//
//     waiter:    key = prepare(); if (condition) cancel(); else wait(key);   // and look again
//     notifier:  make the condition true; notify_one() or notify_all();
//
// Why no wake-up is missed. Both sides do a read-modify-write on `waiters_`, and those have one total order:
//   1. The notifier's comes second: it reads a count above zero, bumps `epoch_` and wakes.
//        a. The bump comes before the waiter loads its key: the load acquires the bump's release, so the
//           condition, true before the bump, is seen true and the waiter never sleeps.
//        b. It comes after: the kernel compares `epoch_` with the key under its own lock and refuses to
//           sleep, or the waiter already sleeps and FUTEX_WAKE finds it.
//   2. The waiter's comes second: it acquires what the notifier released, so its look at the condition sees
//      it true, and it never sleeps.
// So no fence is needed (ThreadSanitizer does not understand fences), and a notify that finds nobody costs
// one read-modify-write. The futex is used directly because std::atomic::wait has no timeout, spins before it
// sleeps and shares hashed waiter slots; the words are std::atomic.
#pragma once

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <climits>
#include <cstdint>
#include <ctime>

namespace headworks {

constexpr int64_t FOREVER = -1;

// CLOCK_MONOTONIC in nanoseconds: the clock of Python's time.monotonic_ns().
inline int64_t monotonic_ns() noexcept {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<int64_t>(now.tv_sec) * 1'000'000'000 + now.tv_nsec;
}

inline timespec to_timespec(int64_t time_ns) noexcept {
  return {static_cast<time_t>(time_ns / 1'000'000'000), static_cast<long>(time_ns % 1'000'000'000)};
}

class alignas(64) EventCount {
 public:
  uint32_t prepare() noexcept {
    waiters_.fetch_add(1, std::memory_order_acq_rel);
    return epoch_.load(std::memory_order_acquire);
  }

  void cancel() noexcept { waiters_.fetch_sub(1, std::memory_order_relaxed); }

  // Sleep until notified after prepare(), or until `until_ns` (monotonic; FOREVER: no limit). May wake early:
  // the caller looks at its condition again. Returns false when the time is up.
  bool wait(uint32_t key, int64_t until_ns = FOREVER) noexcept {
    bool in_time = true;
    if (epoch_.load(std::memory_order_acquire) == key) {
      timespec until = to_timespec(until_ns < 0 ? 0 : until_ns);
      // FUTEX_WAIT_BITSET takes an absolute time on CLOCK_MONOTONIC, so an early wake-up does not stretch it.
      long rc = syscall(SYS_futex, &epoch_, FUTEX_WAIT_BITSET_PRIVATE, key, until_ns < 0 ? nullptr : &until, nullptr,
                        FUTEX_BITSET_MATCH_ANY);
      in_time = rc == 0 || errno != ETIMEDOUT;
    }
    cancel();
    return in_time;
  }

  void notify_one() noexcept { notify(1); }
  void notify_all() noexcept { notify(INT_MAX); }

 private:
  void notify(int count) noexcept {
    if (waiters_.fetch_add(0, std::memory_order_acq_rel) == 0) return;
    epoch_.fetch_add(1, std::memory_order_release);
    syscall(SYS_futex, &epoch_, FUTEX_WAKE_PRIVATE, count, nullptr, nullptr, 0);
  }

  std::atomic<uint32_t> waiters_{0};
  std::atomic<uint32_t> epoch_{0};
};

static_assert(sizeof(std::atomic<uint32_t>) == sizeof(uint32_t), "the futex word must be a plain 32-bit word");

}  // namespace headworks
