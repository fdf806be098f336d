// Non-maximum suppression, and the way from network pixels back to those of the source picture. Called by
// headworks_native.nms and by native lanes on the lane's thread, never with the GIL needed. Owns nothing beyond one
// call. How the boxes are found in an output is in boxes.hpp.
//
// Arithmetic is float32, each operation rounded by itself, so that the NumPy twin is equal to the last bit:
//   area = (x2 - x1) * (y2 - y1);
//   intersection = max(min(x2) - max(x1), 0) * max(min(y2) - max(y1), 0);
//   IoU = intersection / ((area of the kept + area of the other) - intersection); source = (network - pad) / scale.
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "boxes.hpp"
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
    float left, top;         // network pixels before the picture; negative where it was cut
    float scale_x, scale_y;  // network pixels per source pixel
    int source_width, source_height;
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

// Whether a kept box [from, to) of the same class (of any, where `agnostic`) overlaps `box` by more than `threshold`.
// Compilers vectorise this as it stands (an AVX2 form was measured within 15 %: it waits for its division).
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

// The order of candidates by score, highest first, ties in the order in which they were found; at most
// CANDIDATES_AT_MOST of them. A score is positive here, and the bits of positive floats are ordered as they are: one
// integer holds score and place.
inline std::vector<std::uint64_t> best_first(const std::vector<Candidate>& boxes) {
    std::vector<std::uint64_t> order(boxes.size());
    for (std::size_t i = 0; i < boxes.size(); ++i) {
        order[i] = static_cast<std::uint64_t>(~std::bit_cast<std::uint32_t>(boxes[i].score)) << 32 | i;
    }
    if (order.size() > CANDIDATES_AT_MOST) {
        std::nth_element(order.begin(), order.begin() + CANDIDATES_AT_MOST, order.end());
        order.resize(CANDIDATES_AT_MOST);
    }
    std::sort(order.begin(), order.end());
    return order;
}

// Network pixels to source pixels, clipped to the picture. `limit` is its width or height. A zero is never negative.
inline float to_source(float value, float pad, float scale, int limit) noexcept {
    return std::clamp((value - pad) / scale, 0.0f, static_cast<float>(limit)) + 0.0f;
}

inline Detection to_source(const Candidate& box, const Placement& place) noexcept {
    return {to_source(box.x1, place.left, place.scale_x, place.source_width),
            to_source(box.y1, place.top, place.scale_y, place.source_height),
            to_source(box.x2, place.left, place.scale_x, place.source_width),
            to_source(box.y2, place.top, place.scale_y, place.source_height),
            box.score,
            static_cast<std::uint32_t>(box.class_id)};
}

// Best first. Thresholds lie in [0, 1], scales are positive, sizes at least 1. Work is bounded by
// min(boxes, CANDIDATES_AT_MOST) * max_detections comparisons. Throws std::bad_alloc only.
//
// A box that clipping leaves empty is kept, as Ultralytics keeps it: the count of detections is the model's answer.
inline std::vector<Detection> suppress(const std::vector<Candidate>& boxes, const Thresholds& thresholds,
                                       const Placement& placement) {
    constexpr std::size_t BLOCK = 64;  // comparisons between two looks at the answer
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
        detections.push_back(to_source(box, placement));
        if (detections.size() == static_cast<std::size_t>(thresholds.max_detections)) break;
    }
    return detections;
}

// The same for boxes that the model has suppressed by itself.
inline std::vector<Detection> best(const std::vector<Candidate>& boxes, const Thresholds& thresholds,
                                   const Placement& placement) {
    std::vector<Detection> detections;
    for (const std::uint64_t key : best_first(boxes)) {
        detections.push_back(to_source(boxes[key & 0xFFFF'FFFF], placement));
        if (detections.size() == static_cast<std::size_t>(thresholds.max_detections)) break;
    }
    return detections;
}

// The detections of one picture, whose output has `count` boxes in the layout's shape.
inline std::vector<Detection> detections(const float* output, std::size_t count, const Reading& reading,
                                         const Thresholds& thresholds, const Placement& placement) {
    const std::vector<Candidate> boxes = candidates(output, count, reading, thresholds.score);
    if (reading.layout == Layout::YOLO_END2END) return best(boxes, thresholds, placement);
    return suppress(boxes, thresholds, placement);
}

}  // namespace headworks::nms
