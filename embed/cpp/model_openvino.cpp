// OpenVINO on the CPU.
#include <mutex>
#include <openvino/openvino.hpp>
#include <sstream>
#include <string>

#include "errors.hpp"
#include "file.hpp"
#include "model.hpp"

namespace {

class OpenVino final : public Model {
public:
    OpenVino(Spec spec, ov::CompiledModel compiled) : Model(std::move(spec)), compiled_(std::move(compiled)) {}

private:
    std::vector<float> infer(const std::uint8_t* pictures, std::size_t count) override {
        const auto size = static_cast<std::size_t>(spec_.image_size);
        ov::InferRequest request = take();
        request.set_tensor("image", ov::Tensor(ov::element::u8, {count, size, size, 3}, pictures));
        request.infer();
        const ov::Tensor found = request.get_tensor("logits");
        std::vector<float> logits(found.data<const float>(), found.data<const float>() + found.get_size());
        put_back(std::move(request));
        return logits;
    }

    // A request belongs to one thread at a time. One that failed is not put back.
    ov::InferRequest take() {
        const std::lock_guard lock(mutex_);
        if (idle_.empty()) return compiled_.create_infer_request();
        ov::InferRequest request = std::move(idle_.back());
        idle_.pop_back();
        return request;
    }

    void put_back(ov::InferRequest request) {
        const std::lock_guard lock(mutex_);
        idle_.push_back(std::move(request));
    }

    ov::CompiledModel compiled_;
    std::mutex mutex_;
    std::vector<ov::InferRequest> idle_;
};

// Left to itself OpenVINO computes in bf16 or fp16 wherever the processor can, and the answers change with the machine.
// fp32, fp16 and the part of an int8 file that is not int8 are computed in float32, for which their limits are made.
ov::element::Type compute_type(const std::string& stored) {
    return stored == "bf16" ? ov::element::bf16 : ov::element::f32;
}

// Lines that end in a colon are places in the library's source, and lead to the reason.
std::string reason_of(const std::exception& error) {
    std::istringstream lines(error.what());
    for (std::string line; std::getline(lines, line);) {
        if (!line.empty() && line.back() != ':') return line;
    }
    return "it gives no reason";
}

}  // namespace

std::unique_ptr<Model> open_model(const std::filesystem::path& path, Callers callers) {
    const std::string content = read_file(path);
    try {
        Metadata metadata = metadata_from_onnx(content);
        ov::Core core;
        // Bytes, not the path: an artifact is one file, and external data must not be looked for beside it.
        const auto model = core.read_model(content, ov::Tensor());
        const auto mode = callers == Callers::one ? ov::hint::PerformanceMode::LATENCY
                                                  : ov::hint::PerformanceMode::THROUGHPUT;
        const auto computed = ov::hint::inference_precision(compute_type(metadata.precision));
        auto compiled = core.compile_model(model, "CPU", computed, ov::hint::performance_mode(mode));
        return std::make_unique<OpenVino>(std::move(metadata.spec), std::move(compiled));
    } catch (const InputError& error) {
        throw InputError(path.string() + ": " + error.what());
    } catch (const ov::Exception& error) {
        throw InputError(path.string() + ": OpenVINO does not load it: " + reason_of(error));
    }
}
