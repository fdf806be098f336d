// Turns the output of a YOLOv8-shaped detector into detections in pixels of the source picture: threshold, best
// class, non-maximum suppression, un-letterboxing. Called by headworks_native.nms and by native lanes on the lane's
// thread, never with the GIL needed. Owns nothing beyond one call.
//
// Arithmetic is float32, each operation rounded by itself, so that the NumPy twin is equal to the last bit:
//   half = size * 0.5, corners = centre -+ half; area = (x2 - x1) * (y2 - y1);
//   intersection = max(min(x2) - max(x1), 0) * max(min(y2) - max(y1), 0);
//   IoU = intersection / ((area of the kept + area of the other) - intersection); source = (network - pad) / scale.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

#include "rounding.hpp"

namespace headworks::nms {

static_assert(std::endian::native == std::endian::little, "packed detections are little-endian");

constexpr std::size_t CANDIDATES_AT_MOST = 30'000;  // as Ultralytics: bounds the work on a model gone wild

// Source pixels, half-open. The layout that wire.hpp encodes.
struct Detection {
    float x1, y1, x2, y2, score;
    std::uint32_t class_id;
};
static_assert(sizeof(Detection) == 24);

struct Thresholds {
    float score;         // a detection scores more than this
    float iou;           // a box that overlaps a kept one by more than this is suppressed
    int max_detections;  // at least 1
    bool agnostic;       // suppress across classes
};

// How the source picture was placed in the network's input.
struct Placement {
    float left, top;  // network pixels of pad before the picture
    float scale;      // network pixels per source pixel
    int source_width, source_height;
};

struct Candidate {
    float x1, y1, x2, y2, score;  // network pixels
    std::int32_t class_id;
};

// The kept boxes, a column for each field, so that a candidate is compared with many at once.
struct Kept {
    std::vector<float> x1, y1, x2, y2, area;
    std::vector<std::int32_t> class_id;

    void push(const Candidate& box, float box_area) {
        x1.push_back(box.x1);
        y1.push_back(box.y1);
        x2.push_back(box.x2);
        y2.push_back(box.y2);
        area.push_back(box_area);
        class_id.push_back(box.class_id);
    }
};

// best[i] = the largest of classes[*][i], NaN left out. Compilers vectorise both loops below as they stand (AVX2
// forms were measured within 15 %: the first waits for memory, the second for its division).
inline void best_scores(const float* classes, std::size_t class_count, std::size_t stride, std::size_t count,
                        float* __restrict best) noexcept {
    std::fill_n(best, count, -std::numeric_limits<float>::infinity());
    for (std::size_t c = 0; c < class_count; ++c) {
        const float* __restrict scores = classes + c * stride;
        for (std::size_t i = 0; i < count; ++i) best[i] = scores[i] > best[i] ? scores[i] : best[i];
    }
}

// Whether a kept box [from, to) of the same class (of any, where `agnostic`) overlaps `box` by more than `threshold`.
HEADWORKS_NO_CONTRACTION inline bool overlapped(const Kept& kept, std::size_t from, std::size_t to,
                                                const Candidate& box, float area, float threshold,
                                                bool agnostic) noexcept {
    const float* const x1 = kept.x1.data();
    const float* const y1 = kept.y1.data();
    const float* const x2 = kept.x2.data();
    const float* const y2 = kept.y2.data();
    const float* const areas = kept.area.data();
    const std::int32_t* const classes = kept.class_id.data();
    std::int32_t found = 0;
    for (std::size_t i = from; i < to; ++i) {
        const float width = std::min(x2[i], box.x2) - std::max(x1[i], box.x1);
        const float height = std::min(y2[i], box.y2) - std::max(y1[i], box.y1);
        const float intersection = std::max(width, 0.0f) * std::max(height, 0.0f);
        const float both = areas[i] + area;
        const float iou = intersection / (both - intersection);
        found |= static_cast<std::int32_t>(iou > threshold) &
                 (static_cast<std::int32_t>(agnostic) | static_cast<std::int32_t>(classes[i] == box.class_id));
    }
    return found != 0;
}

// The boxes of `output` (float [4 + class_count, count], rows of centre x, centre y, width, height, then a row of
// scores for each class) whose best score passes, in the order of their columns. A score that is NaN never passes;
// a box with a corner or a best score that is not finite is no box, and left out.
HEADWORKS_NO_CONTRACTION inline std::vector<Candidate> candidates(const float* output, std::size_t class_count,
                                                                  std::size_t count, float score_threshold) {
    constexpr std::size_t TILE = 2048;  // 8 KB of best scores, in the first cache beside one row of the output
    float best[TILE];
    std::vector<Candidate> found;
    const float* const classes = output + 4 * count;
    for (std::size_t start = 0; start < count; start += TILE) {
        const std::size_t size = std::min(TILE, count - start);
        best_scores(classes + start, class_count, count, size, best);
        for (std::size_t i = 0; i < size; ++i) {
            if (!(best[i] > score_threshold)) continue;
            const float* const column = output + start + i;
            const float half_width = column[2 * count] * 0.5f;
            const float half_height = column[3 * count] * 0.5f;
            Candidate box{column[0] - half_width,     column[count] - half_height, column[0] + half_width,
                          column[count] + half_height, best[i],                     0};
            if (!(std::isfinite(box.x1) && std::isfinite(box.y1) && std::isfinite(box.x2) && std::isfinite(box.y2) &&
                  std::isfinite(box.score))) {
                continue;
            }
            while (column[(4 + static_cast<std::size_t>(box.class_id)) * count] != best[i]) ++box.class_id;
            found.push_back(box);
        }
    }
    return found;
}

// The order of candidates by score, highest first, ties by column; at most CANDIDATES_AT_MOST of them. A score is
// positive here, and the bits of positive floats are ordered as they are: one integer holds score and column.
inline std::vector<std::uint64_t> best_first(const std::vector<Candidate>& boxes) {
    std::vector<std::uint64_t> order(boxes.size());
    for (std::size_t i = 0; i < boxes.size(); ++i) {
        order[i] = static_cast<std::uint64_t>(~std::bit_cast<std::uint32_t>(boxes[i].score)) << 32 | i;
    }
    std::sort(order.begin(), order.end());
    if (order.size() > CANDIDATES_AT_MOST) order.resize(CANDIDATES_AT_MOST);
    return order;
}

// Network pixels to source pixels, clipped to the picture. `limit` is its width or height. A zero is never negative.
inline float to_source(float value, float pad, float scale, int limit) noexcept {
    return std::clamp((value - pad) / scale, 0.0f, static_cast<float>(limit)) + 0.0f;
}

// Best first. Thresholds lie in [0, 1], `scale` is positive, sizes at least 1. Work is bounded by
// min(count, CANDIDATES_AT_MOST) * max_detections comparisons. Throws std::bad_alloc only.
//
// A box that clipping leaves empty is kept, as Ultralytics keeps it: the count of detections is the model's answer.
inline std::vector<Detection> yolov8(const float* output, std::size_t class_count, std::size_t count,
                                     const Thresholds& thresholds, const Placement& placement) {
    constexpr std::size_t BLOCK = 64;  // comparisons between two looks at the answer
    const std::vector<Candidate> boxes = candidates(output, class_count, count, thresholds.score);
    Kept kept;
    std::vector<Detection> detections;
    for (const std::uint64_t key : best_first(boxes)) {
        const Candidate& box = boxes[key & 0xFFFF'FFFF];
        const float area = (box.x2 - box.x1) * (box.y2 - box.y1);
        const std::size_t size = kept.area.size();
        bool suppressed = false;
        for (std::size_t from = 0; from < size && !suppressed; from += BLOCK) {
            suppressed = overlapped(kept, from, std::min(from + BLOCK, size), box, area, thresholds.iou,
                                           thresholds.agnostic);
        }
        if (suppressed) continue;
        kept.push(box, area);
        detections.push_back({to_source(box.x1, placement.left, placement.scale, placement.source_width),
                              to_source(box.y1, placement.top, placement.scale, placement.source_height),
                              to_source(box.x2, placement.left, placement.scale, placement.source_width),
                              to_source(box.y2, placement.top, placement.scale, placement.source_height), box.score,
                              static_cast<std::uint32_t>(box.class_id)});
        if (detections.size() == static_cast<std::size_t>(thresholds.max_detections)) break;
    }
    return detections;
}

}  // namespace headworks::nms
