#include "answer.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <stdexcept>

std::vector<Guess> best_guesses(const std::vector<float>& logits, const Spec& spec) {
    if (!std::all_of(logits.begin(), logits.end(), [](float value) { return std::isfinite(value); })) {
        throw std::runtime_error("the model's answer is not finite");
    }
    std::vector<std::size_t> order(logits.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::stable_sort(order.begin(), order.end(), [&](auto a, auto b) { return logits[a] > logits[b]; });
    const double largest = logits[order.front()];
    // Without the largest taken off, exp would overflow.
    const double sum = std::accumulate(logits.begin(), logits.end(), 0.0, [&](double so_far, float value) {
        return so_far + std::exp(value - largest);
    });
    order.resize(std::min<std::size_t>(5, order.size()));
    std::vector<Guess> best;
    for (const auto index : order) {
        best.push_back({spec.class_ids[index], spec.class_names[index], std::exp(logits[index] - largest) / sum});
    }
    return best;
}
