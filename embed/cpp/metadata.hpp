// What an exported file says of itself.
#pragma once

#include <string>
#include <string_view>
#include <vector>

struct Spec {
    int image_size;                        // height and width of the pictures it takes
    std::vector<std::string> class_ids;    // WordNet ids or folder names, in the order of the outputs
    std::vector<std::string> class_names;  // what a person reads, in the same order
};

struct Metadata {
    Spec spec;
    std::string precision;  // of the stored weights: fp32, fp16, bf16, int8
    std::string target;     // what an int8 file is laid out for: cpu, cuda, tensorrt; else empty
};

// Of the bytes of an ONNX file. Throws InputError, without the file's name, unless tinyres made it to take pictures.
Metadata metadata_from_onnx(std::string_view content);

// Of its JSON alone, as it stands in the ONNX file and in an engine's passport. Throws InputError.
Metadata metadata_from_json(std::string_view text);
