// ONNX Runtime on the CPU. It computes what is stored as fp16 in fp32.
#include <onnxruntime_cxx_api.h>

#include <array>
#include <string>

#include "errors.hpp"
#include "file.hpp"
#include "model.hpp"

namespace {

class OnnxRuntime final : public Model {
public:
    OnnxRuntime(const Metadata& metadata, const std::string& content)
        : Model(metadata.spec), session_(environment_, content.data(), content.size(), options_for(metadata)) {}

private:
    // A session may be run by several threads.
    std::vector<float> infer(const std::uint8_t* pictures, std::size_t count) override {
        const std::int64_t size = spec_.image_size;
        const std::array<std::int64_t, 4> shape{static_cast<std::int64_t>(count), size, size, 3};
        const auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
        // The library takes no const pointer to inputs, and does not write to them.
        const auto image = Ort::Value::CreateTensor<std::uint8_t>(memory, const_cast<std::uint8_t*>(pictures),
                                                                  count * static_cast<std::size_t>(size * size * 3),
                                                                  shape.data(), shape.size());
        const char *input = "image", *output = "logits";
        const auto found = session_.Run(Ort::RunOptions(), &input, &image, 1, &output, 1);
        const auto* logits = found.front().GetTensorData<float>();
        return {logits, logits + found.front().GetTensorTypeAndShapeInfo().GetElementCount()};
    }

    static Ort::SessionOptions options_for(const Metadata& metadata) {
        Ort::SessionOptions options;
        if (metadata.precision == "int8" && metadata.target != "cpu") {
            // It has no kernels for layouts of GPUs; rewriting the graph in search of some only changes the rounding.
            options.AddConfigEntry("session.disable_quant_qdq", "1");
        }
        return options;
    }

    Ort::Env environment_{ORT_LOGGING_LEVEL_ERROR, "tinyres"};
    Ort::Session session_;
};

}  // namespace

// A session serves one caller and many alike.
std::unique_ptr<Model> open_model(const std::filesystem::path& path, Callers) {
    const std::string content = read_file(path);
    try {
        const Metadata metadata = metadata_from_onnx(content);
        if (metadata.precision == "bf16") throw InputError("ONNX Runtime has no bf16 arithmetic on the CPU");
        // Bytes, not the path: an artifact is one file, and external data must not be looked for beside it.
        return std::make_unique<OnnxRuntime>(metadata, content);
    } catch (const InputError& error) {
        throw InputError(path.string() + ": " + error.what());
    } catch (const Ort::Exception& error) {
        throw InputError(path.string() + ": ONNX Runtime does not load it: " + error.what());
    }
}
