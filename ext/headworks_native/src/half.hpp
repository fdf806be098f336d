// float16 as bits, and the ways to it and from it. To it one rounds to nearest, ties to even: what F16C and NumPy give.
// pixel_rows.hpp makes tables with it, nms.pyx reads a model's output.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace headworks {

enum class Half : std::uint16_t {};  // a type of its own, so that an integer is never taken for one

// Infinite beyond 65,519; a NaN stays a quiet NaN.
constexpr Half half_of(float value) noexcept {
    const std::uint32_t bits = std::bit_cast<std::uint32_t>(value);
    const std::uint32_t sign = bits >> 16 & 0x8000, magnitude = bits & 0x7FFF'FFFF;
    const auto signed_half = [sign](std::uint32_t half) { return static_cast<Half>(sign | half); };
    if (magnitude > 0x7F80'0000) return signed_half(0x7E00 | (magnitude >> 13 & 0x3FF));
    if (magnitude >= 0x4780'0000) return signed_half(0x7C00);  // 65,536 and more
    // Below 2^-14 halves are 2^-24 apart: the fraction, its hidden bit written out, moves down to that place.
    const std::uint32_t exponent = magnitude >> 23;
    const bool small = magnitude < 0x3880'0000;
    if (exponent < 102) return signed_half(0);  // below 2^-25, which itself is a tie with zero
    const std::uint32_t significand = small ? (magnitude & 0x7F'FFFF) | 0x80'0000 : magnitude - 0x3800'0000;
    const std::uint32_t shift = small ? 126 - exponent : 13;
    const std::uint32_t half = significand >> shift, rest = significand & ((1U << shift) - 1), tie = 1U << (shift - 1);
    return signed_half(half + (rest > tie || (rest == tie && half & 1) ? 1 : 0));  // a carry moves the exponent up
}

// Exact. A NaN becomes a quiet NaN.
constexpr float float_of(Half half) noexcept {
    const std::uint32_t bits = static_cast<std::uint32_t>(half);
    const std::uint32_t sign = (bits & 0x8000) << 16, magnitude = bits & 0x7FFF;
    if (magnitude >= 0x7C00) {
        const std::uint32_t quiet = magnitude > 0x7C00 ? 0x40'0000 : 0;
        return std::bit_cast<float>(sign | 0x7F80'0000 | (magnitude & 0x3FF) << 13 | quiet);
    }
    if (magnitude >= 0x400) return std::bit_cast<float>(sign | ((magnitude << 13) + 0x3800'0000));
    const float small = static_cast<float>(magnitude) * 0x1p-24f;
    return sign ? -small : small;
}

#if defined(__x86_64__)
__attribute__((target("avx,f16c"))) inline std::size_t floats_of_f16c(const Half* halves, std::size_t count,
                                                                      float* floats) noexcept {
    std::size_t i = 0;
    for (; i + 8 <= count; i += 8) {
        const __m128i eight = _mm_loadu_si128(reinterpret_cast<const __m128i*>(halves + i));
        _mm256_storeu_ps(floats + i, _mm256_cvtph_ps(eight));
    }
    return i;
}
#endif

inline void floats_of(const void* halves, std::size_t count, float* floats) noexcept {
    const Half* const from = static_cast<const Half*>(halves);
    std::size_t i = 0;
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("f16c")) i = floats_of_f16c(from, count, floats);
#endif
    for (; i < count; ++i) floats[i] = float_of(from[i]);
}

}  // namespace headworks
