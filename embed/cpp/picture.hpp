// An encoded picture becomes the pixels that a model takes, as tinyres does it in Python with Pillow.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

// Decode a JPEG, PNG or BMP to (size, size, 3) RGB: upright, short side to `size` by bicubic, centre crop.
// Throws InputError that says what is wrong with it.
std::vector<std::uint8_t> pixels_from_bytes(std::string_view encoded, int size);
