// The wire form of the messages that travel once per frame: the reader of Frame and the encoders of Result,
// Dropped and Credit. Called by wire.pyx alone; owns no memory: it looks at the caller's bytes and fills the
// caller's buffer. Plain C++, no Python. tests/support/plain_wire.py is its twin and says the same in less space.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>

namespace headworks::wire {

static_assert(std::endian::native == std::endian::little, "floats and packed detections are little-endian");

struct Bytes {
    const uint8_t* data = nullptr;
    size_t size = 0;
};

// ---------------------------------------------------------------------------------------------- reading

// What a Frame says. `capture_time` and `data` point into the message.
struct Frame {
    uint64_t frame_id = 0;
    Bytes capture_time;
    bool has_capture_time = false;
    int32_t encoding = 0;
    uint32_t width = 0;
    uint32_t height = 0;
    Bytes data;
};

// Walks bytes it does not own. Each take_* advances and answers true, or answers false where protobuf must look.
class Cursor {
public:
    explicit Cursor(Bytes bytes) : at_(bytes.data), left_(bytes.size) {}

    bool empty() const { return left_ == 0; }

    bool take_byte(uint8_t& byte) {
        if (left_ == 0) return false;
        byte = *at_;
        skip(1);
        return true;
    }

    // Minimal form only: serialisers emit no other, and protobuf decides about the rest.
    bool take_varint(uint64_t& value) {
        uint64_t sum = 0;
        for (unsigned shift = 0; shift <= 63; shift += 7) {
            uint8_t byte;
            if (!take_byte(byte)) return false;
            if (shift == 63 && byte > 1) return false;  // beyond 64 bits
            sum |= static_cast<uint64_t>(byte & 0x7F) << shift;
            if (byte < 0x80) {
                value = sum;
                return byte != 0 || shift == 0;
            }
        }
        return false;
    }

    // A number without presence is emitted only where it is not zero.
    bool take_uint64(uint64_t& value) { return take_varint(value) && value != 0; }

    bool take_uint32(uint32_t& value) {
        uint64_t wide;
        if (!take_uint64(wide) || wide > std::numeric_limits<uint32_t>::max()) return false;
        value = static_cast<uint32_t>(wide);
        return true;
    }

    // int32 and enum: negative values travel sign-extended to 64 bits; anything else would be truncated.
    bool take_int32(int32_t& value) {
        uint64_t wide;
        if (!take_uint64(wide)) return false;
        value = static_cast<int32_t>(static_cast<uint32_t>(wide));
        return static_cast<uint64_t>(static_cast<int64_t>(value)) == wide;
    }

    bool take_bytes(Bytes& bytes) {
        uint64_t length;
        if (!take_varint(length) || length > left_) return false;
        bytes = {at_, static_cast<size_t>(length)};
        skip(bytes.size);
        return true;
    }

private:
    void skip(size_t count) {
        at_ += count;
        left_ -= count;
    }

    const uint8_t* at_;
    size_t left_;
};

// Seconds, then nanos, each at most once and not zero: then the bytes are canonical and may be echoed as they are.
inline bool is_plain_timestamp(Bytes bytes) {
    constexpr uint8_t SECONDS = 0x08, NANOS = 0x10;
    Cursor cursor(bytes);
    uint8_t tag, last_tag = 0;
    while (cursor.take_byte(tag)) {
        if (tag <= last_tag) return false;
        last_tag = tag;
        uint64_t seconds;
        int32_t nanos;
        switch (tag) {
            case SECONDS: if (!cursor.take_uint64(seconds)) return false; break;
            case NANOS: if (!cursor.take_int32(nanos)) return false; break;
            default: return false;
        }
    }
    return true;
}

// The body of a Frame: known fields in ascending order. Every tag is one byte, so tags ascend where fields do.
inline bool read_frame(Bytes body, Frame& frame) {
    constexpr uint8_t FRAME_ID = 0x08, CAPTURE_TIME = 0x12, ENCODING = 0x18, WIDTH = 0x20, HEIGHT = 0x28, DATA = 0x32;
    Cursor cursor(body);
    uint8_t tag, last_tag = 0;
    while (cursor.take_byte(tag)) {
        if (tag <= last_tag) return false;
        last_tag = tag;
        switch (tag) {
            case FRAME_ID: if (!cursor.take_uint64(frame.frame_id)) return false; break;
            case CAPTURE_TIME:
                if (!cursor.take_bytes(frame.capture_time) || !is_plain_timestamp(frame.capture_time)) return false;
                frame.has_capture_time = true;
                break;
            case ENCODING: if (!cursor.take_int32(frame.encoding)) return false; break;
            case WIDTH: if (!cursor.take_uint32(frame.width)) return false; break;
            case HEIGHT: if (!cursor.take_uint32(frame.height)) return false; break;
            case DATA: if (!cursor.take_bytes(frame.data) || frame.data.size == 0) return false; break;
            default: return false;  // unknown, a group, or a tag that is not minimal
        }
    }
    return true;
}

// Reads a StreamFramesRequest that is one Frame in the shape serialisers emit. False: protobuf must look.
inline bool read_request(Bytes message, Frame& frame) {
    constexpr uint8_t FRAME = 0x12;
    if (message.size > static_cast<size_t>(std::numeric_limits<int32_t>::max())) return false;  // protobuf's own limit
    Cursor cursor(message);
    uint8_t tag;
    Bytes body;
    if (!cursor.take_byte(tag) || tag != FRAME || !cursor.take_bytes(body)) return false;
    // A second field would merge with this Frame or take its place in the oneof.
    return cursor.empty() && read_frame(body, frame);
}

// ---------------------------------------------------------------------------------------------- writing
// One `emit` per message serves two sinks: Counter finds the size, Writer fills a buffer of that size. So the two
// agree by construction. Tags are one byte: no field of these messages has a number above 15.

// The bytes a varint takes: ceil(bits / 7), at least one.
inline size_t varint_size(uint64_t value) { return (static_cast<size_t>(std::bit_width(value | 1)) + 6) / 7; }

class Counter {
public:
    size_t size() const { return size_; }
    void byte(uint8_t) { size_ += 1; }
    void varint(uint64_t value) { size_ += varint_size(value); }
    void raw(Bytes bytes) { size_ += bytes.size; }
    // The length is known, so the body need not be walked.
    template <class Body>
    void message(uint8_t tag, size_t length, const Body&) {
        byte(tag);
        varint(length);
        size_ += length;
    }

private:
    size_t size_ = 0;
};

// Never writes beyond its buffer; `complete` tells whether it was filled exactly.
class Writer {
public:
    Writer(uint8_t* buffer, size_t size) : at_(buffer), left_(size) {}
    bool complete() const { return fits_ && left_ == 0; }
    void byte(uint8_t value) {
        if (room(1)) *at_++ = value;
    }
    void varint(uint64_t value) {
        for (; value >= 0x80; value >>= 7) byte(static_cast<uint8_t>(value | 0x80));
        byte(static_cast<uint8_t>(value));
    }
    void raw(Bytes bytes) {
        if (bytes.size == 0 || !room(bytes.size)) return;  // memcpy from null is undefined even for no bytes
        std::memcpy(at_, bytes.data, bytes.size);
        at_ += bytes.size;
    }
    template <class Body>
    void message(uint8_t tag, size_t length, const Body& body) {
        byte(tag);
        varint(length);
        emit(*this, body);
    }

private:
    bool room(size_t count) {
        fits_ = fits_ && count <= left_;
        left_ -= fits_ ? count : 0;
        return fits_;
    }

    uint8_t* at_;
    size_t left_;
    bool fits_ = true;
};

template <class Body>
size_t size_of(const Body& body) {
    Counter counter;
    emit(counter, body);
    return counter.size();
}

template <class Sink>
void number(Sink& sink, uint8_t tag, uint64_t value) {
    if (value == 0) return;
    sink.byte(tag);
    sink.varint(value);
}

template <class Sink>
void signed_number(Sink& sink, uint8_t tag, int64_t value) {
    number(sink, tag, static_cast<uint64_t>(value));
}

// By its bits: only positive zero is the default; negative zero and NaN travel.
template <class Sink>
void real(Sink& sink, uint8_t tag, const uint8_t* value) {
    uint32_t bits;
    std::memcpy(&bits, value, sizeof bits);
    if (bits == 0) return;
    sink.byte(tag);
    sink.raw({value, sizeof bits});
}

struct Timestamp {
    int64_t seconds;
    int32_t nanos;
};

template <class Sink>
void emit(Sink& sink, const Timestamp& time) {
    signed_number(sink, 0x08, time.seconds);
    signed_number(sink, 0x10, time.nanos);
}

// Bytes that are a message already.
template <class Sink>
void emit(Sink& sink, const Bytes& encoded) {
    sink.raw(encoded);
}

// One detection as the lanes pack it: float x1, y1, x2, y2, score; uint32 class_id. It need not be aligned.
constexpr size_t DETECTION_SIZE = 24;

struct Detection {
    const uint8_t* packed;
};

template <class Sink>
void emit(Sink& sink, const Detection& detection) {
    for (unsigned field = 1; field <= 5; ++field)
        real(sink, static_cast<uint8_t>(field << 3 | 5), detection.packed + 4 * (field - 1));
    uint32_t class_id;
    std::memcpy(&class_id, detection.packed + 20, sizeof class_id);
    number(sink, 0x30, class_id);
}

struct Detections {
    Bytes packed;  // a whole number of detections
};

template <class Sink>
void emit(Sink& sink, const Detections& detections) {
    for (size_t at = 0; at + DETECTION_SIZE <= detections.packed.size; at += DETECTION_SIZE) {
        const Detection detection{detections.packed.data + at};
        sink.message(0x0A, size_of(detection), detection);
    }
}

struct Output {
    Bytes prefix;  // fields 1 to 4, encoded; with the value behind them where it is no detections
    bool has_detections = true;
    Detections detections;
    size_t detections_size = 0;
};

template <class Sink>
void emit(Sink& sink, const Output& output) {
    sink.raw(output.prefix);
    // Present though empty: it picks the oneof.
    if (output.has_detections) sink.message(0x2A, output.detections_size, output.detections);
}

struct Timings {
    uint32_t waited_us, decoded_us, batched_us, executed_us, postprocessed_us;
};

template <class Sink>
void emit(Sink& sink, const Timings& timings) {
    number(sink, 0x08, timings.waited_us);
    number(sink, 0x10, timings.decoded_us);
    number(sink, 0x18, timings.batched_us);
    number(sink, 0x20, timings.executed_us);
    number(sink, 0x28, timings.postprocessed_us);
}

struct Result {
    uint64_t frame_id = 0;
    Bytes capture_time;
    bool has_capture_time = false;
    uint32_t source_width = 0;
    uint32_t source_height = 0;
    Output output;
    size_t output_size = 0;
    uint32_t batch_size = 0;
    bool deadline_missed = false;
    Timings timings{};

    // Measures from the inside out, so that no detection is counted twice.
    void measure() {
        output.detections_size = size_of(output.detections);
        output_size = size_of(output);
    }
};

template <class Sink>
void emit(Sink& sink, const Result& result) {
    number(sink, 0x08, result.frame_id);
    if (result.has_capture_time) sink.message(0x12, result.capture_time.size, result.capture_time);
    number(sink, 0x18, result.source_width);
    number(sink, 0x20, result.source_height);
    sink.message(0x2A, result.output_size, result.output);
    number(sink, 0x30, result.batch_size);
    number(sink, 0x38, result.deadline_missed ? 1 : 0);
    sink.message(0x42, size_of(result.timings), result.timings);
}

struct DropCount {
    int32_t reason;
    int32_t stage;
    uint64_t count;
};

template <class Sink>
void emit(Sink& sink, const DropCount& drop) {
    signed_number(sink, 0x08, drop.reason);
    signed_number(sink, 0x10, drop.stage);
    number(sink, 0x18, drop.count);
}

struct Dropped {
    uint64_t first_frame_id = 0;
    uint64_t last_frame_id = 0;
    const DropCount* counts = nullptr;
    size_t count = 0;
};

template <class Sink>
void emit(Sink& sink, const Dropped& dropped) {
    number(sink, 0x08, dropped.first_frame_id);
    number(sink, 0x10, dropped.last_frame_id);
    for (size_t at = 0; at < dropped.count; ++at)
        sink.message(0x1A, size_of(dropped.counts[at]), dropped.counts[at]);
}

struct Credit {
    uint64_t frames_allowed;
};

template <class Sink>
void emit(Sink& sink, const Credit& credit) {
    number(sink, 0x08, credit.frames_allowed);
}

// An event as it stands in StreamFramesResponse: tag, length, ServerEvent. `event_tag` says which event the body is.
template <class Body>
struct ServerEvent {
    uint8_t event_tag;
    const Body& body;
    size_t body_size;
};

template <class Sink, class Body>
void emit(Sink& sink, const ServerEvent<Body>& event) {
    sink.message(event.event_tag, event.body_size, event.body);
}

template <class Sink, class Body>
void emit_entry(Sink& sink, uint8_t event_tag, const Body& body) {
    const ServerEvent<Body> event{event_tag, body, size_of(body)};
    sink.message(0x0A, size_of(event), event);
}

template <class Body>
size_t entry_size(uint8_t event_tag, const Body& body) {
    Counter counter;
    emit_entry(counter, event_tag, body);
    return counter.size();
}

// Fills exactly entry_size() bytes. False: Counter and Writer disagree, and nothing was written beyond `size`.
template <class Body>
bool write_entry(uint8_t event_tag, const Body& body, uint8_t* buffer, size_t size) {
    Writer writer(buffer, size);
    emit_entry(writer, event_tag, body);
    return writer.complete();
}

template <class Body>
bool write_message(const Body& body, uint8_t* buffer, size_t size) {
    Writer writer(buffer, size);
    emit(writer, body);
    return writer.complete();
}

constexpr uint8_t RESULT_EVENT = 0x12, DROPPED_EVENT = 0x1A, CREDIT_EVENT = 0x2A;

}  // namespace headworks::wire
