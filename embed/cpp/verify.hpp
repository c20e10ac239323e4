#pragma once

#include <cstddef>
#include <filesystem>

#include "model.hpp"

struct Proof {
    std::size_t pictures;
    double difference;  // the root mean square over all pictures and classes
    double limit;
};

// Ask the golden pictures in `<artifact>.golden.json` again.
// Throws ProofError where an answer is not the known one, InputError for a file of theirs that is absent or damaged.
Proof verify(Model& model, const std::filesystem::path& artifact);
