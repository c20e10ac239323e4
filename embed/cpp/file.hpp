#pragma once

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

#include "errors.hpp"

// The bytes of a file. Throws InputError.
inline std::string read_file(const std::filesystem::path& path) {
    if (std::filesystem::is_directory(path)) throw InputError("cannot read " + path.string() + ": it is a folder");
    std::ifstream file(path, std::ios::binary);
    if (!file) throw InputError("cannot read " + path.string() + ": " + std::strerror(errno));
    return {std::istreambuf_iterator<char>(file), {}};
}
