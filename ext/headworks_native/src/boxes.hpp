// Finds the boxes that score enough in the output of a detector, whatever its layout. Included by nms.hpp, which
// suppresses and places them. Owns nothing beyond one call.
//
// Arithmetic is float32, each operation rounded by itself, so that the NumPy twin is equal to the last bit:
//   corners from a centre: half = size * 0.5, centre -+ half; score with an objectness = objectness * class score;
//   yolox: centre = (offset + cell) * stride, size = float32(exp(float64(logarithm))) * stride.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

#include "rounding.hpp"

namespace headworks::nms {

enum class Layout : int {
    YOLOV8 = 0,        // [4 + classes, boxes]: four rows of the box, one of each class' scores
    YOLOV5 = 1,        // [boxes, 5 + classes]: the box, its objectness, a score of each class
    YOLOX = 2,         // the same, the box relative to its cell of the grids of strides 8, 16 and 32
    YOLO_END2END = 3,  // [boxes, 6]: the box, its score, its class; suppressed by the model
};

enum class BoxForm : int { CXCYWH = 0, XYXY = 1, YXYX = 2 };

// How a model's output is to be read; constant for the model.
struct Reading {
    Layout layout;
    BoxForm boxes;
    bool multi_label;      // a box counts for each class that passes, not for its best alone
    int classes;           // at least 1
    int width, height;     // of the network's input, in pixels
    float unit_x, unit_y;  // network pixels per unit of a box: the sides where boxes are fractions of them, else 1
};

constexpr int STRIDES[] = {8, 16, 32};  // of the grids of yolox

// The boxes that a network of this size has in the yolox layout.
inline std::size_t yolox_boxes(int width, int height) noexcept {
    std::size_t count = 0;
    for (const int stride : STRIDES) count += static_cast<std::size_t>(width / stride) * (height / stride);
    return count;
}

struct Candidate {
    float x1, y1, x2, y2, score;  // network pixels
    std::int32_t class_id;

    bool finite() const noexcept {
        return std::isfinite(x1) && std::isfinite(y1) && std::isfinite(x2) && std::isfinite(y2) && std::isfinite(score);
    }
};

// A box with four numbers as the output has them, without its class and score.
HEADWORKS_NO_CONTRACTION inline Candidate box_of(float a, float b, float c, float d, const Reading& reading) noexcept {
    if (reading.boxes == BoxForm::YXYX) {
        std::swap(a, b);
        std::swap(c, d);
    }
    a *= reading.unit_x, b *= reading.unit_y, c *= reading.unit_x, d *= reading.unit_y;
    if (reading.boxes != BoxForm::CXCYWH) return {a, b, c, d, 0.0f, 0};
    const float half_width = c * 0.5f;
    const float half_height = d * 0.5f;
    return {a - half_width, b - half_height, a + half_width, b + half_height, 0.0f, 0};
}

// best[i] = the largest of classes[*][i], NaN left out. Compilers vectorise it as it stands (an AVX2 form was measured
// within 15 %: it waits for memory).
inline void best_scores(const float* classes, std::size_t class_count, std::size_t stride, std::size_t count,
                        float* __restrict best) noexcept {
    std::fill_n(best, count, -std::numeric_limits<float>::infinity());
    for (std::size_t c = 0; c < class_count; ++c) {
        const float* __restrict scores = classes + c * stride;
        for (std::size_t i = 0; i < count; ++i) best[i] = scores[i] > best[i] ? scores[i] : best[i];
    }
}

// Adds the box to `found`: with its best class, or once for each class that passes. `score_of(c)` is the score of
// class c, `best` the largest of them, which passes.
template <class ScoreOf>
inline void add(std::vector<Candidate>& found, Candidate box, float best, float threshold, const Reading& reading,
         const ScoreOf& score_of) {
    if (!reading.multi_label) {
        box.score = best;
        if (!box.finite()) return;
        while (score_of(box.class_id) != best) ++box.class_id;  // the first of equals
        return found.push_back(box);
    }
    for (; box.class_id < reading.classes; ++box.class_id) {
        box.score = score_of(box.class_id);
        if (box.score > threshold && box.finite()) found.push_back(box);
    }
}

inline std::vector<Candidate> yolov8_candidates(const float* output, std::size_t count, const Reading& reading,
                                                float threshold) {
    constexpr std::size_t TILE = 2048;  // 8 KB of best scores, in the first cache beside one row of the output
    float best[TILE];
    std::vector<Candidate> found;
    const float* const classes = output + 4 * count;
    for (std::size_t start = 0; start < count; start += TILE) {
        const std::size_t size = std::min(TILE, count - start);
        best_scores(classes + start, static_cast<std::size_t>(reading.classes), count, size, best);
        for (std::size_t i = 0; i < size; ++i) {
            if (!(best[i] > threshold)) continue;
            const float* const column = output + start + i;
            add(found, box_of(column[0], column[count], column[2 * count], column[3 * count], reading), best[i],
                threshold, reading, [=](std::int32_t c) { return column[(4 + static_cast<std::size_t>(c)) * count]; });
        }
    }
    return found;
}

// Where the boxes of yolox lie: cell by cell, row by row, the grid of the finest stride first.
struct Cell {
    int level = 0, x = 0, y = 0;

    void next(const Reading& reading) noexcept {
        if (++x < reading.width / STRIDES[level]) return;
        x = 0;
        if (++y < reading.height / STRIDES[level]) return;
        y = 0;
        ++level;
    }
};

HEADWORKS_NO_CONTRACTION inline Candidate yolox_box(const float* row, const Cell& cell,
                                                    const Reading& reading) noexcept {
    const float stride = static_cast<float>(STRIDES[cell.level]);
    const float x = (row[0] + static_cast<float>(cell.x)) * stride;
    const float y = (row[1] + static_cast<float>(cell.y)) * stride;
    const float width = static_cast<float>(std::exp(static_cast<double>(row[2]))) * stride;
    const float height = static_cast<float>(std::exp(static_cast<double>(row[3]))) * stride;
    return box_of(x, y, width, height, reading);
}

// As YOLOv5: the objectness must pass by itself, which rows without an object seldom do.
inline std::vector<Candidate> objectness_candidates(const float* output, std::size_t count, const Reading& reading,
                                                    float threshold) {
    const std::size_t width = 5 + static_cast<std::size_t>(reading.classes);
    std::vector<Candidate> found;
    Cell cell;
    for (const float* row = output; row != output + count * width; row += width) {
        const Cell here = cell;
        if (reading.layout == Layout::YOLOX) cell.next(reading);
        const float objectness = row[4];
        if (!(objectness > threshold)) continue;
        const auto score_of = [=](std::int32_t c) { return objectness * row[5 + c]; };
        float best = -std::numeric_limits<float>::infinity();
        for (std::int32_t c = 0; c < reading.classes; ++c) best = score_of(c) > best ? score_of(c) : best;
        if (!(best > threshold)) continue;
        const Candidate box = reading.layout == Layout::YOLOX ? yolox_box(row, here, reading)
                                                              : box_of(row[0], row[1], row[2], row[3], reading);
        add(found, box, best, threshold, reading, score_of);
    }
    return found;
}

// A row whose class is not the number of a class is padding, and left out.
inline std::vector<Candidate> end2end_candidates(const float* output, std::size_t count, const Reading& reading,
                                                 float threshold) {
    std::vector<Candidate> found;
    for (const float* row = output; row != output + count * 6; row += 6) {
        const float class_id = row[5];
        if (!(row[4] > threshold && class_id >= 0.0f && class_id < static_cast<float>(reading.classes))) continue;
        Candidate box = box_of(row[0], row[1], row[2], row[3], reading);
        box.score = row[4];
        box.class_id = static_cast<std::int32_t>(class_id);
        if (box.finite() && static_cast<float>(box.class_id) == class_id) found.push_back(box);
    }
    return found;
}

// The boxes that score more than `threshold`, in the order of the output, then of the classes. A score that is NaN
// never passes; a box with a corner or a score that is not finite is no box, and left out.
inline std::vector<Candidate> candidates(const float* output, std::size_t count, const Reading& reading,
                                         float threshold) {
    switch (reading.layout) {
        case Layout::YOLOV8: return yolov8_candidates(output, count, reading, threshold);
        case Layout::YOLOV5:
        case Layout::YOLOX: return objectness_candidates(output, count, reading, threshold);
        case Layout::YOLO_END2END: return end2end_candidates(output, count, reading, threshold);
    }
    return {};
}

}  // namespace headworks::nms
