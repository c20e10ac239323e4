// classify MODEL PICTURE...    the five most probable classes of each picture
// classify MODEL --verify      prove MODEL again on this machine
#include <cstdio>
#include <string>
#include <vector>

#include "answer.hpp"
#include "errors.hpp"
#include "file.hpp"
#include "model.hpp"
#include "picture.hpp"
#include "verify.hpp"

namespace {

void print_proof(Model& model, const std::string& artifact) {
    const Proof proof = verify(model, artifact);
    std::printf("proven: %zu golden pictures, logits within %.2g of %.2g\n", proof.pictures, proof.difference,
                proof.limit);
}

void print_answer(Model& model, const std::string& path) {
    const auto pixels = pixels_from_bytes(read_file(path), model.spec().image_size);
    const auto best = best_guesses(model.logits(pixels.data(), 1), model.spec());
    std::printf("%s\n", path.c_str());
    for (const Guess& guess : best) std::printf("  %5.1f%%  %s\n", guess.probability * 100, guess.name.c_str());
}

int run(const std::vector<std::string>& words) {
    const bool verifying = words.size() == 2 && words[1] == "--verify";
    if (words.size() < 2 || (!verifying && words[1].substr(0, 2) == "--")) {
        throw InputError("usage: classify MODEL PICTURE... | classify MODEL --verify");
    }
    const auto model = open_model(words[0], Callers::one);
    if (verifying) {
        print_proof(*model, words[0]);
        return 0;
    }
    int code = 0;
    for (std::size_t i = 1; i < words.size(); ++i) {
        try {
            print_answer(*model, words[i]);
        } catch (const InputError& error) {  // a bad picture costs only itself
            code = report(InputError(words[i] + ": " + error.what()), 2);
        }
    }
    return code;
}

}  // namespace

int main(int count, char** words) {
    return exit_code_of([&] { return run({words + 1, words + count}); });
}
