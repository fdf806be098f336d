// The words of a ring of batch buffers, and the region they live in with the buffers' memory. Decoders claim
// the next position of the open buffer, write it and publish it; the lane's dispatcher seals the buffer, runs
// its dense prefix and frees it. Nothing here blocks, follows a pointer or knows a ticket: lane_ring.hpp adds
// those. Everything inside a region is found by offsets, so it may be mapped at different addresses.
//
//     FREE -> OPEN -> CLOSED -> RUNNING -> DRAINING -> FREE         (CLOSED -> FREE when a launch is skipped)
//
// Claims and publishes come from any thread; all else from the one thread that dispatches.
#pragma once

#include <sys/mman.h>

#include <new>
#include <stdexcept>

#include "ticket.hpp"

namespace headworks {

constexpr int32_t NO_BUFFER = -1;
constexpr int32_t NO_POSITION = -1;
constexpr size_t CACHE_LINE = 64;
constexpr size_t PAGE = 4096;

enum class BufferState : uint32_t { FREE = 0, OPEN = 1, CLOSED = 2, RUNNING = 3, DRAINING = 4 };

#ifdef PLANTED_RACE  // Only tests/native defines it, to prove that a missing release would be found.
constexpr std::memory_order PUBLISH_ORDER = std::memory_order_relaxed;
#else
constexpr std::memory_order PUBLISH_ORDER = std::memory_order_release;
#endif

// Each word on its own cache line: decoders hammer `claim` and `published` at different moments.
struct BufferWords {
  // epoch (32 bits) | closed (1 bit) | claimed (31 bits). The epoch grows at each opening, so a claim that was
  // read in one life of the buffer cannot be committed in another.
  alignas(CACHE_LINE) std::atomic<uint64_t> claim;
  alignas(CACHE_LINE) std::atomic<int32_t> published;
  alignas(CACHE_LINE) std::atomic<BufferState> state;  // written by the dispatcher alone
};

struct RingWords {
  alignas(CACHE_LINE) std::atomic<int32_t> open;  // the buffer that takes claims, or NO_BUFFER
};

static_assert(std::atomic<uint64_t>::is_always_lock_free && std::atomic<BufferState>::is_always_lock_free);

struct RingShape {
  int32_t buffers;
  int32_t max_batch;
  size_t position_bytes;

  size_t words_bytes() const noexcept { return whole_pages(sizeof(RingWords) + buffers * sizeof(BufferWords)); }
  // Positions of a buffer touch each other (a dense prefix is one array); buffers begin on a page.
  size_t buffer_bytes() const noexcept { return whole_pages(max_batch * position_bytes); }
  size_t region_bytes() const noexcept { return words_bytes() + buffers * buffer_bytes(); }
  static size_t whole_pages(size_t bytes) noexcept { return (bytes + PAGE - 1) / PAGE * PAGE; }
};

// One page-aligned mapping, owned.
class Region {
 public:
  explicit Region(size_t bytes)
      : bytes_(bytes), memory_(::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)) {
    if (memory_ == MAP_FAILED) throw std::bad_alloc();
  }
  ~Region() { ::munmap(memory_, bytes_); }
  Region(const Region&) = delete;
  Region& operator=(const Region&) = delete;

  uint8_t* memory() const noexcept { return static_cast<uint8_t*>(memory_); }
  size_t bytes() const noexcept { return bytes_; }

 private:
  const size_t bytes_;
  void* const memory_;
};

// A view of the words in a region of `shape.region_bytes()`; owns nothing.
class Ring {
 public:
  // Start a ring in fresh (zeroed) memory, with the first buffer open.
  static Ring create(uint8_t* memory, const RingShape& shape) {
    if (shape.buffers < 1 || shape.max_batch < 1 || shape.position_bytes < 1)
      throw std::invalid_argument("a ring needs at least one buffer, one position and one byte a position");
    new (memory) RingWords{NO_BUFFER};
    Ring ring(memory, shape);
    for (int32_t b = 0; b < shape.buffers; ++b) new (&ring.words(b)) BufferWords{CLOSED_BIT, 0, BufferState::FREE};
    ring.open(0);
    return ring;
  }

  // See a ring that another mapping of the same region has started.
  static Ring attach(uint8_t* memory, const RingShape& shape) noexcept { return Ring(memory, shape); }

  // --- any thread ---

  // Take the next position of the open buffer (buffer * max_batch + index), or NO_POSITION: full, or none open.
  int32_t claim() noexcept {
    // acquire: pairs with open()'s release, so the buffer's words are those of its new life or a later one.
    for (int32_t buffer = open_buffer(); buffer != NO_BUFFER;) {
      std::atomic<uint64_t>& word = words(buffer).claim;
      uint64_t seen = word.load(std::memory_order_acquire);
      while (!(seen & CLOSED_BIT) && claimed_in(seen) < shape_.max_batch) {
        // acquire: pairs with the release of the word's reset in open(), after the last reader of this position
        // was done with it. release: keeps the word one release sequence for those that claim after us.
        if (word.compare_exchange_weak(seen, seen + 1, std::memory_order_acq_rel, std::memory_order_acquire))
          return buffer * shape_.max_batch + claimed_in(seen);
      }
      int32_t now_open = open_buffer();
      if (now_open == buffer) return NO_POSITION;
      buffer = now_open;
    }
    return NO_POSITION;
  }

  // Say that a claimed position is written. Once for each claim.
  void publish(int32_t position) noexcept {
    // release: pairs with published()'s acquire, so the dispatcher sees the position's bytes and its ticket.
    words(position / shape_.max_batch).published.fetch_add(1, PUBLISH_ORDER);
  }

  int32_t open_buffer() const noexcept { return ring_words().open.load(std::memory_order_acquire); }
  BufferState state(int32_t buffer) const noexcept { return words(buffer).state.load(std::memory_order_relaxed); }
  int32_t claimed(int32_t buffer) const noexcept {
    return claimed_in(words(buffer).claim.load(std::memory_order_acquire));
  }
  int32_t published(int32_t buffer) const noexcept { return words(buffer).published.load(std::memory_order_acquire); }

  // --- the dispatcher ---

  // True when the open buffer holds something a launch could take.
  bool anything_published() const noexcept {
    int32_t buffer = open_buffer();
    return buffer != NO_BUFFER && published(buffer) > 0;
  }

  // Close the open buffer to claims and open the next free one. Returns the closed buffer, or NO_BUFFER when
  // none is open or nothing is claimed. It may be launched once published(buffer) == claimed(buffer).
  int32_t seal() noexcept {
    int32_t buffer = open_buffer();
    if (buffer == NO_BUFFER || claimed(buffer) == 0) return NO_BUFFER;
    // Every claim is before this bit or fails on it: the count is final. acq_rel: stays in the release sequence.
    words(buffer).claim.fetch_or(CLOSED_BIT, std::memory_order_acq_rel);
    move(buffer, BufferState::OPEN, BufferState::CLOSED);
    ring_words().open.store(NO_BUFFER, std::memory_order_release);
    for (int32_t step = 1; step < shape_.buffers; ++step) {
      int32_t next = (buffer + step) % shape_.buffers;
      if (state(next) != BufferState::FREE) continue;
      open(next);
      break;
    }
    return buffer;
  }

  void launch(int32_t buffer) noexcept { move(buffer, BufferState::CLOSED, BufferState::RUNNING); }
  void drained(int32_t buffer) noexcept { move(buffer, BufferState::RUNNING, BufferState::DRAINING); }

  // Give the buffer back, and open it if no other is. Returns whether it was opened.
  bool release(int32_t buffer) noexcept {
    BufferState from = state(buffer);
    move(buffer, from == BufferState::CLOSED ? from : BufferState::DRAINING, BufferState::FREE);
    if (open_buffer() != NO_BUFFER) return false;
    open(buffer);
    return true;
  }

  uint8_t* buffer_memory(int32_t buffer) const noexcept {
    return memory_ + shape_.words_bytes() + buffer * shape_.buffer_bytes();
  }
  uint8_t* memory(int32_t position) const noexcept {
    return buffer_memory(position / shape_.max_batch) + position % shape_.max_batch * shape_.position_bytes;
  }
  const RingShape& shape() const noexcept { return shape_; }

 private:
  static constexpr uint64_t CLOSED_BIT = uint64_t{1} << 31;
  static constexpr uint64_t COUNT_MASK = CLOSED_BIT - 1;
  static constexpr int EPOCH_SHIFT = 32;

  Ring(uint8_t* memory, const RingShape& shape) noexcept : memory_(memory), shape_(shape) {}

  static int32_t claimed_in(uint64_t word) noexcept { return static_cast<int32_t>(word & COUNT_MASK); }

  void open(int32_t buffer) noexcept {
    BufferWords& own = words(buffer);
    move(buffer, BufferState::FREE, BufferState::OPEN);
    own.published.store(0, std::memory_order_relaxed);  // told by the next line's release
    uint64_t epoch = (own.claim.load(std::memory_order_relaxed) >> EPOCH_SHIFT) + 1;
    // release: whoever claims from this value sees the positions as their last reader left them.
    own.claim.store(epoch << EPOCH_SHIFT, std::memory_order_release);
    ring_words().open.store(buffer, std::memory_order_release);
  }

  void move(int32_t buffer, BufferState from, BufferState to) noexcept {
    require(state(buffer) == from, "a batch buffer was moved out of turn");
    words(buffer).state.store(to, std::memory_order_relaxed);  // read by other threads for display only
  }

  RingWords& ring_words() const noexcept { return *reinterpret_cast<RingWords*>(memory_); }
  BufferWords& words(int32_t buffer) const noexcept {
    return *reinterpret_cast<BufferWords*>(memory_ + sizeof(RingWords) + buffer * sizeof(BufferWords));
  }

  uint8_t* const memory_;
  const RingShape shape_;
};

}  // namespace headworks
