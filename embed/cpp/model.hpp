// The one seam: uint8 pictures in, logits out. Each library has its file, model_*.cpp, and CMake picks one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <stdexcept>
#include <utility>
#include <vector>

#include "metadata.hpp"

class Model {
public:
    virtual ~Model() = default;
    Model(const Model&) = delete;
    Model& operator=(const Model&) = delete;

    const Spec& spec() const { return spec_; }

    // (count, S, S, 3) RGB pictures to (count, classes) logits. Several threads may call it.
    std::vector<float> logits(const std::uint8_t* pictures, std::size_t count) {
        std::vector<float> found = infer(pictures, count);
        if (found.size() != count * spec_.class_ids.size()) {
            throw std::runtime_error("the model's answer has another size than its metadata says");
        }
        return found;
    }

protected:
    explicit Model(Spec spec) : spec_(std::move(spec)) {}
    virtual std::vector<float> infer(const std::uint8_t* pictures, std::size_t count) = 0;

    const Spec spec_;
};

// One caller wants each answer soon; many want many answers.
enum class Callers { one, many };

// Load an exported file. Throws InputError, with one line that names it.
std::unique_ptr<Model> open_model(const std::filesystem::path& path, Callers callers);
