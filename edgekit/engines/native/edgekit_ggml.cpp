// A small program beside llama-server in a pack: what ggml sees, and whether its arithmetic is right.
//
//   edgekit-ggml devices      every device as one JSON object per line, sizes in bytes
//   edgekit-ggml try LIBRARY  compute with the CPU backend in LIBRARY; status 0 when all is right
//
// `try` runs in a child because a level that the processor, or what virtualises it, does not really
// have ends in SIGILL. Products of quantised matrices are compared with a plain sum in doubles; the
// bound on the error is that of ggml's own tests/test-backend-ops.cpp.

#include "ggml.h"
#include "ggml-alloc.h"
#include "ggml-backend.h"

#include <cinttypes>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <string>
#include <vector>

static const double MAX_ERROR = 5e-4; // of the mean square, relative
static const int64_t WIDTH = 512, ROWS = 24;

static std::string quoted(const char * text) {
    std::string out = "\"";
    for (const char * c = text; *c; ++c) {
        if (*c == '"' || *c == '\\') out += '\\';
        out += (unsigned char) *c < 0x20 ? ' ' : *c;
    }
    return out + "\"";
}

static int devices() {
    ggml_backend_load_all();
    // The levels of the processor's arithmetic lie apart, where the server does not look for them.
    std::error_code failed;
    const auto program = std::filesystem::read_symlink("/proc/self/exe", failed);
    const std::string levels = (program.parent_path() / "cpu").string();
    if (!failed && std::filesystem::is_directory(levels, failed)) {
        ggml_backend_load_all_from_path(levels.c_str());
    }
    const char * kinds[] = { "cpu", "gpu", "igpu", "accel", "meta" };
    for (size_t i = 0; i < ggml_backend_dev_count(); ++i) {
        ggml_backend_dev_t dev = ggml_backend_dev_get(i);
        size_t free = 0, total = 0;
        ggml_backend_dev_memory(dev, &free, &total);
        const int type = (int) ggml_backend_dev_type(dev);
        printf("{\"name\": %s, \"description\": %s, \"type\": \"%s\", \"free\": %zu, \"total\": %zu}\n",
               quoted(ggml_backend_dev_name(dev)).c_str(),
               quoted(ggml_backend_dev_description(dev)).c_str(),
               type >= 0 && type < 5 ? kinds[type] : "other", free, total);
    }
    return 0;
}

static float value(uint32_t & state) { // the same numbers everywhere, between -1 and 1
    state = state * 1664525u + 1013904223u;
    return (float) ((state >> 8) / 8388608.0 - 1.0);
}

// The error of one product, or a negative number when it could not be computed.
static double error_of(ggml_backend_t backend, ggml_type type, int64_t columns) {
    uint32_t state = 20260101u + (uint32_t) type;
    std::vector<float> weights(WIDTH * ROWS), input(WIDTH * columns), exact(WIDTH * ROWS);
    for (float & w : weights) w = value(state);
    for (float & x : input) x = value(state);
    std::vector<char> stored(ggml_row_size(type, WIDTH) * ROWS);
    if (type == GGML_TYPE_F32) {
        memcpy(stored.data(), weights.data(), stored.size());
        exact = weights;
    } else {
        ggml_quantize_chunk(type, weights.data(), stored.data(), 0, ROWS, WIDTH, nullptr);
        for (int64_t row = 0; row < ROWS; ++row) {
            ggml_get_type_traits(type)->to_float(stored.data() + row * ggml_row_size(type, WIDTH),
                                                 exact.data() + row * WIDTH, WIDTH);
        }
    }
    ggml_init_params params = { ggml_tensor_overhead() * 16 + ggml_graph_overhead(), nullptr, true };
    ggml_context * ctx = ggml_init(params);
    ggml_tensor * w = ggml_new_tensor_2d(ctx, type, WIDTH, ROWS);
    ggml_tensor * x = ggml_new_tensor_2d(ctx, GGML_TYPE_F32, WIDTH, columns);
    ggml_tensor * product = ggml_mul_mat(ctx, w, x);
    ggml_cgraph * graph = ggml_new_graph(ctx);
    ggml_build_forward_expand(graph, product);
    ggml_backend_buffer_t buffer = ggml_backend_alloc_ctx_tensors(ctx, backend);
    double error = -1;
    if (buffer) {
        ggml_backend_tensor_set(w, stored.data(), 0, ggml_nbytes(w));
        ggml_backend_tensor_set(x, input.data(), 0, ggml_nbytes(x));
        if (ggml_backend_graph_compute(backend, graph) == GGML_STATUS_SUCCESS) {
            std::vector<float> found(ROWS * columns);
            ggml_backend_tensor_get(product, found.data(), 0, ggml_nbytes(product));
            double off = 0, size = 0;
            for (int64_t c = 0; c < columns; ++c) {
                for (int64_t r = 0; r < ROWS; ++r) {
                    double sum = 0;
                    for (int64_t k = 0; k < WIDTH; ++k) {
                        sum += (double) exact[r * WIDTH + k] * input[c * WIDTH + k];
                    }
                    const double difference = found[c * ROWS + r] - sum;
                    off += difference * difference;
                    size += sum * sum;
                }
            }
            error = off / size;
        }
        ggml_backend_buffer_free(buffer);
    }
    ggml_free(ctx);
    return error;
}

static int try_library(const char * path) {
    ggml_backend_reg_t reg = ggml_backend_load(path);
    if (!reg || ggml_backend_reg_dev_count(reg) == 0) {
        fprintf(stderr, "edgekit-ggml: %s does not run on this processor\n", path);
        return 3;
    }
    ggml_backend_t backend = ggml_backend_dev_init(ggml_backend_reg_dev_get(reg, 0), nullptr);
    if (!backend) return 3;
    const ggml_type types[] = { GGML_TYPE_F32, GGML_TYPE_F16, GGML_TYPE_BF16, GGML_TYPE_Q8_0,
                                GGML_TYPE_Q4_0, GGML_TYPE_Q5_1, GGML_TYPE_Q4_K, GGML_TYPE_Q6_K };
    for (ggml_type type : types) {
        for (int64_t columns : { (int64_t) 1, (int64_t) 33 }) {
            const double error = error_of(backend, type, columns);
            if (!(error >= 0 && error <= MAX_ERROR)) { // also for what is not a number
                fprintf(stderr, "edgekit-ggml: %s: product of %s by %" PRId64 " is wrong by %g\n",
                        path, ggml_type_name(type), columns, error);
                return 4;
            }
        }
    }
    ggml_backend_free(backend);
    return 0;
}

int main(int argc, char ** argv) {
    if (argc == 2 && !strcmp(argv[1], "devices")) return devices();
    if (argc == 3 && !strcmp(argv[1], "try")) return try_library(argv[2]);
    fprintf(stderr, "usage: edgekit-ggml devices | try LIBRARY\n");
    return 2;
}
