// serve MODEL [--port 8080] [--host 127.0.0.1]
// POST /classify with a picture's bytes as the body; GET /health. After the start nothing touches the disk.
#include <httplib.h>
#include <pthread.h>
#include <signal.h>

#include <cstdio>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <vector>

#include "answer.hpp"
#include "errors.hpp"
#include "model.hpp"
#include "picture.hpp"

namespace {

using nlohmann::json;

constexpr std::size_t max_body_bytes = 32 << 20;

struct Options {
    std::string model;
    std::string host = "127.0.0.1";
    int port = 8080;  // 0 takes a free one
};

int port_from(const std::string& text) {
    const bool digits = !text.empty() && text.size() <= 5 && text.find_first_not_of("0123456789") == text.npos;
    if (!digits || std::stoi(text) > 65535) throw InputError("the port is " + text + "; valid: 0 to 65535");
    return std::stoi(text);
}

Options parse(const std::vector<std::string>& words) {
    const InputError usage("usage: serve MODEL [--port 8080] [--host 127.0.0.1]");
    Options options;
    for (std::size_t i = 0; i < words.size(); ++i) {
        const bool has_value = i + 1 < words.size();
        if (words[i] == "--port" && has_value) {
            options.port = port_from(words[++i]);
        } else if (words[i] == "--host" && has_value) {
            options.host = words[++i];
        } else if (options.model.empty() && words[i].substr(0, 2) != "--") {
            options.model = words[i];
        } else {
            throw usage;
        }
    }
    if (options.model.empty()) throw usage;
    return options;
}

void answer(httplib::Response& response, int status, const json& body) {
    response.status = status;
    // A library's message may hold bytes that are no UTF-8.
    response.set_content(body.dump(-1, ' ', false, json::error_handler_t::replace), "application/json");
}

void classify(Model& model, const httplib::Request& request, httplib::Response& response,
              const httplib::ContentReader& read) {
    if (request.is_multipart_form_data()) {
        return answer(response, 400, {{"error", "send the picture itself as the body: curl --data-binary @FILE"}});
    }
    // Counted here too: a compressed body is larger than its Content-Length.
    std::string body;
    bool too_large = false;
    const bool complete = read([&](const char* part, std::size_t size) {
        too_large = body.size() + size > max_body_bytes;
        if (!too_large) body.append(part, size);
        return !too_large;
    });
    if (too_large || response.status == 413) {
        return answer(response, 413, {{"error", "the picture has more than 32 MB"}});
    }
    if (!complete) return answer(response, 400, {{"error", "the body did not arrive"}});
    try {
        const auto pixels = pixels_from_bytes(body, model.spec().image_size);
        json best = json::array();
        for (const Guess& guess : best_guesses(model.logits(pixels.data(), 1), model.spec())) {
            best.push_back({{"id", guess.id}, {"name", guess.name}, {"probability", guess.probability}});
        }
        answer(response, 200, {{"best", best}});
    } catch (const InputError& error) {
        answer(response, 400, {{"error", error.what()}});
    } catch (const std::exception& error) {
        answer(response, 500, {{"error", error.what()}});
    }
}

int run(const std::vector<std::string>& words) {
    const Options options = parse(words);
    // Before any thread starts, so that all of them leave the signals to the one that waits for them.
    sigset_t ending;
    sigemptyset(&ending);
    sigaddset(&ending, SIGINT);
    sigaddset(&ending, SIGTERM);
    pthread_sigmask(SIG_BLOCK, &ending, nullptr);

    const auto model = open_model(options.model, Callers::many);
    httplib::Server server;
    server.set_payload_max_length(max_body_bytes);
    // Not SO_REUSEPORT, the library's default: a second server on the port must fail, not share its requests.
    server.set_socket_options([](int socket) {
        const int yes = 1;
        setsockopt(socket, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    });
    server.Get("/health", [](const httplib::Request&, httplib::Response& response) {
        answer(response, 200, {{"status", "ok"}});
    });
    server.Post("/classify", [&](const httplib::Request& request, httplib::Response& response,
                                 const httplib::ContentReader& read) { classify(*model, request, response, read); });

    int port = options.port;
    if (port == 0) {
        port = server.bind_to_any_port(options.host);
    } else if (!server.bind_to_port(options.host, port)) {
        port = -1;
    }
    if (port < 0) throw InputError("cannot listen on " + options.host + ":" + std::to_string(options.port));
    std::thread([&server, ending] {
        int signal = 0;
        sigwait(&ending, &signal);
        // stop() does nothing to a server that does not run yet.
        while (!server.is_running()) std::this_thread::yield();
        server.stop();
    }).detach();
    std::printf("serving %s on http://%s:%d\n", std::filesystem::path(options.model).filename().c_str(),
                options.host.c_str(), port);
    std::fflush(stdout);
    if (!server.listen_after_bind()) throw std::runtime_error("the server stopped listening");
    return 0;
}

}  // namespace

int main(int count, char** words) {
    return exit_code_of([&] { return run({words + 1, words + count}); });
}
