// The kernels of pixels.hpp, a row or a piece of one at a time: bytes of a picture to values of a model's input.
//
// Each float is  value * gain + offset  with  gain = scale / std  and  offset = -mean / std  (both computed in double
// and rounded to float once), the product and the sum rounded to float separately; a half is that float, rounded once
// more. Every variant keeps to that, so all are equal to the last bit: the scalar code reads a table of the 256
// results per channel, the vector code computes, with fused multiply-add switched off.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "half.hpp"
#include "rounding.hpp"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace headworks::pixels {

enum class Variant : int { PLAIN = 0, AVX2 = 1, AVX512 = 2 };

inline bool supported(Variant variant) noexcept {
#if defined(__x86_64__)
    __builtin_cpu_init();
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("f16c");
    if (variant == Variant::AVX2) return avx2;
    if (variant == Variant::AVX512) return avx2 && __builtin_cpu_supports("avx512f");
#endif
    return variant == Variant::PLAIN;
}

inline Variant best_variant() noexcept {
    if (supported(Variant::AVX512)) return Variant::AVX512;
    return supported(Variant::AVX2) ? Variant::AVX2 : Variant::PLAIN;
}

// What one channel of the model's input does to a byte.
struct Channel {
    float gain, offset;
    std::array<float, 256> floats;
    std::array<Half, 256> halves;

    template <class Value>
    Value value(std::uint8_t byte) const noexcept {
        if constexpr (sizeof(Value) == sizeof(float)) return floats[byte];
        else if constexpr (sizeof(Value) == sizeof(Half)) return halves[byte];
        else return byte;
    }
};

HEADWORKS_NO_CONTRACTION inline Channel make_channel(double scale, double mean, double std) noexcept {
    Channel channel{static_cast<float>(scale / std), static_cast<float>(-mean / std), {}, {}};
    for (std::size_t value = 0; value < 256; ++value) {
        const float product = static_cast<float>(value) * channel.gain;
        channel.floats[value] = product + channel.offset;
        channel.halves[value] = half_of(channel.floats[value]);
    }
    return channel;
}

// The channels of interleaved values, repeated until a vector of eight begins with the first again.
struct Cycle {
    static constexpr int LENGTH = 24;
    std::array<float, LENGTH> gain, offset;
    const Channel* channels;
    int count;  // 1 or 3
};

// One row of a picture, split into planes. `planes` and `channels` are in the order of the bytes of the picture.
template <class Value>
using PlanarRow = void (*)(const std::uint8_t* row, int width, Value* const* planes, const Channel* const* channels);
// `count` bytes, the first of them of the first channel, to as many values.
template <class Value>
using FlatRow = void (*)(const std::uint8_t* row, int count, const Cycle& cycle, Value* out);
// Three bytes of each pixel in the other order.
using SwapRow = void (*)(const std::uint8_t* row, int width, std::uint8_t* out);
// Three bytes of each pixel to one grey: BT.601 in 15 bits, as OpenCV's cvtColor; the picture says which end is red.
using GreyRow = void (*)(const std::uint8_t* row, int width, bool blue_first, std::uint8_t* out);

namespace rows {

constexpr int RED = 9798, GREEN = 19235, BLUE = 3735, HALF_UNIT = 1 << 14, GREY_BITS = 15;  // sum of weights: 2^15

template <class Value>
inline void planar_tail(const std::uint8_t* row, int x, int width, Value* const* planes,
                        const Channel* const* channels) noexcept {
    for (; x < width; ++x) {
        for (int k = 0; k < 3; ++k) planes[k][x] = channels[k]->template value<Value>(row[3 * x + k]);
    }
}

template <class Value>
inline void flat_tail(const std::uint8_t* row, int i, int count, const Cycle& cycle, Value* out) noexcept {
    for (; i < count; ++i) out[i] = cycle.channels[i % cycle.count].template value<Value>(row[i]);
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

template <class Value>
inline void planar_plain(const std::uint8_t* row, int width, Value* const* planes, const Channel* const* channels) {
    planar_tail(row, 0, width, planes, channels);
}

template <class Value>
inline void flat_plain(const std::uint8_t* row, int count, const Cycle& cycle, Value* out) {
    flat_tail(row, 0, count, cycle, out);
}

inline void byte_plain(const std::uint8_t* row, int width, std::uint8_t* const* planes, const Channel* const*) {
    byte_tail(row, 0, width, planes);
}

inline void swap_plain(const std::uint8_t* row, int width, std::uint8_t* out) { swap_tail(row, 0, width, out); }

inline void grey_tail(const std::uint8_t* row, int x, int width, bool blue_first, std::uint8_t* out) noexcept {
    const int first = blue_first ? BLUE : RED, third = blue_first ? RED : BLUE;
    for (; x < width; ++x) {
        const int sum = row[3 * x] * first + row[3 * x + 1] * GREEN + row[3 * x + 2] * third;
        out[x] = static_cast<std::uint8_t>((sum + HALF_UNIT) >> GREY_BITS);
    }
}

inline void grey_plain(const std::uint8_t* row, int width, bool blue_first, std::uint8_t* out) {
    grey_tail(row, 0, width, blue_first, out);
}

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

__attribute__((target("avx2,f16c"), always_inline)) inline void store(float* out, __m256 values) noexcept {
    _mm256_storeu_ps(out, values);
}

__attribute__((target("avx2,f16c"), always_inline)) inline void store(Half* out, __m256 values) noexcept {
    const __m128i halves = _mm256_cvtps_ph(values, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out), halves);
}

template <class Value>
HEADWORKS_NO_CONTRACTION __attribute__((target("avx2,f16c"))) inline void planar_avx2(
    const std::uint8_t* row, int width, Value* const* planes, const Channel* const* channels) {
    Value* const out[3] = {planes[0], planes[1], planes[2]};
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
            store(out[k] + x, _mm256_add_ps(low_product, offset[k]));
            store(out[k] + x + 8, _mm256_add_ps(high_product, offset[k]));
        }
    }
    planar_tail(row, x, width, planes, channels);
}

template <class Value>
HEADWORKS_NO_CONTRACTION __attribute__((target("avx2,f16c"))) inline void flat_avx2(
    const std::uint8_t* row, int count, const Cycle& cycle, Value* out) {
    __m256 gain[3], offset[3];
    for (int k = 0; k < 3; ++k) {
        gain[k] = _mm256_loadu_ps(cycle.gain.data() + 8 * k);
        offset[k] = _mm256_loadu_ps(cycle.offset.data() + 8 * k);
    }
    int i = 0;
    for (; i + Cycle::LENGTH <= count; i += Cycle::LENGTH) {
        for (int k = 0; k < 3; ++k) {
            const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(row + i + 8 * k));
            const __m256 product = _mm256_mul_ps(_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(bytes)), gain[k]);
            store(out + i + 8 * k, _mm256_add_ps(product, offset[k]));
        }
    }
    flat_tail(row, i, count, cycle, out);
}

HEADWORKS_NO_CONTRACTION __attribute__((target("avx2,avx512f"))) inline void planar_avx512(
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
    planar_tail(row, x, width, planes, channels);
}

__attribute__((target("avx2"))) inline void byte_avx2(
    const std::uint8_t* row, int width, std::uint8_t* const* planes, const Channel* const*) {
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

// Products of 16 bits, added in pairs: red with green, blue with the half that rounds. Unpacking and packing both stay
// within their halves of a register, so that pixels keep their order.
__attribute__((target("avx2"))) inline void grey_avx2(const std::uint8_t* row, int width, bool blue_first,
                                                      std::uint8_t* out) {
    const int first = blue_first ? BLUE : RED, third = blue_first ? RED : BLUE;
    const __m256i first_green = _mm256_set1_epi32(GREEN << 16 | first);
    const __m256i third_half = _mm256_set1_epi32(HALF_UNIT << 16 | third);
    const __m256i one = _mm256_set1_epi16(1);
    int x = 0;
    for (; x + 16 <= width; x += 16) {
        const Sixteen pixels = deinterleave(row + 3 * static_cast<std::ptrdiff_t>(x));
        const __m256i a = _mm256_cvtepu8_epi16(pixels.plane[0]), b = _mm256_cvtepu8_epi16(pixels.plane[1]);
        const __m256i c = _mm256_cvtepu8_epi16(pixels.plane[2]);
        const __m256i low = _mm256_add_epi32(_mm256_madd_epi16(_mm256_unpacklo_epi16(a, b), first_green),
                                             _mm256_madd_epi16(_mm256_unpacklo_epi16(c, one), third_half));
        const __m256i high = _mm256_add_epi32(_mm256_madd_epi16(_mm256_unpackhi_epi16(a, b), first_green),
                                              _mm256_madd_epi16(_mm256_unpackhi_epi16(c, one), third_half));
        const __m256i grey = _mm256_packus_epi32(_mm256_srli_epi32(low, GREY_BITS), _mm256_srli_epi32(high, GREY_BITS));
        const __m128i bytes = _mm_packus_epi16(_mm256_castsi256_si128(grey), _mm256_extracti128_si256(grey, 1));
        _mm_storeu_si128(reinterpret_cast<__m128i*>(out + x), bytes);
    }
    grey_tail(row, x, width, blue_first, out);
}

#endif

}  // namespace rows

// The kernels of one variant. AVX-512 has its own form only where it was worth one: bytes are moved sixteen at a time,
// which is as wide as the shuffles go, and the rest is seldom asked for.
struct Kernels {
    PlanarRow<float> planar_float = rows::planar_plain<float>;
    PlanarRow<Half> planar_half = rows::planar_plain<Half>;
    PlanarRow<std::uint8_t> planar_byte = rows::byte_plain;
    FlatRow<float> flat_float = rows::flat_plain<float>;
    FlatRow<Half> flat_half = rows::flat_plain<Half>;
    SwapRow swap = rows::swap_plain;
    GreyRow grey = rows::grey_plain;

    template <class Value>
    PlanarRow<Value> planar() const noexcept {
        if constexpr (sizeof(Value) == sizeof(float)) return planar_float;
        else if constexpr (sizeof(Value) == sizeof(Half)) return planar_half;
        else return planar_byte;
    }

    template <class Value>
    FlatRow<Value> flat() const noexcept {
        if constexpr (sizeof(Value) == sizeof(float)) return flat_float;
        else return flat_half;
    }
};

inline Kernels kernels([[maybe_unused]] Variant variant) noexcept {
    Kernels chosen;
#if defined(__x86_64__)
    if (variant == Variant::PLAIN) return chosen;
    chosen = {rows::planar_avx2<float>, rows::planar_avx2<Half>, rows::byte_avx2, rows::flat_avx2<float>,
              rows::flat_avx2<Half>,    rows::swap_avx2,         rows::grey_avx2};
    if (variant == Variant::AVX512) chosen.planar_float = rows::planar_avx512;
#endif
    return chosen;
}

}  // namespace headworks::pixels
