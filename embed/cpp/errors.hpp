// What can go wrong, and the exit code that says so.
#pragma once

#include <cstdio>
#include <exception>
#include <stdexcept>

// What was given is not usable: a command line, a model's file, a picture.
struct InputError : std::runtime_error {
    using std::runtime_error::runtime_error;
};

// The model does not answer as it did when it was exported.
struct ProofError : std::runtime_error {
    using std::runtime_error::runtime_error;
};

inline int report(const std::exception& error, int code) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return code;
}

// The exit code of a program's work: what it returns, or 2 for bad input, 3 for a failed proof, 1 for anything else.
template <class Work>
int exit_code_of(Work work) {
    try {
        return work();
    } catch (const InputError& error) {
        return report(error, 2);
    } catch (const ProofError& error) {
        return report(error, 3);
    } catch (const std::exception& error) {
        return report(error, 1);
    }
}
