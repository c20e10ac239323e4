#pragma once

#include <string>
#include <vector>

#include "metadata.hpp"

struct Guess {
    std::string id, name;
    double probability;
};

// The five most probable classes, best first, of one picture's logits.
std::vector<Guess> best_guesses(const std::vector<float>& logits, const Spec& spec);
