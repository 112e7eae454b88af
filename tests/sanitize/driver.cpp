// Drives the CPU kernels over arrays of exactly their size, for the compiler's sanitizers: every cell, forward and
// backward, odd sizes, with and without boundaries, projections, an input of its own, several threads; some of them also
// by products of bfloat16, as they are made without a unit for that, whose values it checks against float32.

#include <cmath>
#include <cstdio>
#include <vector>

#define SEQCELLS_TARGET driven
#define SEQCELLS_VECTOR_BYTES 16
#define SEQCELLS_VECTOR_REGISTERS 16
#include "tables.h"

using namespace seqcells;

namespace {

unsigned state = 1;
unsigned next() { return state = state * 1664525u + 1013904223u, state >> 8; }

template <class T>
std::vector<T> numbers(int64_t count) {
    std::vector<T> values(count);
    for (T& value : values) value = T(float(next() % 2000) / 1000 - 1);
    return values;
}

int failures = 0;
void expect(bool holds, const char* what) {
    if (!holds) std::printf("failed: %s\n", what), ++failures;
}

template <class T>
bool finite(const std::vector<T>& values) {
    for (T value : values)
        if (!std::isfinite(double(value))) return false;
    return true;
}

// Returns the outputs.
template <class Cell, class T, class O = T, class Stored = T>
std::vector<double> drive(int64_t steps, int64_t batch, int64_t hidden, int64_t projected, bool bounded, bool reverse) {
    using Forwards = Forward<Cell, T, O, Stored>;
    const int64_t size = projected ? projected : hidden, features = 5, all = steps * batch;
    constexpr int G = Cell::gates, R = Cell::recurrent_gates, S = Cell::states;
    state = 1;
    auto gates_x = numbers<Stored>(all * G * hidden), input = numbers<Stored>(all * features);
    auto weight_ih = numbers<Stored>(G * hidden * features), weight_hh = numbers<Stored>(R * hidden * size);
    auto bias = numbers<Stored>(R * hidden), weight_hr = numbers<Stored>(size * hidden);
    auto unit = numbers<Stored>(Cell::parameters * hidden), output = numbers<Stored>(all * size);
    auto saved = numbers<T>(all * Cell::saves * hidden);
    auto previous = numbers<Stored>(all * size), grad_output = numbers<Stored>(all * size);
    auto grad_gates_x = numbers<Stored>(all * G * hidden), grad_product = numbers<Stored>(all * R * hidden);
    auto grad_projected = numbers<Stored>(all * size);
    auto grad_unit = numbers<T>(Cell::parameters * hidden), grad_bias = numbers<T>(R * hidden);
    std::vector<std::vector<Stored>> initial(S), fresh(S), final(S), grad_final(S);
    std::vector<std::vector<T>> path(S), grad_initial(S), grad_reset(S);
    std::vector<int64_t> lengths(batch);
    for (auto& length : lengths) length = next() % (steps + 1);
    std::vector<unsigned char> reset(all);
    for (auto& flag : reset) flag = next() % 3 == 0;

    Problem p{};
    p.steps = steps, p.batch = batch, p.hidden = hidden, p.projected = size, p.reverse = reverse, p.threads = 2;
    p.gates_width = G * hidden, p.output_width = size;
    for (int k = 0; k < S; ++k) {
        const int64_t count = batch * (k ? hidden : size);
        for (auto* each : {&initial, &fresh, &final, &grad_final}) (*each)[k] = numbers<Stored>(count);
        for (auto* each : {&grad_initial, &grad_reset}) (*each)[k] = numbers<T>(count);
        path[k] = numbers<T>(all * hidden);
        p.initial[k] = initial[k].data(), p.final[k] = final[k].data(), p.grad_final[k] = grad_final[k].data();
        p.grad_initial[k] = grad_initial[k].data();
        if (k || projected) p.path[k] = path[k].data();
        if (bounded) p.reset_states[k] = fresh[k].data(), p.grad_reset[k] = grad_reset[k].data();
    }
    if (bounded) p.lengths = lengths.data(), p.reset = reinterpret_cast<const bool*>(reset.data());
    p.gates_x = gates_x.data(), p.bias_hh = R ? bias.data() : nullptr, p.weight_hh = R ? weight_hh.data() : nullptr;
    p.weight_hr = projected ? weight_hr.data() : nullptr, p.unit = unit.data();
    p.output = output.data(), p.saved = saved.data();
    expect(run_directions<Forwards>(&p, 1) == 0 && finite(output), Cell::name);
    std::vector<double> outputs(output.begin(), output.end());
    p.previous_hidden = previous.data(), p.grad_output = grad_output.data(), p.grad_gates_x = grad_gates_x.data();
    p.grad_product = grad_product.data(), p.grad_projected = grad_projected.data();
    p.grad_unit = grad_unit.data(), p.grad_bias = R ? grad_bias.data() : nullptr;
    expect(run_directions<Backward<Cell, T, O, Stored>>(&p, 1) == 0 && finite(grad_gates_x), Cell::name);
    p.gates_x = nullptr, p.saved = nullptr, p.input = input.data(), p.weight_ih = weight_ih.data(), p.features = features;
    expect(run_directions<Forwards>(&p, 1) == 0 && finite(output), Cell::name);
    outputs.insert(outputs.end(), output.begin(), output.end());
    return outputs;
}

template <class Cell, class Stored>
void drive_pairs() {
    for (int64_t hidden : {1, 7, 37})
        for (int64_t batch : {1, 5, 51})
            for (int64_t steps : {1, 4})
                for (int flags = 0; flags < 4; ++flags)
                    for (int64_t projected : {0, 3}) {
                        if (projected && (Cell::previous[0] || Cell::next[0] || hidden < projected)) continue;
                        const auto found = drive<Cell, float, bfloat16, Stored>(steps, batch, hidden, projected, flags & 1, flags & 2);
                        const auto exact = drive<Cell, float>(steps, batch, hidden, projected, flags & 1, flags & 2);
                        double far = 0;
                        for (size_t k = 0; k < exact.size(); ++k) far += std::abs(found[k] - exact[k]);
                        expect(far / exact.size() < 0.02, "a layer by pairs");
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
void drive_product(int64_t rows, int64_t columns, int64_t depth, bool left, bool right, T tolerance) {
    auto a = numbers<From>(rows * depth), b = numbers<From>(depth * columns), bias = numbers<From>(columns);
    auto c = numbers<From>(rows * columns);
    const Gemm g{rows, columns, depth, 2, a.data(), left ? 1 : depth, left ? rows : 1,
                 b.data(), right ? 1 : columns, right ? depth : 1, bias.data(), c.data()};
    expect(gemm<T, O, From>(g) == 0, "a product");
    for (int64_t r = 0; r < rows; ++r)
        for (int64_t u = 0; u < columns; ++u) {
            T sum = bias[u];
            for (int64_t k = 0; k < depth; ++k) sum += T(a[r * g.a_by_row + k * g.a_by_depth]) * T(b[k * g.b_by_depth + u * g.b_by_column]);
            expect(std::abs(sum - T(c[r * columns + u])) <= tolerance * (1 + std::abs(sum)), "a product's value");
        }
}

}  // namespace

int main() {
#define DRIVE(cell) drive_cell<cell>();
    SEQCELLS_CELLS(DRIVE)
    drive_pairs<LSTM, bfloat16>();
    drive_pairs<LSTM, float>();
    drive_pairs<GRU, bfloat16>();
    drive_pairs<IndRNN, bfloat16>();
    for (int64_t rows : {1, 7, 100})
        for (int64_t columns : {1, 33, 64})
            for (int64_t depth : {1, 5, 130})
                for (int flags = 0; flags < 4; ++flags) {
                    drive_product<float>(rows, columns, depth, flags & 1, flags & 2, 1e-3f);
                    drive_product<float, bfloat16, bfloat16>(rows, columns, depth, flags & 1, flags & 2, 1.f / 256);
                    drive_product<float, bfloat16>(rows, columns, depth, flags & 1, flags & 2, 0.1f);
                }
    std::printf("%d failures\n", failures);
    return failures != 0;
}
