#include "picture.hpp"

#include <algorithm>
#include <climits>
#include <cmath>
#include <cstring>
#include <initializer_list>
#include <iterator>
#include <memory>
#include <string>
#include <utility>

#include "errors.hpp"

#include <turbojpeg.h>

// PNG alone: stb's decoder of JPEGs is not hardened, and makes other pixels than libjpeg.
#define STBI_ONLY_PNG
#define STBI_NO_STDIO
#define STB_IMAGE_STATIC
#define STB_IMAGE_IMPLEMENTATION
#if defined(__GNUC__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-function"
#endif
#include <stb_image.h>
#if defined(__GNUC__)
#pragma GCC diagnostic pop
#endif

namespace {

using namespace std::string_view_literals;
using Bytes = std::vector<std::uint8_t>;

constexpr auto jpeg_start = "\xff\xd8"sv, png_start = "\x89PNG\r\n\x1a\n"sv;

// A picture that claims more is refused before its pixels are decoded: a decompression bomb, or a mistake.
constexpr std::int64_t max_pixels = 100'000'000;
constexpr int channels = 3;

struct Picture {
    int width, height;
    Bytes pixels;  // RGB, row by row
};

std::string sides(int width, int height) { return std::to_string(width) + "x" + std::to_string(height); }

// ---- EXIF: decoders give the pixels as they are stored, and cameras store them as they were held.

// Numbers of 1 to 4 bytes; 0 beyond the end, which no orientation is.
std::uint32_t number_at(std::string_view bytes, std::size_t at, std::size_t count, bool little) {
    if (at > bytes.size() || count > bytes.size() - at) return 0;
    std::uint32_t value = 0;
    for (std::size_t i = 0; i < count; ++i) {
        value = value << 8 | static_cast<unsigned char>(bytes[at + (little ? count - 1 - i : i)]);
    }
    return value;
}

// The orientation, 1 to 8, in a TIFF header with its first directory; 1, upright, where it says nothing valid.
int orientation_in_tiff(std::string_view tiff) {
    const bool little = tiff.substr(0, 2) == "II";
    if (!little && tiff.substr(0, 2) != "MM") return 1;
    const std::size_t directory = number_at(tiff, 4, 4, little);
    const std::size_t entries = number_at(tiff, directory, 2, little);
    for (std::size_t entry = directory + 2; entry < directory + 2 + entries * 12; entry += 12) {
        if (number_at(tiff, entry, 2, little) != 0x0112) continue;
        const std::uint32_t value = number_at(tiff, entry + 8, 2, little);
        return 1 <= value && value <= 8 ? static_cast<int>(value) : 1;
    }
    return 1;
}

int orientation_of(std::string_view encoded) {
    constexpr auto exif = "Exif\0\0"sv;
    if (encoded.substr(0, jpeg_start.size()) == jpeg_start) {  // a JPEG's segments, up to its pixels
        for (std::size_t at = 2; number_at(encoded, at, 1, false) == 0xff;) {
            const std::uint32_t marker = number_at(encoded, at + 1, 1, false);
            const std::uint32_t size = number_at(encoded, at + 2, 2, false);  // counts its own two bytes
            if (marker == 0xda || size < 2) break;
            at += 4;
            if (at > encoded.size()) break;
            const std::string_view segment = encoded.substr(at, size - 2);
            if (marker == 0xe1 && segment.substr(0, exif.size()) == exif) {
                return orientation_in_tiff(segment.substr(exif.size()));
            }
            at += size - 2;
        }
    } else if (encoded.substr(0, png_start.size()) == png_start) {  // chunks of size, name, content, checksum
        for (std::size_t at = 8; at + 12 <= encoded.size();) {
            const std::size_t size = number_at(encoded, at, 4, false);
            if (encoded.substr(at + 4, 4) == "eXIf"sv) return orientation_in_tiff(encoded.substr(at + 8, size));
            at += 12 + size;
        }
    }
    return 1;
}

Picture upright(Picture stored, int orientation) {
    if (orientation == 1) return stored;
    const auto is_one_of = [&](std::initializer_list<int> values) {
        return std::find(values.begin(), values.end(), orientation) != values.end();
    };
    const bool swapped = orientation >= 5;
    const bool right_to_left = is_one_of({2, 3, 7, 8}), bottom_up = is_one_of({3, 4, 6, 7});
    Picture turned{stored.width, stored.height, Bytes(stored.pixels.size())};
    if (swapped) std::swap(turned.width, turned.height);
    std::uint8_t* to = turned.pixels.data();
    for (int y = 0; y < turned.height; ++y) {
        for (int x = 0; x < turned.width; ++x, to += channels) {
            int column = swapped ? y : x, row = swapped ? x : y;
            if (right_to_left) column = stored.width - 1 - column;
            if (bottom_up) row = stored.height - 1 - row;
            const auto from = static_cast<std::size_t>(row) * stored.width + column;
            std::memcpy(to, &stored.pixels[from * channels], channels);
        }
    }
    return turned;
}

// ---- Decoding

void refuse_huge(int width, int height) {
    if (static_cast<std::int64_t>(width) * height > max_pixels) {
        throw InputError("it has " + sides(width, height) + " pixels; valid: up to " + std::to_string(max_pixels));
    }
}

// libjpeg-turbo, which Pillow uses too: the same pixels.
Picture decoded_jpeg(std::string_view encoded) {
    const std::unique_ptr<void, decltype(&tjDestroy)> decoder(tjInitDecompress(), tjDestroy);
    const auto* bytes = reinterpret_cast<const unsigned char*>(encoded.data());
    Picture picture{};
    int subsampling = 0, colors = 0;
    if (tjDecompressHeader3(decoder.get(), bytes, encoded.size(), &picture.width, &picture.height, &subsampling,
                            &colors) != 0) {
        throw InputError(std::string("it is not a readable JPEG: ") + tjGetErrorStr2(decoder.get()));
    }
    refuse_huge(picture.width, picture.height);
    picture.pixels.resize(static_cast<std::size_t>(picture.width) * picture.height * channels);
    if (tjDecompress2(decoder.get(), bytes, encoded.size(), picture.pixels.data(), picture.width, 0, picture.height,
                      TJPF_RGB, TJFLAG_ACCURATEDCT) != 0) {
        // Cameras write files that draw a warning and are whole; what is cut short is filled with gray, and is none.
        const std::string reason = tjGetErrorStr2(decoder.get());
        const bool whole = tjGetErrorCode(decoder.get()) == TJERR_WARNING && reason.find("remature") == reason.npos;
        if (!whole) throw InputError("it is not a readable JPEG: " + reason);
    }
    return picture;
}

// stb makes RGB of gray and palettes, drops alpha and keeps the high byte of 16 bits, as Pillow does.
Picture decoded_png(std::string_view encoded) {
    const auto* bytes = reinterpret_cast<const stbi_uc*>(encoded.data());
    const int size = static_cast<int>(encoded.size());
    int width = 0, height = 0, stored_channels = 0;
    if (!stbi_info_from_memory(bytes, size, &width, &height, &stored_channels)) {
        throw InputError(std::string("it is not a readable PNG: ") + stbi_failure_reason());
    }
    refuse_huge(width, height);
    const std::unique_ptr<stbi_uc, decltype(&stbi_image_free)> pixels(
        stbi_load_from_memory(bytes, size, &width, &height, &stored_channels, channels), stbi_image_free);
    if (!pixels) throw InputError(std::string("it is not a readable PNG: ") + stbi_failure_reason());
    return {width, height, Bytes(pixels.get(), pixels.get() + static_cast<std::size_t>(width) * height * channels)};
}

Picture decoded(std::string_view encoded) {
    if (encoded.empty()) throw InputError("it is empty");
    if (encoded.size() > INT_MAX) throw InputError("it has more than 2 GiB");
    if (encoded.substr(0, jpeg_start.size()) == jpeg_start) return decoded_jpeg(encoded);
    if (encoded.substr(0, png_start.size()) == png_start) return decoded_png(encoded);
    throw InputError("it is neither a JPEG nor a PNG");
}

// ---- Pillow's bicubic resize of 8-bit channels (libImaging/Resample.c), sideways and then down, bit for bit

constexpr int weight_bits = 32 - 8 - 2;

double bicubic(double x) {
    constexpr double a = -0.5;
    x = std::fabs(x);
    if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
    if (x < 2) return (((x - 5) * x + 8) * x - 4) * a;
    return 0;
}

// What one pixel of the result is made of.
struct Window {
    int first;                 // pixel of the source that counts
    std::vector<int> weights;  // of that and the following ones, in units of 2^-weight_bits
};

// One axis of the resize.
struct Axis {
    int first, end;               // the pixels of the source that count
    std::vector<Window> windows;  // from `first` on
};

// For the `size` pixels in the middle of a side that goes from `from` to `to` pixels: what the crop would drop is never
// computed. Where nothing changes the weights are 1, so that the pass, which Pillow leaves out there, changes nothing.
Axis middle_of(int from, double to, int size) {
    const double scale = from / to, filter_scale = std::max(scale, 1.0), support = 2 * filter_scale;
    const double inverse = 1 / filter_scale, offset = std::floor((to - size) / 2);
    Axis axis{};
    for (int i = 0; i < size; ++i) {
        const double center = (offset + i + 0.5) * scale;
        const int first = static_cast<int>(std::max(center - support + 0.5, 0.0));
        const int end = static_cast<int>(std::min(center + support + 0.5, static_cast<double>(from)));
        std::vector<double> exact;
        double sum = 0;
        for (int x = first; x < end; ++x) {
            exact.push_back(bicubic((x - center + 0.5) * inverse));
            sum += exact.back();
        }
        if (i == 0) axis.first = first;
        axis.end = end;
        Window window{first - axis.first, {}};
        for (const double weight : exact) {
            const double share = sum != 0 ? weight / sum : weight;
            window.weights.push_back(static_cast<int>((share < 0 ? -0.5 : 0.5) + share * (1 << weight_bits)));
        }
        axis.windows.push_back(std::move(window));
    }
    return axis;
}

constexpr int half = 1 << (weight_bits - 1);

std::uint8_t rounded(int sum) { return static_cast<std::uint8_t>(std::clamp(sum >> weight_bits, 0, 255)); }

// A part of a picture.
struct View {
    const std::uint8_t* pixels;
    std::size_t stride;  // bytes from row to row
    int width, height;
};

View whole(const Picture& picture) {
    return {picture.pixels.data(), static_cast<std::size_t>(picture.width) * channels, picture.width, picture.height};
}

Picture resized_sideways(const View& source, const std::vector<Window>& windows) {
    Picture result{static_cast<int>(windows.size()), source.height, {}};
    result.pixels.reserve(windows.size() * source.height * channels);
    for (int y = 0; y < source.height; ++y) {
        const std::uint8_t* row = source.pixels + y * source.stride;
        for (const Window& window : windows) {
            const std::uint8_t* pixel = row + static_cast<std::size_t>(window.first) * channels;
            int red = half, green = half, blue = half;
            for (const int weight : window.weights) {
                red += weight * pixel[0];
                green += weight * pixel[1];
                blue += weight * pixel[2];
                pixel += channels;
            }
            result.pixels.insert(result.pixels.end(), {rounded(red), rounded(green), rounded(blue)});
        }
    }
    return result;
}

Picture resized_downwards(const View& source, const std::vector<Window>& windows) {
    Picture result{source.width, static_cast<int>(windows.size()), {}};
    const std::size_t bytes = static_cast<std::size_t>(source.width) * channels;
    result.pixels.reserve(windows.size() * bytes);
    std::vector<int> sums(bytes);
    for (const Window& window : windows) {
        std::fill(sums.begin(), sums.end(), half);
        const std::uint8_t* row = source.pixels + window.first * source.stride;
        for (const int weight : window.weights) {
            for (std::size_t i = 0; i < bytes; ++i) sums[i] += weight * row[i];
            row += source.stride;
        }
        std::transform(sums.begin(), sums.end(), std::back_inserter(result.pixels), rounded);
    }
    return result;
}

}  // namespace

Bytes pixels_from_bytes(std::string_view encoded, int size) {
    const Picture picture = upright(decoded(encoded), orientation_of(encoded));
    const double scale = static_cast<double>(size) / std::min(picture.width, picture.height);
    // Half to even, as Python rounds.
    const auto scaled = [&](int side) { return std::max<double>(size, std::nearbyint(side * scale)); };
    const double width = scaled(picture.width), height = scaled(picture.height);
    if (width * height > max_pixels) throw InputError("it is too narrow: " + sides(picture.width, picture.height));
    const Axis columns = middle_of(picture.width, width, size), rows = middle_of(picture.height, height, size);
    View needed = whole(picture);
    needed.pixels += rows.first * needed.stride + static_cast<std::size_t>(columns.first) * channels;
    needed.width = columns.end - columns.first;
    needed.height = rows.end - rows.first;
    // In this order: each step rounds to bytes.
    return resized_downwards(whole(resized_sideways(needed, columns.windows)), rows.windows).pixels;
}
