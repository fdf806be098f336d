// Paints decoded pictures into the positions of one batch buffer, in the form the model wants: float CHW
// (scaled and normalised), uint8 CHW or uint8 HWC. Called by headworks_native.pixels and by native decoders, never
// with the GIL needed. A Canvas owns no pixels: it borrows the lane's memory and remembers, for each position, the
// interior it last painted, so that a border is written only where the interior has moved.
//
// Each float is  value * gain + offset  with  gain = scale / std  and  offset = -mean / std  (both computed in double
// and rounded to float once), the product and the sum rounded to float separately. Every variant keeps to that, so
// all are equal to the last bit: the scalar code reads a table of the 256 results per channel, the vector code
// computes, with fused multiply-add switched off.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

#include "rounding.hpp"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace headworks::pixels {

enum class Form : int { F32_CHW = 0, U8_CHW = 1, U8_HWC = 2 };
enum class Variant : int { PLAIN = 0, AVX2 = 1, AVX512 = 2 };

inline bool supported(Variant variant) noexcept {
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (variant == Variant::AVX2) return __builtin_cpu_supports("avx2");
    if (variant == Variant::AVX512) return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx2");
#endif
    return variant == Variant::PLAIN;
}

inline Variant best_variant() noexcept {
    if (supported(Variant::AVX512)) return Variant::AVX512;
    return supported(Variant::AVX2) ? Variant::AVX2 : Variant::PLAIN;
}

// Where the picture lies inside a position, in pixels; half-open.
struct Interior {
    int left, top, width, height;
    int right() const noexcept { return left + width; }
    int bottom() const noexcept { return top + height; }
    bool operator==(const Interior&) const = default;
};

// What one channel of the model's input does to a byte.
struct Channel {
    float gain, offset;
    std::array<float, 256> table;
};

HEADWORKS_NO_CONTRACTION inline Channel make_channel(double scale, double mean, double std) noexcept {
    Channel channel{static_cast<float>(scale / std), static_cast<float>(-mean / std), {}};
    for (int value = 0; value < 256; ++value) {
        const float product = static_cast<float>(value) * channel.gain;
        channel.table[value] = product + channel.offset;
    }
    return channel;
}

// One row of a picture, split into planes. `planes` and `channels` are in the order of the bytes of the picture.
using FloatRow = void (*)(const std::uint8_t* row, int width, float* const* planes, const Channel* const* channels);
using ByteRow = void (*)(const std::uint8_t* row, int width, std::uint8_t* const* planes);
using SwapRow = void (*)(const std::uint8_t* row, int width, std::uint8_t* out);

namespace rows {

inline void float_tail(const std::uint8_t* row, int x, int width, float* const* planes,
                       const Channel* const* channels) noexcept {
    for (; x < width; ++x) {
        for (int k = 0; k < 3; ++k) planes[k][x] = channels[k]->table[row[3 * x + k]];
    }
}

// The planes are named one by one, as restricted pointers: a byte may alias anything, the array of planes included.
inline void byte_tail(const std::uint8_t* __restrict row, int x, int width, std::uint8_t* const* planes) noexcept {
    std::uint8_t* const __restrict first = planes[0];
    std::uint8_t* const __restrict second = planes[1];
    std::uint8_t* const __restrict third = planes[2];
    for (; x < width; ++x) {
        first[x] = row[3 * x];
        second[x] = row[3 * x + 1];
        third[x] = row[3 * x + 2];
    }
}

inline void swap_tail(const std::uint8_t* __restrict row, int x, int width, std::uint8_t* __restrict out) noexcept {
    for (; x < width; ++x) {
        for (int k = 0; k < 3; ++k) out[3 * x + k] = row[3 * x + 2 - k];
    }
}

inline void float_plain(const std::uint8_t* row, int width, float* const* planes, const Channel* const* channels) {
    float_tail(row, 0, width, planes, channels);
}

inline void byte_plain(const std::uint8_t* row, int width, std::uint8_t* const* planes) {
    byte_tail(row, 0, width, planes);
}

inline void swap_plain(const std::uint8_t* row, int width, std::uint8_t* out) { swap_tail(row, 0, width, out); }

#if defined(__x86_64__)

struct Sixteen {  // pixels, one register for each byte of a pixel
    __m128i plane[3];
};

// Byte b of register r belongs to channel (b + r) % 3 (since 16 % 3 == 1), so for one channel the three registers
// use disjoint places: two blends collect its sixteen bytes, one shuffle puts them in order.
__attribute__((target("avx2"), always_inline)) inline Sixteen deinterleave(const std::uint8_t* bytes) noexcept {
    const __m128i a = _mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes));
    const __m128i b = _mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes + 16));
    const __m128i c = _mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes + 32));
    const __m128i at0 = _mm_setr_epi8(-1, 0, 0, -1, 0, 0, -1, 0, 0, -1, 0, 0, -1, 0, 0, -1);  // b % 3 == 0
    const __m128i at1 = _mm_setr_epi8(0, -1, 0, 0, -1, 0, 0, -1, 0, 0, -1, 0, 0, -1, 0, 0);   // b % 3 == 1
    const __m128i at2 = _mm_setr_epi8(0, 0, -1, 0, 0, -1, 0, 0, -1, 0, 0, -1, 0, 0, -1, 0);   // b % 3 == 2
    const __m128i plane0 = _mm_blendv_epi8(_mm_blendv_epi8(a, b, at2), c, at1);
    const __m128i plane1 = _mm_blendv_epi8(_mm_blendv_epi8(a, b, at0), c, at2);
    const __m128i plane2 = _mm_blendv_epi8(_mm_blendv_epi8(a, b, at1), c, at0);
    const __m128i order0 = _mm_setr_epi8(0, 3, 6, 9, 12, 15, 2, 5, 8, 11, 14, 1, 4, 7, 10, 13);
    const __m128i order1 = _mm_setr_epi8(1, 4, 7, 10, 13, 0, 3, 6, 9, 12, 15, 2, 5, 8, 11, 14);
    const __m128i order2 = _mm_setr_epi8(2, 5, 8, 11, 14, 1, 4, 7, 10, 13, 0, 3, 6, 9, 12, 15);
    return {{_mm_shuffle_epi8(plane0, order0), _mm_shuffle_epi8(plane1, order1), _mm_shuffle_epi8(plane2, order2)}};
}

HEADWORKS_NO_CONTRACTION __attribute__((target("avx2"))) inline void float_avx2(
    const std::uint8_t* row, int width, float* const* planes, const Channel* const* channels) {
    float* const out[3] = {planes[0], planes[1], planes[2]};
    __m256 gain[3], offset[3];
    for (int k = 0; k < 3; ++k) {
        gain[k] = _mm256_set1_ps(channels[k]->gain);
        offset[k] = _mm256_set1_ps(channels[k]->offset);
    }
    int x = 0;
    for (; x + 16 <= width; x += 16) {
        const Sixteen pixels = deinterleave(row + 3 * static_cast<std::ptrdiff_t>(x));
        for (int k = 0; k < 3; ++k) {
            const __m256 low = _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(pixels.plane[k]));
            const __m256 high = _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_srli_si128(pixels.plane[k], 8)));
            const __m256 low_product = _mm256_mul_ps(low, gain[k]);
            const __m256 high_product = _mm256_mul_ps(high, gain[k]);
            _mm256_storeu_ps(out[k] + x, _mm256_add_ps(low_product, offset[k]));
            _mm256_storeu_ps(out[k] + x + 8, _mm256_add_ps(high_product, offset[k]));
        }
    }
    float_tail(row, x, width, planes, channels);
}

HEADWORKS_NO_CONTRACTION __attribute__((target("avx2,avx512f"))) inline void float_avx512(
    const std::uint8_t* row, int width, float* const* planes, const Channel* const* channels) {
    float* const out[3] = {planes[0], planes[1], planes[2]};
    const __mmask16 all = 0xFFFF;  // the forms without a mask warn of an uninitialised value under GCC 12
    __m512 gain[3], offset[3];
    for (int k = 0; k < 3; ++k) {
        gain[k] = _mm512_set1_ps(channels[k]->gain);
        offset[k] = _mm512_set1_ps(channels[k]->offset);
    }
    int x = 0;
    for (; x + 16 <= width; x += 16) {
        const Sixteen pixels = deinterleave(row + 3 * static_cast<std::ptrdiff_t>(x));
        for (int k = 0; k < 3; ++k) {
            const __m512 value = _mm512_maskz_cvtepi32_ps(all, _mm512_maskz_cvtepu8_epi32(all, pixels.plane[k]));
            const __m512 product = _mm512_mul_ps(value, gain[k]);
            _mm512_storeu_ps(out[k] + x, _mm512_add_ps(product, offset[k]));
        }
    }
    float_tail(row, x, width, planes, channels);
}

__attribute__((target("avx2"))) inline void byte_avx2(const std::uint8_t* row, int width,
                                                      std::uint8_t* const* planes) {
    std::uint8_t* const out[3] = {planes[0], planes[1], planes[2]};
    int x = 0;
    for (; x + 16 <= width; x += 16) {
        const Sixteen pixels = deinterleave(row + 3 * static_cast<std::ptrdiff_t>(x));
        for (int k = 0; k < 3; ++k) _mm_storeu_si128(reinterpret_cast<__m128i*>(out[k] + x), pixels.plane[k]);
    }
    byte_tail(row, x, width, planes);
}

// Five pixels a step. The sixteenth byte is the first of the next pixel and is written again by the next step, so a
// step needs a sixth pixel in the row.
__attribute__((target("avx2"))) inline void swap_avx2(const std::uint8_t* row, int width, std::uint8_t* out) {
    const __m128i order = _mm_setr_epi8(2, 1, 0, 5, 4, 3, 8, 7, 6, 11, 10, 9, 14, 13, 12, 15);
    int x = 0;
    for (; x + 6 <= width; x += 5) {
        const std::ptrdiff_t at = 3 * static_cast<std::ptrdiff_t>(x);
        const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(row + at));
        _mm_storeu_si128(reinterpret_cast<__m128i*>(out + at), _mm_shuffle_epi8(bytes, order));
    }
    swap_tail(row, x, width, out);
}

#endif

inline FloatRow float_row([[maybe_unused]] Variant variant) noexcept {
#if defined(__x86_64__)
    if (variant == Variant::AVX512) return float_avx512;
    if (variant == Variant::AVX2) return float_avx2;
#endif
    return float_plain;
}

// Bytes are only moved: sixteen at a time is as wide as the shuffles go, so AVX-512 has no form of its own here.
inline ByteRow byte_row([[maybe_unused]] Variant variant) noexcept {
#if defined(__x86_64__)
    if (variant != Variant::PLAIN) return byte_avx2;
#endif
    return byte_plain;
}

inline SwapRow swap_row([[maybe_unused]] Variant variant) noexcept {
#if defined(__x86_64__)
    if (variant != Variant::PLAIN) return swap_avx2;
#endif
    return swap_plain;
}

}  // namespace rows

// Different positions may be painted by different threads at the same time; one position by one thread at a time.
class Canvas {
public:
    // `memory` holds positions * position_bytes() bytes, aligned for float where the form is F32_CHW, and outlives
    // the canvas. `variant` must be supported(). Checked by the caller.
    Canvas(void* memory, int positions, int height, int width, Form form, Variant variant,
           const std::array<Channel, 3>& channels, std::uint8_t pad)
        : memory_(static_cast<std::uint8_t*>(memory)),
          height_(height),
          width_(width),
          form_(form),
          pad_(pad),
          channels_(channels),
          float_row_(rows::float_row(variant)),
          byte_row_(rows::byte_row(variant)),
          swap_row_(rows::swap_row(variant)),
          // Outside its held interior a position is pad. Of fresh memory nothing is known, so that all of it is held.
          held_(static_cast<std::size_t>(positions), Interior{0, 0, width, height}) {}

    static std::size_t position_bytes(Form form, int height, int width) noexcept {
        const std::size_t pixels = static_cast<std::size_t>(height) * static_cast<std::size_t>(width);
        return pixels * 3 * (form == Form::F32_CHW ? sizeof(float) : 1);
    }

    // `picture` has interior.height rows of interior.width pixels, `stride` bytes apart, and does not overlap the
    // canvas; the interior lies inside the position and is not empty.
    void paint(int position, const std::uint8_t* picture, std::ptrdiff_t stride, const Interior& interior,
               bool swap) noexcept {
        const std::size_t index = static_cast<std::size_t>(position);
        std::uint8_t* const base = memory_ + index * position_bytes(form_, height_, width_);
        Interior& held = held_[index];
        if (held != interior) {
            pad_outside(base, held, interior);
            held = interior;
        }
        switch (form_) {
            case Form::F32_CHW: return paint_float(base, picture, stride, interior, swap);
            case Form::U8_CHW: return paint_planes(base, picture, stride, interior, swap);
            case Form::U8_HWC: return paint_bytes(base, picture, stride, interior, swap);
        }
    }

private:
    std::size_t offset(int y, int x) const noexcept {  // of a pixel in its plane
        return static_cast<std::size_t>(y) * static_cast<std::size_t>(width_) + static_cast<std::size_t>(x);
    }
    std::size_t plane() const noexcept { return offset(height_, 0); }

    void paint_float(std::uint8_t* base, const std::uint8_t* picture, std::ptrdiff_t stride, const Interior& interior,
                     bool swap) const noexcept {
        const Channel* channels[3];
        for (int k = 0; k < 3; ++k) channels[k] = &channels_[swap ? 2 - k : k];
        for (int y = 0; y < interior.height; ++y) {
            float* const row = reinterpret_cast<float*>(base) + offset(interior.top + y, interior.left);
            float* const planes[3] = {row + (swap ? 2 : 0) * plane(), row + plane(), row + (swap ? 0 : 2) * plane()};
            float_row_(picture + y * stride, interior.width, planes, channels);
        }
    }

    void paint_planes(std::uint8_t* base, const std::uint8_t* picture, std::ptrdiff_t stride, const Interior& interior,
                      bool swap) const noexcept {
        for (int y = 0; y < interior.height; ++y) {
            std::uint8_t* const row = base + offset(interior.top + y, interior.left);
            std::uint8_t* const planes[3] = {row + (swap ? 2 : 0) * plane(), row + plane(),
                                             row + (swap ? 0 : 2) * plane()};
            byte_row_(picture + y * stride, interior.width, planes);
        }
    }

    void paint_bytes(std::uint8_t* base, const std::uint8_t* picture, std::ptrdiff_t stride, const Interior& interior,
                     bool swap) const noexcept {
        for (int y = 0; y < interior.height; ++y) {
            std::uint8_t* const row = base + 3 * offset(interior.top + y, interior.left);
            if (swap) {
                swap_row_(picture + y * stride, interior.width, row);
            } else {
                std::memcpy(row, picture + y * stride, 3 * static_cast<std::size_t>(interior.width));
            }
        }
    }

    // Pads what `held` covers and `next` does not: whole rows above and below it, then the sides.
    void pad_outside(std::uint8_t* base, const Interior& held, const Interior& next) const noexcept {
        for (int y = held.top; y < held.bottom(); ++y) {
            if (y < next.top || y >= next.bottom()) {
                pad_row(base, y, held.left, held.right());
            } else {
                pad_row(base, y, held.left, std::min(held.right(), next.left));
                pad_row(base, y, std::max(held.left, next.right()), held.right());
            }
        }
    }

    void pad_row(std::uint8_t* base, int y, int from, int to) const noexcept {
        if (from >= to) return;
        const std::size_t count = static_cast<std::size_t>(to - from);
        for (int k = 0; k < 3; ++k) {
            if (form_ == Form::F32_CHW) {
                float* const row = reinterpret_cast<float*>(base) + k * plane() + offset(y, from);
                std::fill_n(row, count, channels_[k].table[pad_]);
            } else if (form_ == Form::U8_CHW) {
                std::memset(base + k * plane() + offset(y, from), pad_, count);
            } else {
                std::memset(base + 3 * offset(y, from) + k * count, pad_, count);
            }
        }
    }

    std::uint8_t* memory_;
    int height_, width_;
    Form form_;
    std::uint8_t pad_;
    std::array<Channel, 3> channels_;
    FloatRow float_row_;
    ByteRow byte_row_;
    SwapRow swap_row_;
    std::vector<Interior> held_;
};

}  // namespace headworks::pixels
