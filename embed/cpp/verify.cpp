#include "verify.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "errors.hpp"
#include "file.hpp"
#include "picture.hpp"

namespace {

constexpr int known_schema = 2;

std::string from_base64(const std::string& text) {
    constexpr std::string_view digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    std::string bytes;
    std::uint32_t bits = 0;
    int count = 0;
    for (const char c : std::string_view(text).substr(0, text.find('='))) {
        const auto digit = digits.find(c);
        if (digit == digits.npos) throw InputError("a picture is not in base64");
        bits = bits << 6 | static_cast<std::uint32_t>(digit);
        if ((count += 6) >= 8) bytes += static_cast<char>(bits >> (count -= 8) & 255);
    }
    return bytes;
}

struct Golden {
    std::string png, pixels, label;
    std::vector<float> logits;  // the artifact's when it was exported
};

struct GoldenFile {
    double limit;
    std::vector<Golden> pictures;
};

GoldenFile read_golden(const std::filesystem::path& path, const Spec& spec) {
    const std::string text = read_file(path);
    try {
        const auto json = nlohmann::json::parse(text);
        if (json.at("schema") != known_schema) throw InputError("it has another schema than this program knows");
        GoldenFile golden{json.at("limit").get<double>(), {}};
        const std::vector<int> shape{spec.image_size, spec.image_size, 3};
        const auto bytes = static_cast<std::size_t>(shape[0]) * shape[1] * shape[2];
        for (const auto& one : json.at("pictures")) {
            Golden picture{from_base64(one.at("png")), from_base64(one.at("pixels")), one.at("label"),
                           one.at("artifact_logits")};
            if (one.at("shape") != shape || picture.pixels.size() != bytes ||
                picture.logits.size() != spec.class_ids.size()) {
                throw InputError("it is another model's");
            }
            golden.pictures.push_back(std::move(picture));
        }
        // Nothing to compare, or no bound, would prove anything.
        if (golden.pictures.empty() || !(golden.limit > 0)) throw InputError("it holds no pictures or no limit");
        return golden;
    } catch (const nlohmann::json::exception& error) {
        throw InputError(path.string() + " is damaged: " + error.what());
    } catch (const InputError& error) {
        throw InputError(path.string() + ": " + error.what());
    }
}

std::size_t index_of_best(const std::vector<float>& logits) {
    return static_cast<std::size_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

double rms_difference(const std::vector<float>& a, const std::vector<float>& b) {
    double sum = 0;
    for (std::size_t i = 0; i < a.size(); ++i) sum += std::pow(static_cast<double>(a[i]) - b[i], 2);
    return std::sqrt(sum / static_cast<double>(a.size()));
}

std::string shown(double value) {
    char text[32];
    std::snprintf(text, sizeof text, "%.2g", value);
    return text;
}

// Written so that NaN, which compares as false, fails.
void require_within(double limit, double difference, const std::string& what) {
    if (!(difference <= limit)) throw ProofError(what + " by " + shown(difference) + "; valid: up to " + shown(limit));
}

}  // namespace

Proof verify(Model& model, const std::filesystem::path& artifact) {
    const auto [limit, pictures] = read_golden(artifact.string() + ".golden.json", model.spec());
    std::vector<std::uint8_t> batch;
    std::vector<float> expected, singles;
    for (const Golden& golden : pictures) {
        const auto pixels = pixels_from_bytes(golden.png, model.spec().image_size);
        if (!std::equal(pixels.begin(), pixels.end(), golden.pixels.begin(), golden.pixels.end(),
                        [](std::uint8_t a, char b) { return a == static_cast<std::uint8_t>(b); })) {
            throw ProofError("a golden picture decodes to other pixels");
        }
        const auto logits = model.logits(pixels.data(), 1);
        const std::size_t best = index_of_best(logits), known = index_of_best(golden.logits);
        const auto& ids = model.spec().class_ids;
        if (ids[known] != golden.label) throw ProofError("a golden picture's label is not that of its logits");
        // A tie: each of the two may be off by the limit, so another machine's rounding may put either first.
        const double lead = static_cast<double>(golden.logits[known]) - golden.logits[best];
        if (!(lead <= 2 * limit)) throw ProofError("a picture of " + ids[known] + " is answered " + ids[best]);
        batch.insert(batch.end(), pixels.begin(), pixels.end());
        singles.insert(singles.end(), logits.begin(), logits.end());
        expected.insert(expected.end(), golden.logits.begin(), golden.logits.end());
    }
    const double difference = rms_difference(singles, expected);
    require_within(limit, difference, "the answers differ from the known ones");
    const auto together = model.logits(batch.data(), pictures.size());
    require_within(limit, rms_difference(together, singles), "the answers to a batch differ from those one by one");
    return {pictures.size(), difference, limit};
}
