// Paints decoded pictures into the positions of one batch buffer, in the form the model wants: float32, float16 or
// bytes, in planes or interleaved, of three channels or of grey. Called by headworks_native.pixels and by native
// decoders, never with the GIL needed. A Canvas owns no pixels: it borrows the lane's memory and remembers, for each
// position, the interior it last painted, so that a border is written only where the interior has moved.
//
// The kernels of a row, and what they promise to the last bit, are in pixel_rows.hpp.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <vector>

#include "pixel_rows.hpp"

namespace headworks::pixels {

enum class Type : int { F32 = 0, F16 = 1, U8 = 2 };

// How a position holds its values.
struct Form {
    Type type;
    bool planar;   // all of one channel, then all of the next; else the channels of a pixel together
    int channels;  // 3, or 1: grey, which is both planar and interleaved

    std::size_t value_bytes() const noexcept { return type == Type::F32 ? 4 : type == Type::F16 ? 2 : 1; }
};

// A decoded picture: `height` rows of `width` pixels, `stride` bytes apart, `channels` bytes together.
struct Picture {
    const std::uint8_t* pixels;
    std::ptrdiff_t stride;
    int channels;  // 3, or 1 for a canvas of grey

    const std::uint8_t* row(int y) const noexcept { return pixels + y * stride; }
};

// Where the picture lies inside a position, in pixels; half-open.
struct Interior {
    int left, top, width, height;
    int right() const noexcept { return left + width; }
    int bottom() const noexcept { return top + height; }
    bool operator==(const Interior&) const = default;
};

// Different positions may be painted by different threads at the same time; one position by one thread at a time.
class Canvas {
public:
    // `memory` holds positions * position_bytes() bytes, aligned for the form's values, and outlives the canvas.
    // `variant` must be supported(). Checked by the caller.
    Canvas(void* memory, int positions, int height, int width, Form form, Variant variant,
           const std::array<Channel, 3>& channels, std::uint8_t pad)
        : memory_(static_cast<std::uint8_t*>(memory)),
          height_(height),
          width_(width),
          form_(form),
          pad_(pad),
          channels_(channels),
          cycle_{{}, {}, channels_.data(), form.channels},
          kernels_(kernels(variant)),
          // Outside its held interior a position is pad. Of fresh memory nothing is known, so that all of it is held.
          held_(static_cast<std::size_t>(positions), Interior{0, 0, width, height}) {
        for (std::size_t i = 0; i < Cycle::LENGTH; ++i) {
            const Channel& channel = channels_[i % static_cast<std::size_t>(form.channels)];
            cycle_.gain[i] = channel.gain;
            cycle_.offset[i] = channel.offset;
        }
    }
    Canvas(const Canvas&) = delete;  // the cycle points to the channels
    Canvas& operator=(const Canvas&) = delete;

    static std::size_t position_bytes(Form form, int height, int width) noexcept {
        const std::size_t pixels = static_cast<std::size_t>(height) * static_cast<std::size_t>(width);
        return pixels * static_cast<std::size_t>(form.channels) * form.value_bytes();
    }

    // `picture` is of the interior's size and does not overlap the canvas; the interior lies inside the position and
    // is not empty. `swap`: of the first and the third byte of a pixel, the first is what belongs last.
    void paint(int position, const Picture& picture, const Interior& interior, bool swap) noexcept {
        switch (form_.type) {
            case Type::F32: return paint_as<float>(position, picture, interior, swap);
            case Type::F16: return paint_as<Half>(position, picture, interior, swap);
            case Type::U8: return paint_as<std::uint8_t>(position, picture, interior, swap);
        }
    }

private:
    std::size_t offset(int y, int x) const noexcept {  // of a pixel in its plane
        return static_cast<std::size_t>(y) * static_cast<std::size_t>(width_) + static_cast<std::size_t>(x);
    }
    std::size_t plane() const noexcept { return offset(height_, 0); }

    template <class Value>
    void paint_as(int position, const Picture& picture, const Interior& interior, bool swap) noexcept {
        const std::size_t index = static_cast<std::size_t>(position);
        Value* const base = reinterpret_cast<Value*>(memory_ + index * position_bytes(form_, height_, width_));
        Interior& held = held_[index];
        if (held != interior) {
            pad_outside(base, held, interior);
            held = interior;
        }
        if (form_.planar && form_.channels == 3) {
            paint_planes(base, picture, interior, swap);
        } else {
            paint_interleaved(base, picture, interior, swap);
        }
    }

    template <class Value>
    void paint_planes(Value* base, const Picture& picture, const Interior& interior, bool swap) const noexcept {
        const PlanarRow<Value> paint_row = kernels_.planar<Value>();
        const Channel* channels[3];
        for (int k = 0; k < 3; ++k) channels[k] = &channels_[swap ? 2 - k : k];
        for (int y = 0; y < interior.height; ++y) {
            Value* const row = base + offset(interior.top + y, interior.left);
            Value* const planes[3] = {row + (swap ? 2 : 0) * plane(), row + plane(), row + (swap ? 0 : 2) * plane()};
            paint_row(picture.row(y), interior.width, planes, channels);
        }
    }

    template <class Value>
    void paint_interleaved(Value* base, const Picture& picture, const Interior& interior, bool swap) const noexcept {
        const int channels = form_.channels;
        for (int y = 0; y < interior.height; ++y) {
            const std::uint8_t* const row = picture.row(y);
            Value* const out = base + static_cast<std::size_t>(channels) * offset(interior.top + y, interior.left);
            if constexpr (std::is_same_v<Value, std::uint8_t>) {
                const std::uint8_t* const bytes = in_order(row, picture.channels, interior.width, swap, out);
                if (bytes != out) std::memcpy(out, bytes, static_cast<std::size_t>(channels * interior.width));
            } else {
                constexpr int TILE = 512;  // pixels, whose bytes stay in the first cache between the two kernels
                std::uint8_t scratch[3 * TILE];
                for (int x = 0; x < interior.width; x += TILE) {
                    const int width = std::min(TILE, interior.width - x);
                    const std::uint8_t* const from = row + static_cast<std::ptrdiff_t>(picture.channels) * x;
                    const std::uint8_t* const bytes = in_order(from, picture.channels, width, swap, scratch);
                    kernels_.flat<Value>()(bytes, channels * width, cycle_, out + channels * x);
                }
            }
        }
    }

    // The bytes that the form has for these pixels, in its order: where they are, or in `scratch` if they must be made.
    const std::uint8_t* in_order(const std::uint8_t* pixels, int picture_channels, int width, bool swap,
                                 std::uint8_t* scratch) const noexcept {
        if (form_.channels != picture_channels) {
            kernels_.grey(pixels, width, swap, scratch);
            return scratch;
        }
        if (!swap || picture_channels == 1) return pixels;
        kernels_.swap(pixels, width, scratch);
        return scratch;
    }

    // Pads what `held` covers and `next` does not: whole rows above and below it, then the sides.
    template <class Value>
    void pad_outside(Value* base, const Interior& held, const Interior& next) const noexcept {
        for (int y = held.top; y < held.bottom(); ++y) {
            if (y < next.top || y >= next.bottom()) {
                pad_row(base, y, held.left, held.right());
            } else {
                pad_row(base, y, held.left, std::min(held.right(), next.left));
                pad_row(base, y, std::max(held.left, next.right()), held.right());
            }
        }
    }

    template <class Value>
    void pad_row(Value* base, int y, int from, int to) const noexcept {
        if (from >= to) return;
        const std::size_t count = static_cast<std::size_t>(to - from), at = offset(y, from);
        const std::size_t channels = static_cast<std::size_t>(form_.channels);
        for (std::size_t k = 0; k < channels; ++k) {
            const Value pad = channels_[k].value<Value>(pad_);
            if (form_.planar) {
                std::fill_n(base + k * plane() + at, count, pad);
            } else {
                for (std::size_t i = 0; i < count; ++i) base[channels * (at + i) + k] = pad;
            }
        }
    }

    std::uint8_t* memory_;
    int height_, width_;
    Form form_;
    std::uint8_t pad_;
    std::array<Channel, 3> channels_;
    Cycle cycle_;
    Kernels kernels_;
    std::vector<Interior> held_;
};

}  // namespace headworks::pixels
