// A TensorRT engine on an NVIDIA GPU. What it is stands in the JSON file beside it.
#include <NvInfer.h>
#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstdio>
#include <mutex>
#include <nlohmann/json.hpp>
#include <string>

#include "errors.hpp"
#include "file.hpp"
#include "model.hpp"

namespace {

class Logger final : public nvinfer1::ILogger {
    void log(Severity severity, const char* message) noexcept override {
        if (severity <= Severity::kERROR) std::fprintf(stderr, "TensorRT: %s\n", message);
    }
};

void check(cudaError_t status) {
    if (status != cudaSuccess) throw std::runtime_error(std::string("CUDA failed: ") + cudaGetErrorString(status));
}

struct DeviceFree {
    void operator()(void* memory) const { cudaFree(memory); }
};

std::unique_ptr<void, DeviceFree> device_memory(std::size_t bytes) {
    void* memory = nullptr;
    check(cudaMalloc(&memory, bytes));
    return std::unique_ptr<void, DeviceFree>(memory);
}

class TensorRt final : public Model {
public:
    TensorRt(Spec spec, const std::string& engine, std::size_t most, bool version_compatible)
        : Model(std::move(spec)), most_(most), runtime_(nvinfer1::createInferRuntime(logger_)) {
        if (!runtime_) throw InputError("TensorRT does not start: is there an NVIDIA GPU with its driver?");
        // A version-compatible engine brings its own runtime.
        runtime_->setEngineHostCodeAllowed(version_compatible);
        engine_.reset(runtime_->deserializeCudaEngine(engine.data(), engine.size()));
        if (!engine_) throw InputError("TensorRT refused it: it was built for another version or GPU");
        context_.reset(engine_->createExecutionContext());
        if (!context_) throw std::runtime_error("TensorRT made no execution context: too little memory");
        image_ = device_memory(most_ * picture_bytes());
        logits_ = device_memory(most_ * answer_bytes());
        probabilities_ = device_memory(most_ * answer_bytes());
        context_->setTensorAddress("image", image_.get());
        context_->setTensorAddress("logits", logits_.get());
        // The engine gives these too; they stay on the device.
        context_->setTensorAddress("probabilities", probabilities_.get());
    }

private:
    std::size_t picture_bytes() const { return static_cast<std::size_t>(spec_.image_size) * spec_.image_size * 3; }
    std::size_t answer_bytes() const { return spec_.class_ids.size() * sizeof(float); }

    // There is one set of buffers, so one call at a time; more pictures than the profile's most go in parts.
    std::vector<float> infer(const std::uint8_t* pictures, std::size_t count) override {
        const std::lock_guard lock(mutex_);
        std::vector<float> logits(count * spec_.class_ids.size());
        for (std::size_t at = 0; at < count; at += most_) {
            const std::size_t part = std::min(most_, count - at);
            run(pictures + at * picture_bytes(), part, logits.data() + at * spec_.class_ids.size());
        }
        return logits;
    }

    void run(const std::uint8_t* pictures, std::size_t count, float* logits) {
        // The default stream: each step waits for the one before, and the copy out for all.
        const cudaStream_t stream = nullptr;
        const nvinfer1::Dims4 shape(static_cast<std::int32_t>(count), spec_.image_size, spec_.image_size, 3);
        if (!context_->setInputShape("image", shape)) throw std::runtime_error("the engine refused the batch");
        check(cudaMemcpy(image_.get(), pictures, count * picture_bytes(), cudaMemcpyHostToDevice));
        if (!context_->enqueueV3(stream)) throw std::runtime_error("TensorRT failed");
        check(cudaMemcpy(logits, logits_.get(), count * answer_bytes(), cudaMemcpyDeviceToHost));
    }

    const std::size_t most_;  // pictures that the engine takes at once
    Logger logger_;
    std::unique_ptr<nvinfer1::IRuntime> runtime_;
    std::unique_ptr<nvinfer1::ICudaEngine> engine_;
    std::unique_ptr<nvinfer1::IExecutionContext> context_;
    std::unique_ptr<void, DeviceFree> image_, logits_, probabilities_;
    std::mutex mutex_;
};

}  // namespace

std::unique_ptr<Model> open_model(const std::filesystem::path& path, Callers) {
    const std::string engine = read_file(path), sidecar = read_file(path.string() + ".json");
    try {
        const auto passport = nlohmann::json::parse(sidecar).at("passport");
        if (passport.at("library") != "tensorrt") throw InputError("it was built by another library than TensorRT");
        const auto& options = passport.at("options");
        return std::make_unique<TensorRt>(metadata_from_json(passport.at("metadata").dump()).spec, engine,
                                          options.at("batches").at(2).get<std::size_t>(),
                                          options.at("version_compatible").get<bool>());
    } catch (const nlohmann::json::exception& error) {
        throw InputError(path.string() + ".json holds no passport: " + error.what());
    } catch (const InputError& error) {
        throw InputError(path.string() + ": " + error.what());
    }
}
