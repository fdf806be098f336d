// How floats are rounded here: each operation by itself, so that native results equal their NumPy twins to the last
// bit. A compiler that has fused multiply-add (AVX-512, ARM) may otherwise leave out the rounding of a product.
// Included by pixels.hpp and nms.hpp; functions that add to a product carry the attribute.
#pragma once

// GCC contracts across statements by default. Clang contracts only inside one expression, so that there it is enough
// to keep product and sum in two statements, as all these functions do.
#if defined(__GNUC__) && !defined(__clang__)
#define HEADWORKS_NO_CONTRACTION __attribute__((optimize("fp-contract=off")))
#else
#define HEADWORKS_NO_CONTRACTION
#endif
