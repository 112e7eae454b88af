// Drives the CPU kernels over arrays of exactly their size, for the compiler's sanitizers: every cell, forward and
// backward, odd sizes, with and without boundaries, projections, an input of its own, several threads.

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
    for (T& value : values) value = T(next() % 2000) / 1000 - 1;
    return values;
}

int failures = 0;
void expect(bool holds, const char* what) {
    if (!holds) std::printf("failed: %s\n", what), ++failures;
}

template <class T>
bool finite(const std::vector<T>& values) {
    for (T value : values)
        if (!std::isfinite(value)) return false;
    return true;
}

template <class Cell, class T>
void drive(int64_t steps, int64_t batch, int64_t hidden, int64_t projected, bool bounded, bool reverse) {
    const int64_t size = projected ? projected : hidden, features = 5, all = steps * batch;
    constexpr int G = Cell::gates, R = Cell::recurrent_gates, S = Cell::states;
    auto gates_x = numbers<T>(all * G * hidden), input = numbers<T>(all * features);
    auto weight_ih = numbers<T>(G * hidden * features), weight_hh = numbers<T>(R * hidden * size);
    auto bias = numbers<T>(R * hidden), weight_hr = numbers<T>(size * hidden), unit = numbers<T>(Cell::parameters * hidden);
    auto output = numbers<T>(all * size), saved = numbers<T>(all * Cell::saves * hidden), previous = numbers<T>(all * size);
    auto grad_output = numbers<T>(all * size), grad_gates_x = numbers<T>(all * G * hidden);
    auto grad_product = numbers<T>(all * R * hidden), grad_projected = numbers<T>(all * size);
    auto grad_unit = numbers<T>(Cell::parameters * hidden), grad_bias = numbers<T>(R * hidden);
    std::vector<std::vector<T>> initial(S), fresh(S), final(S), path(S), grad_final(S), grad_initial(S), grad_reset(S);
    std::vector<int64_t> lengths(batch);
    for (auto& length : lengths) length = next() % (steps + 1);
    std::vector<unsigned char> reset(all);
    for (auto& flag : reset) flag = next() % 3 == 0;

    Problem p{};
    p.steps = steps, p.batch = batch, p.hidden = hidden, p.projected = size, p.reverse = reverse, p.threads = 2;
    p.gates_width = G * hidden, p.output_width = size;
    for (int k = 0; k < S; ++k) {
        const int64_t count = batch * (k ? hidden : size);
        for (auto* each : {&initial, &fresh, &final, &grad_final, &grad_initial, &grad_reset}) (*each)[k] = numbers<T>(count);
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
    expect(run_directions<Forward<Cell, T>>(&p, 1) == 0 && finite(output), Cell::name);
    p.previous_hidden = previous.data(), p.grad_output = grad_output.data(), p.grad_gates_x = grad_gates_x.data();
    p.grad_product = grad_product.data(), p.grad_projected = grad_projected.data();
    p.grad_unit = grad_unit.data(), p.grad_bias = R ? grad_bias.data() : nullptr;
    expect(run_directions<Backward<Cell, T>>(&p, 1) == 0 && finite(grad_gates_x), Cell::name);
    p.gates_x = nullptr, p.saved = nullptr, p.input = input.data(), p.weight_ih = weight_ih.data(), p.features = features;
    expect(run_directions<Forward<Cell, T>>(&p, 1) == 0 && finite(output), Cell::name);
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

template <class T>
void drive_product(int64_t rows, int64_t columns, int64_t depth, bool left, bool right) {
    auto a = numbers<T>(rows * depth), b = numbers<T>(depth * columns), bias = numbers<T>(columns), c = numbers<T>(rows * columns);
    const Gemm g{rows, columns, depth, 2, a.data(), left ? 1 : depth, left ? rows : 1,
                 b.data(), right ? 1 : columns, right ? depth : 1, bias.data(), c.data()};
    expect(gemm<T>(g) == 0, "a product");
    for (int64_t r = 0; r < rows; ++r)
        for (int64_t u = 0; u < columns; ++u) {
            T sum = bias[u];
            for (int64_t k = 0; k < depth; ++k) sum += a[r * g.a_by_row + k * g.a_by_depth] * b[k * g.b_by_depth + u * g.b_by_column];
            expect(std::abs(sum - c[r * columns + u]) < T(1e-3), "a product's value");
        }
}

}  // namespace

int main() {
#define DRIVE(cell) drive_cell<cell>();
    SEQCELLS_CELLS(DRIVE)
    for (int64_t rows : {1, 7, 100})
        for (int64_t columns : {1, 33, 64})
            for (int64_t depth : {1, 5, 130})
                for (int flags = 0; flags < 4; ++flags) drive_product<float>(rows, columns, depth, flags & 1, flags & 2);
    std::printf("%d failures\n", failures);
    return failures != 0;
}
