// Drives the CPU kernels over arrays of exactly their size, for the compiler's sanitizers: every cell, forward and
// backward, odd sizes, with and without boundaries, projections, an input of its own, several threads, several callers,
// too little memory; some cells also in bfloat16, stored or multiplied too (as it is made without a unit for that), against float32.

#include <climits>
#include <cmath>
#include <cstdio>
#include <thread>
#include <vector>

#ifndef SEQCELLS_VECTOR_BYTES
#define SEQCELLS_VECTOR_BYTES 16
#define SEQCELLS_VECTOR_REGISTERS 16
#endif
#include "backward.h"
#include "forward.h"
#include "gemm.h"

// Those to drive; all take long to compile.
#ifndef DRIVEN_CELLS
#define DRIVEN_CELLS SEQCELLS_CELLS
#endif

// How many more of the engine's allocations succeed; the linker puts this one in place of the system's.
std::atomic<int> granted{INT_MAX};
extern "C" void* __real_aligned_alloc(size_t alignment, size_t bytes);
extern "C" void* __wrap_aligned_alloc(size_t alignment, size_t bytes) {
    return granted-- > 0 ? __real_aligned_alloc(alignment, bytes) : nullptr;
}

using namespace seqcells;

namespace {

constexpr int THREADS = 3;

thread_local unsigned state = 1;
unsigned next() { return state = state * 1664525u + 1013904223u, state >> 8; }

template <class T>
std::vector<T> numbers(int64_t count) {
    std::vector<T> values(count);
    for (T& value : values) value = T(float(next() % 2000) / 1000 - 1);
    return values;
}

std::atomic<int> failures{0};
void expect(bool holds, const char* what) {
    if (!holds) std::printf("failed: %s\n", what), ++failures;
}

template <class T>
bool finite(const std::vector<T>& values) {
    for (T value : values)
        if (!std::isfinite(double(value))) return false;
    return true;
}

// A kernel fails where it is granted too few allocations, in words and not in any other way, and succeeds in the end.
bool scarce = true;
template <class Kernel>
bool succeeds(Kernel kernel) {
    int status = -1;
    for (int grant = 0; scarce && status && grant < 40; ++grant) granted = grant, status = kernel();
    granted = INT_MAX;
    return (scarce ? status : kernel()) == 0;
}

// What a direction has for itself, and what it is made of.
template <class Cell, class T, class Stored>
struct Direction {
    static constexpr int G = Cell::gates, R = Cell::recurrent_gates, S = Cell::states;
    std::vector<Stored> weight_ih, weight_hh, bias, weight_hr, unit, previous, grad_product, grad_projected;
    std::vector<Stored> initial[S], fresh[S], final[S], grad_final[S];
    std::vector<T> saved, path[S], grad_unit, grad_bias_ih, grad_bias_hh, grad_initial[S], grad_reset[S];
    std::vector<char> packed;

    // Fills in the fields of `p`, whose sizes are there.
    void own(Problem& p, bool projected, bool bounded) {
        const int64_t all = p.steps * p.batch, H = p.hidden, P = p.projected;
        const auto make = [](auto& values, int64_t count) {
            return (values = numbers<std::decay_t<decltype(values[0])>>(count)).data();
        };
        p.weight_hh = R ? make(weight_hh, R * H * P) : nullptr, p.bias_hh = R ? make(bias, R * H) : nullptr;
        p.weight_hr = projected ? make(weight_hr, P * H) : nullptr, p.unit = make(unit, Cell::parameters * H);
        p.saved = make(saved, all * Cell::saves * H), p.previous_hidden = make(previous, all * P);
        p.grad_product = make(grad_product, all * R * H), p.grad_projected = make(grad_projected, all * P);
        p.grad_unit = make(grad_unit, Cell::parameters * H), p.grad_bias_ih = make(grad_bias_ih, G * H);
        p.grad_bias_hh = R ? make(grad_bias_hh, R * H) : nullptr;
        for (int k = 0; k < S; ++k) {
            const int64_t count = p.batch * (k ? H : P);
            p.initial[k] = make(initial[k], count), p.final[k] = make(final[k], count);
            p.grad_final[k] = make(grad_final[k], count), p.grad_initial[k] = make(grad_initial[k], count);
            if (k || projected) p.path[k] = make(path[k], all * H);
            if (bounded) p.reset_states[k] = make(fresh[k], count), p.grad_reset[k] = make(grad_reset[k], count);
        }
    }
};

// Returns the outputs.
template <class Cell, class T, class O = T, class Stored = T>
std::vector<double> drive(int64_t steps, int64_t batch, int64_t hidden, int64_t projected, bool bounded, bool both) {
    const int64_t size = projected ? projected : hidden, features = 5, all = steps * batch;
    const int directions = both ? 2 : 1;
    const int64_t gates_width = directions * Cell::gates * hidden, output_width = directions * size;
    auto gates_x = numbers<Stored>(all * gates_width), grad_gates_x = numbers<Stored>(all * gates_width), input = numbers<Stored>(all * features);
    auto output = numbers<Stored>(all * output_width), grad_output = numbers<Stored>(all * output_width);
    std::vector<int64_t> lengths(batch);
    for (auto& length : lengths) length = next() % (steps + 1);
    std::vector<unsigned char> reset(all);
    for (auto& flag : reset) flag = next() % 3 == 0;

    std::vector<Direction<Cell, T, Stored>> own(directions);
    std::vector<Problem> problems(directions);
    for (int d = 0; d < directions; ++d) {
        Problem& p = problems[d];
        p.steps = steps, p.batch = batch, p.hidden = hidden, p.projected = size, p.reverse = d, p.threads = THREADS;
        p.halves = std::is_same_v<Stored, bfloat16>;
        p.gates_width = gates_width, p.output_width = output_width;
        p.gates_x = gates_x.data() + d * Cell::gates * hidden, p.grad_gates_x = grad_gates_x.data() + d * Cell::gates * hidden;
        p.output = output.data() + d * size, p.grad_output = grad_output.data() + d * size;
        if (bounded) p.lengths = lengths.data(), p.reset = reinterpret_cast<const bool*>(reset.data());
        own[d].own(p, projected, bounded);
    }
    const seqcells::Cell cell = cell_of<Cell, T>();
    const auto forward = [&] { return run_directions<Forward<T, O>>(cell, problems.data(), directions); };
    const auto backward = [&] { return run_directions<Backward<T, O>>(cell, problems.data(), directions); };
    expect(succeeds(forward) && finite(output), Cell::name);
    std::vector<double> outputs(output.begin(), output.end());
    expect(succeeds(backward) && finite(grad_gates_x), Cell::name);
    for (int d = 0; d < directions; ++d) {
        Problem& p = problems[d];
        own[d].weight_ih = numbers<Stored>(Cell::gates * hidden * features);
        p.gates_x = nullptr, p.saved = nullptr, p.input = input.data(), p.weight_ih = own[d].weight_ih.data();
        p.features = features;
    }
    expect(succeeds(forward) && finite(output), Cell::name);
    outputs.insert(outputs.end(), output.begin(), output.end());
    // The same from weights that were packed before.
    for (int d = 0; d < directions; ++d) {
        own[d].packed.resize(Forward<T, O>::pack(cell, problems[d], nullptr) + 64);
        char* aligned = own[d].packed.data() + (64 - reinterpret_cast<uintptr_t>(own[d].packed.data()) % 64) % 64;
        Forward<T, O>::pack(cell, problems[d], aligned);
        problems[d].packed = aligned;
    }
    std::fill(output.begin(), output.end(), Stored(NAN));
    expect(succeeds(forward) && finite(output), Cell::name);
    for (size_t k = 0; k < output.size(); ++k)
        expect(std::abs(double(output[k]) - outputs[outputs.size() - output.size() + k]) < 1e-2, "packed weights");
    return outputs;
}

template <class Cell, class O, class Stored>
void drive_halves() {
    for (int64_t hidden : {1, 7, 37})
        for (int64_t batch : {1, 5, 51})
            for (int64_t steps : {1, 4})
                for (int flags = 0; flags < 4; ++flags)
                    for (int64_t projected : {0, 3}) {
                        if (projected && (Cell::previous[0] || Cell::next[0] || hidden < projected)) continue;
                        const unsigned seed = state;
                        const auto found = drive<Cell, float, O, Stored>(steps, batch, hidden, projected, flags & 1, flags & 2);
                        state = seed;
                        const auto exact = drive<Cell, float>(steps, batch, hidden, projected, flags & 1, flags & 2);
                        double far = 0;
                        for (size_t k = 0; k < exact.size(); ++k) far += std::abs(found[k] - exact[k]);
                        expect(far / exact.size() < 0.02, "a layer of bfloat16");
                    }
}

template <class Cell>
void drive_cell() {
    for (int64_t hidden : {1, 7, 37})
        for (int64_t batch : {0, 1, 5, 51})
            for (int64_t steps : {1, 4})
                for (int flags = 0; flags < 4; ++flags) {
                    drive<Cell, float>(steps, batch, hidden, 0, flags & 1, flags & 2);
                    // A cell whose step does not read the hidden state itself may be projected.
                    if (!Cell::previous[0] && !Cell::next[0] && hidden > 3)
                        drive<Cell, double>(steps, batch, hidden, 3, flags & 1, flags & 2);
                }
}

template <class T, class O = T, class From = T>
void drive_product(int64_t rows, int64_t columns, int64_t depth, bool left, bool right, T tolerance = T(1e-3)) {
    auto a = numbers<From>(rows * depth), b = numbers<From>(depth * columns), bias = numbers<From>(columns);
    auto c = numbers<From>(rows * columns);
    const Gemm g{rows, columns, depth, THREADS, a.data(), left ? 1 : depth, left ? rows : 1,
                 b.data(), right ? 1 : columns, right ? depth : 1, bias.data(), c.data()};
    expect(succeeds([&] { return gemm<T, O, From>(g); }), "a product");
    for (int64_t r = 0; r < rows; ++r)
        for (int64_t u = 0; u < columns; ++u) {
            T sum = bias[u];
            for (int64_t k = 0; k < depth; ++k) sum += T(a[r * g.a_by_row + k * g.a_by_depth]) * T(b[k * g.b_by_depth + u * g.b_by_column]);
            expect(std::abs(sum - T(c[r * columns + u])) <= tolerance * (1 + std::abs(sum)), "a product's value");
        }
}

// Calls large enough for a team, and for memory that is kept for the next call.
template <class Cell>
void drive_large() {
    for (bool flag : {false, true}) {
        drive<Cell, float>(3, 51, 90, 0, flag, flag);
        if (!Cell::previous[0] && !Cell::next[0]) drive<Cell, double>(2, 51, 90, 70, flag, !flag);
        drive_product<float>(200, 70, 300, flag, !flag);
    }
}

void drive_callers() {
    scarce = false;
    std::vector<std::thread> callers;
#define DRIVE_CALLER(cell) callers.emplace_back(drive_large<cell>);
    DRIVEN_CELLS(DRIVE_CALLER)
    for (auto& caller : callers) caller.join();
}

}  // namespace

#ifdef DRIVE_CALLERS_ALONE
// What needs several threads, and no more.
int main() {
    for (int round = 0; round < 20; ++round) drive_callers();
#else
int main() {
#define DRIVE_CELL(cell) drive_cell<cell>();
    DRIVEN_CELLS(DRIVE_CELL)
    for (int64_t rows : {1, 7, 100})
        for (int64_t columns : {1, 33, 64})
            for (int64_t depth : {1, 5, 130})
                for (int flags = 0; flags < 4; ++flags) {
                    drive_product<float>(rows, columns, depth, flags & 1, flags & 2);
                    drive_product<float, bfloat16, bfloat16>(rows, columns, depth, flags & 1, flags & 2, 1.f / 256);
                    drive_product<float, bfloat16>(rows, columns, depth, flags & 1, flags & 2, 0.1f);
                    drive_product<float, float, bfloat16>(rows, columns, depth, flags & 1, flags & 2, 1.f / 256);
                }
    drive_halves<LSTM, bfloat16, bfloat16>();
    drive_halves<LSTM, bfloat16, float>();
    drive_halves<LSTM, float, bfloat16>();
    drive_halves<GRU, bfloat16, bfloat16>();
    drive_halves<GRU, float, bfloat16>();
    for (bool both : {false, true}) drive<LSTM, float, bfloat16, bfloat16>(3, 51, 90, 70, both, both);
    drive_callers();
#endif
    std::printf("%d failures\n", failures.load());
    return failures != 0;
}
