#include "metadata.hpp"

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>

#include "errors.hpp"

namespace {

constexpr int newest_schema = 1;
// Fields of ModelProto and StringStringEntryProto in onnx.proto.
constexpr std::uint64_t metadata_props = 14, entry_key = 1, entry_value = 2;

// Walks over the fields of a serialized protobuf message: the few needed here do not call for the library.
class Fields {
public:
    explicit Fields(std::string_view message) : rest_(message) {}

    struct Field {
        std::uint64_t number;
        std::string_view bytes;  // empty unless the field is a string or a message
    };

    std::optional<Field> next() {
        if (rest_.empty()) return std::nullopt;
        const std::uint64_t key = varint();
        switch (key & 7) {
            case 0: varint(); return Field{key >> 3, {}};
            case 1: take(8); return Field{key >> 3, {}};
            case 2: return Field{key >> 3, take(varint())};
            case 5: take(4); return Field{key >> 3, {}};
            default: throw InputError("it is not an ONNX model");
        }
    }

private:
    std::string_view take(std::uint64_t size) {
        if (size > rest_.size()) throw InputError("it is not an ONNX model, or it is cut short");
        const std::string_view taken = rest_.substr(0, size);
        rest_.remove_prefix(size);
        return taken;
    }

    std::uint64_t varint() {
        std::uint64_t value = 0;
        for (int shift = 0; shift < 64; shift += 7) {
            const auto byte = static_cast<unsigned char>(take(1)[0]);
            value |= static_cast<std::uint64_t>(byte & 127) << shift;
            if (byte < 128) return value;
        }
        throw InputError("it is not an ONNX model");
    }

    std::string_view rest_;
};

}  // namespace

Metadata metadata_from_onnx(std::string_view content) {
    std::optional<std::string_view> found;
    // To the end of the file, so that one that is cut short is seen.
    for (Fields model(content); const auto field = model.next();) {
        if (field->number != metadata_props) continue;
        std::string_view key, value;
        for (Fields entry(field->bytes); const auto part = entry.next();) {
            if (part->number == entry_key) key = part->bytes;
            if (part->number == entry_value) value = part->bytes;
        }
        if (key == "tinyres") found = value;
    }
    if (!found) throw InputError("it carries no tinyres metadata: it was not exported by tinyres");
    return metadata_from_json(*found);
}

Metadata metadata_from_json(std::string_view text) {
    try {
        const auto json = nlohmann::json::parse(text);
        if (json.at("schema").get<int>() > newest_schema) throw InputError("it was made by a newer tinyres");
        if (json.at("input") != "image") {
            throw InputError("it takes float tensors, not pictures: export it with --input image");
        }
        const auto& spec = json.at("spec");
        Metadata metadata{
            {spec.at("preprocess").at("image_size"), spec.at("class_ids"), spec.at("class_names")},
            json.at("precision"),
            json.contains("target") && json["target"].is_string() ? json["target"] : "",
        };
        const auto& [image_size, ids, names] = metadata.spec;
        if (image_size < 8 || image_size > 512 || ids.size() < 2 || ids.size() != names.size()) {
            throw InputError("its tinyres metadata does not fit together");
        }
        return metadata;
    } catch (const nlohmann::json::exception& error) {
        throw InputError(std::string("its tinyres metadata is damaged: ") + error.what());
    }
}
