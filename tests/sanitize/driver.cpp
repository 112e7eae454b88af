// Drives the CPU engine for the compiler's sanitizers, over arrays of exactly their size. It covers printed cells,
// forward and backward, odd sizes, boundaries, an own input, packed weights, several threads and callers, and too
// little memory. It also covers bfloat16 as storage and in products, emulated as on a machine without such a unit,
// against float32.

#include "standard_headers.h"

#include <climits>
#include <cstdio>
#include <thread>

#ifndef SEQCELLS_VECTOR_BYTES
#define SEQCELLS_VECTOR_BYTES 16
#define SEQCELLS_VECTOR_REGISTERS 16
#endif
#include "arrays.h"
#include "directions.h"
#include "driven.h"
#include "gemm.h"
#include "loop.h"

// How many more of the engine's allocations succeed. The linker puts this function in place of the system's. Fresh
// memory is filled with NaN, so unwritten memory shows.
std::atomic<int> granted{INT_MAX};
extern "C" void* __real_aligned_alloc(size_t alignment, size_t bytes);
extern "C" void* __wrap_aligned_alloc(size_t alignment, size_t bytes) {
    void* memory = granted-- > 0 ? __real_aligned_alloc(alignment, bytes) : nullptr;
    return memory ? std::memset(memory, 0xff, bytes) : nullptr;
}

using namespace seqcells;

namespace {

constexpr int THREADS = 3;

thread_local unsigned state = 1;
unsigned next() { return state = state * 1664525u + 1013904223u, state >> 8; }

std::atomic<int> failures{0};
void expect(bool holds, const std::string& of, const std::string& what) {
    if (!holds) std::printf("failed: %s: %s\n", of.c_str(), what.c_str()), ++failures;
}

// Exactly `count` random numbers of T, or of bfloat16 in place of T.
template <class T>
class Numbers {
  public:
    explicit Numbers(int64_t count = 0, bool halves = false) : halves_(halves), of_t_(halves ? 0 : count), of_halves_(halves ? count : 0) {
        for (int64_t k = 0; k < count; ++k) set(k, float(next() % 2000) / 1000 - 1);
    }
    int64_t size() const { return int64_t(of_t_.size() + of_halves_.size()); }
    double operator[](int64_t k) const { return halves_ ? double(of_halves_[k]) : double(of_t_[k]); }
    void fill(float value) {
        for (int64_t k = 0; k < size(); ++k) set(k, value);
    }
    // The address of number `k`; null for an empty array.
    const void* at(int64_t k = 0) const {
        if (!size()) return nullptr;
        return halves_ ? static_cast<const void*>(&of_halves_[k]) : &of_t_[k];
    }
    bool finite() const {
        for (int64_t k = 0; k < size(); ++k)
            if (!std::isfinite((*this)[k])) return false;
        return true;
    }

  private:
    void set(int64_t k, float value) {
        if (halves_)
            of_halves_[k] = value;
        else
            of_t_[k] = T(value);
    }
    bool halves_;
    std::vector<T> of_t_;
    std::vector<bfloat16> of_halves_;
};

// Whether a kernel fails with an error while too few allocations succeed, and succeeds in the end.
bool scarce = true;
template <class Kernel>
bool succeeds(Kernel kernel) {
    int status = -1;
    for (int grant = 0; scarce && status && grant < 40; ++grant) granted = grant, status = kernel();
    granted = INT_MAX;
    return (scarce ? status : kernel()) == 0;
}

struct Case {
    bool lengths, reset, fresh;  // whether sequences end, are reset, and are reset to given states
    bool reverse;                // the first direction is reversed; a second one goes the other way
    int directions;
    bool biases;                 // whether the biases' gradients are wanted
};
constexpr Case CASES[] = {{false, false, false, false, 1, true}, {true, false, false, true, 1, false}, {false, true, true, false, 1, true},
                          {false, false, false, false, 2, false}, {true, true, false, false, 2, true}, {true, true, true, false, 2, false}};

// A layer of a cell, computed in T with products of O; its arrays are of T or of bfloat16.
template <class Cell, class T, class O>
class Layer {
  public:
    Layer(const char* name, int64_t steps, int64_t batch, int64_t hidden, const Case& given, bool halves)
        : name_(described(name, steps, batch, hidden, given, halves)), steps_(steps), batch_(batch), is_(given), halves_(halves), sizes_(sizes_for(hidden)),
          used_{arrays_of<typename Cell::Forward>(sizes_), arrays_of<typename Cell::Backward>(sizes_)}, memory_(given.directions),
          lengths_(batch), reset_(steps * batch) {
        for (auto& length : lengths_) length = next() % (steps + 1);
        for (auto& flag : reset_) flag = next() % 3 == 0;
        for (const Arrays& arrays : used_)
            for (const auto& [array, wanted] : arrays) {
                const auto [place, is_new] = all_.try_emplace(array, wanted);
                expect(is_new || (place->second.axes == wanted.axes && place->second.working == wanted.working), name_, array + " is one array");
                place->second.width = std::max(place->second.width, wanted.width);
            }
        for (int d = 0; d < is_.directions; ++d)
            for (const auto& [array, wanted] : all_)
                if (home(array, d) == d) memory_[d][array] = Numbers<T>(wanted.rows(steps, batch) * width(array), halves && !wanted.working);
    }

    // Runs the layer in every way, and returns its outputs.
    std::vector<double> drive() {
        run(0, calls(0), "forward");
        std::vector<double> outputs = output();
        run(1, calls(1), "backward");
        std::vector<LayerCall> inference = calls(0);
        for (LayerCall& call : inference) forget(call);
        if (projects<typename Cell::Forward>())
            for (int d = 0; d < is_.directions; ++d) project(inference[d], memory_[d]);
        run(0, inference, "inference");
        const std::vector<double> expected = output();
        outputs.insert(outputs.end(), expected.begin(), expected.end());
        // The same inference with weights that were packed before.
        std::vector<std::vector<char>> packed;
        for (LayerCall& call : inference) {
            packed.emplace_back(Products<T, O>::pack(PASSES[0], call, nullptr));
            Products<T, O>::pack(PASSES[0], call, packed.back().data());
            call.packed = packed.back().data();
        }
        run(0, inference, "packed weights");
        const std::vector<double> found = output();
        for (size_t k = 0; k < found.size(); ++k) expect(std::abs(found[k] - expected[k]) < 1e-2, name_, "packed weights' values");
        return outputs;
    }

  private:
    static constexpr int64_t FEATURES = 5;
    // Static, because a late thread may still read them.
    static inline const Pass PASSES[] = {pass_of<typename Cell::Forward, T>(), pass_of<typename Cell::Backward, T>()};
    using Memory = std::map<std::string, Numbers<T>>;

    static std::string described(const char* name, int64_t steps, int64_t batch, int64_t hidden, const Case& given, bool halves) {
        std::string text = std::string(name) + ": T, B, H, case, halves, bytes of T and O:";
        for (int64_t each : {steps, batch, hidden, int64_t(&given - CASES), int64_t(halves), int64_t(sizeof(T)), int64_t(sizeof(O))})
            text += " " + std::to_string(each);
        return text;
    }
    // H is rounded up to whole heads; other size letters get smaller and larger sizes.
    static Sizes sizes_for(int64_t hidden) {
        const int64_t heads = heads_of<typename Cell::Forward>();
        Sizes sizes{(hidden + heads - 1) / heads * heads};
        for (int k = 1; k < Cell::Forward::letters; ++k) sizes[k] = hidden * (k % 2 ? 2 : 5) / 3 + k;
        return sizes;
    }

    // Arrays that both directions share have the directions side by side, and belong to the first direction.
    static bool is_shared(const std::string& array) {
        return array == "gates_x" || array == "grad_gates_x" || array == "output" || array == "grad_output";
    }
    int home(const std::string& array, int d) const { return is_shared(array) ? 0 : d; }
    int64_t width(const std::string& array) const { return all_.at(array).width * (is_shared(array) ? is_.directions : 1); }

    std::vector<LayerCall> calls(int pass) {
        std::vector<LayerCall> calls(is_.directions);
        for (int d = 0; d < is_.directions; ++d) {
            LayerCall& call = calls[d];
            call.steps = steps_, call.batch = batch_, call.reverse = is_.reverse != bool(d), call.threads = THREADS, call.is_bfloat16 = halves_;
            std::copy(sizes_.begin(), sizes_.end(), call.sizes);
            if (is_.lengths) call.lengths = lengths_.data();
            if (is_.reset) call.reset = reinterpret_cast<const bool*>(reset_.data());
            for (int k = 0; k < PASSES[pass].arrays; ++k) {
                const std::string array = PASSES[pass].names[k];
                if (!used_[pass].count(array)) continue;  // the name of an array that no stage reads
                const bool absent = (!is_.fresh && array.find("reset_state.") != std::string::npos) || (!is_.biases && array.find("grad_bias") == 0);
                call.arrays[k] = absent ? nullptr : memory_[home(array, d)].at(array).at(is_shared(array) ? d * all_.at(array).width : 0);
                call.widths[k] = all_.at(array).over_time() ? width(array) : 0;
            }
        }
        return calls;
    }

    // Leaves out the arrays over all steps that only training needs.
    void forget(LayerCall& call) const {
        for (int k = 0; k < PASSES[0].arrays; ++k) {
            const auto wanted = used_[0].find(PASSES[0].names[k]);
            if (wanted != used_[0].end() && wanted->second.over_time() && wanted->second.working) call.arrays[k] = nullptr;
        }
    }
    // Makes the pass compute gates_x from the input itself.
    void project(LayerCall& call, Memory& own) {
        const auto make = [&](const char* array, int64_t count) { return (own[array] = Numbers<T>(count, halves_)).at(); };
        const int64_t rows = PASSES[0].gates * sizes_[0];
        call.features = FEATURES, call.input = make("input", steps_ * batch_ * FEATURES);
        call.weight_ih = make("weight_ih", rows * FEATURES), call.bias_ih = is_.biases ? make("bias_ih", rows) : nullptr;
        for (int k = 0; k < PASSES[0].arrays; ++k)
            if (!std::strcmp(PASSES[0].names[k], "gates_x")) call.arrays[k] = nullptr;
    }

    // Runs a pass, and checks that it writes finite numbers to all its arrays.
    void run(int pass, const std::vector<LayerCall>& calls, const char* what) {
        const auto each = [&](auto f) {
            for (int d = 0; d < is_.directions; ++d)
                for (int k = 0; k < PASSES[pass].arrays; ++k)
                    if (const std::string array = PASSES[pass].names[k]; calls[d].arrays[k] && used_[pass].at(array).whole)
                        f(array, memory_[home(array, d)].at(array));
        };
        each([](const std::string&, Numbers<T>& numbers) { numbers.fill(NAN); });
        expect(succeeds([&] { return run_directions<Loop<T, O>>(PASSES[pass], calls.data(), is_.directions); }), name_, what);
        each([&](const std::string& array, Numbers<T>& numbers) { expect(numbers.finite(), name_, what + (": " + array)); });
    }
    std::vector<double> output() const {
        const Numbers<T>& numbers = memory_[0].at("output");
        std::vector<double> values(numbers.size());
        for (size_t k = 0; k < values.size(); ++k) values[k] = numbers[k];
        return values;
    }

    const std::string name_;
    const int64_t steps_, batch_;
    const Case is_;
    const bool halves_;
    const Sizes sizes_;
    const Arrays used_[2];  // by forward, by backward
    Arrays all_;
    std::vector<Memory> memory_;
    std::vector<int64_t> lengths_;
    std::vector<unsigned char> reset_;
};

template <class Cell, class T, class O = T>
std::vector<double> drive(const char* name, int64_t steps, int64_t batch, int64_t hidden, const Case& given, bool halves = false) {
    return Layer<Cell, T, O>(name, steps, batch, hidden, given, halves).drive();
}

// The difference between layers of bfloat16 and of float32, over many outputs together, because some rows are chaotic.
struct Difference {
    double far = 0, size = 0;

    // Runs both layers with the same random numbers.
    template <class Cell, class O>
    void drive_halves(const char* name, int64_t steps, int64_t batch, int64_t hidden, const Case& given, bool halves) {
        const unsigned seed = state;
        const auto found = drive<Cell, float, O>(name, steps, batch, hidden, given, halves);
        state = seed;
        const auto exact = drive<Cell, float>(name, steps, batch, hidden, given);
        for (size_t k = 0; k < exact.size(); ++k) far += std::abs(found[k] - exact[k]), size += 1 + std::abs(exact[k]);
    }
    void expect_small(const char* name, const char* what) const { expect(far <= 0.02 * size, name, what); }
};

template <class Cell>
void drive_cell(const char* name) {
    for (int64_t hidden : {1, 7, 37}) {
        Difference both, multiplied, stored;
        for (int64_t batch : {0, 1, 5, 51})
            for (int64_t steps : {1, 4})
                for (const Case& given : CASES) {
                    both.drive_halves<Cell, bfloat16>(name, steps, batch, hidden, given, true);
                    multiplied.drive_halves<Cell, bfloat16>(name, steps, batch, hidden, given, false);
                    stored.drive_halves<Cell, float>(name, steps, batch, hidden, given, true);
                    // Only these cells, because all cells would take long to compile.
                    if constexpr (Cell::Forward::letters > 1) drive<Cell, double>(name, steps, batch, hidden, given);
                }
        both.expect_small(name, "a layer of bfloat16"), multiplied.expect_small(name, "products of bfloat16");
        stored.expect_small(name, "bfloat16 as storage");
    }
}

template <class T, class O = T, class From = T>
void drive_product(int64_t rows, int64_t columns, int64_t depth, bool left, bool right, T tolerance = T(1e-3)) {
    constexpr bool halves = std::is_same_v<From, bfloat16>;
    const Numbers<T> a(rows * depth, halves), b(depth * columns, halves), bias(columns, halves), c(rows * columns, halves);
    const Gemm g{rows, columns, depth, THREADS, a.at(), left ? 1 : depth, left ? rows : 1,
                 b.at(), right ? 1 : columns, right ? depth : 1, bias.at(), const_cast<void*>(c.at())};
    expect(succeeds([&] { return gemm<T, O, From>(g); }), "gemm", "a product");
    for (int64_t r = 0; r < rows; ++r)
        for (int64_t u = 0; u < columns; ++u) {
            T sum = T(bias[u]);
            for (int64_t k = 0; k < depth; ++k) sum += T(a[r * g.a_by_row + k * g.a_by_depth]) * T(b[k * g.b_by_depth + u * g.b_by_column]);
            expect(std::abs(sum - T(c[r * columns + u])) <= tolerance * (1 + std::abs(sum)), "gemm", "a product's value");
        }
}

void drive_products() {
    for (int64_t rows : {1, 7, 100})
        for (int64_t columns : {1, 33, 64})
            for (int64_t depth : {1, 5, 130})
                for (int flags = 0; flags < 4; ++flags) {
                    drive_product<float>(rows, columns, depth, flags & 1, flags & 2);
                    drive_product<float, bfloat16, bfloat16>(rows, columns, depth, flags & 1, flags & 2, 1.f / 256);
                    drive_product<float, bfloat16>(rows, columns, depth, flags & 1, flags & 2, 0.1f);
                    drive_product<float, float, bfloat16>(rows, columns, depth, flags & 1, flags & 2, 1.f / 256);
                }
}

// Calls large enough for a team of threads, and for memory that is kept for the next call.
template <class Cell>
void drive_large(const char* name) {
    for (int k : {0, 4}) {
        drive<Cell, float>(name, 3, 51, 90, CASES[k]);
        drive<Cell, float, bfloat16>(name, 2, 51, 90, CASES[k], true);
        drive_product<float>(200, 70, 300, k, !k);
    }
}

void drive_callers() {
    scarce = false;
    std::vector<std::thread> callers;
#define DRIVE_CALLER(key, cell) callers.emplace_back(drive_large<cell>, #cell);
    SEQCELLS_CELLS(DRIVE_CALLER)
    for (auto& caller : callers) caller.join();
}

}  // namespace

#ifdef DRIVE_CALLERS_ALONE
// Only what needs several threads.
int main() {
    for (int round = 0; round < 20; ++round) drive_callers();
#else
int main() {
#define DRIVE_CELL(key, cell) drive_cell<cell>(#cell);
    SEQCELLS_CELLS(DRIVE_CELL)
    drive_products();
    drive_callers();
#endif
    std::printf("%d failures\n", failures.load());
    return failures != 0;
}
