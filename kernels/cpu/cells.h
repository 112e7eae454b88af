// The built-in cells' two passes, for the loop.
//
// Made from seqcells/cells by `make cells`: edit nothing below these words, which alone are written by hand.
//
// A pass has its stages' values as functions of vectors V, or scalars, all in an array v: `row` those that are numbers of a
// row, `units` those that each unit has. Tables tell where the values of a stage are read and written; pass_description.h says what
// each of them means.

#pragma once

#include "cell_library.h"

SEQCELLS_CELL_BEGIN

// Long short-term memory with a forget gate (Hochreiter & Schmidhuber 1997; Gers et al. 2000), as torch.nn.
//
// input = sigmoid(x.i + r.i)
// forget = sigmoid(x.f + r.f)
// candidate = tanh(x.g + r.g)
// output = sigmoid(x.o + r.o)
// cell = forget * s.c + input * candidate
// return output * tanh(cell), cell
namespace lstm {
struct Equations {
    struct Forward {
        static constexpr int values = 25, stages = 2;
        static constexpr int letters = 1, gates_at = 1;
        static constexpr int sums = 0, gates = 4, by = 1;
        static constexpr int ahead = 8;
        static constexpr bool side_by_side = true;
        static constexpr std::array<int, 2> letter{0, 0};
        static constexpr std::array<int, 2> follows{-1, 0};
        static constexpr std::array<const char* const, 12> names{{
            "initial.h",
            "initial.c",
            "reset_state.h",
            "reset_state.c",
            "bias_hh",
            "gates_x",
            "output",
            "saved",
            "after.c",
            "final.h",
            "final.c",
            "weight_hh"
        }};
        static constexpr std::array<Kept, 2> keep{{{false, false, -1, 0}, {false, true, 0, 0}}};
        static constexpr std::array<Multiplicand, 1> operands{{{1, {24}, {0}, 0, true}}};
        static constexpr std::array<Multiplied, 1> products{{{1, 11, 0, 0, 4, 1, false}}};
        static constexpr std::array<Reduction, 0> reductions{{}};
        static constexpr std::array<Total, 0> totals{{}};
        static constexpr std::array<Slot, 4> reads0{{
            {2, Where::GIVEN, Axes::BH, 2, 0, 0, false, false},
            {0, Where::CARRIED, Axes::BH, 0, 0, 0, false, false},
            {3, Where::GIVEN, Axes::BH, 3, 0, 0, false, false},
            {1, Where::CARRIED, Axes::BH, 1, 0, 0, false, false}
        }};
        static constexpr std::array<Slot, 14> reads1{{
            {12, Where::PRODUCT, Axes::BH, 0, 0, 0, false, false},
            {4, Where::GIVEN, Axes::H, 4, 0, 0, false, false},
            {13, Where::PRODUCT, Axes::BH, 0, 1, 0, false, false},
            {5, Where::GIVEN, Axes::H, 4, 1, 0, false, false},
            {14, Where::PRODUCT, Axes::BH, 0, 2, 0, false, false},
            {6, Where::GIVEN, Axes::H, 4, 2, 0, false, false},
            {15, Where::PRODUCT, Axes::BH, 0, 3, 0, false, false},
            {7, Where::GIVEN, Axes::H, 4, 3, 0, false, false},
            {8, Where::GATE, Axes::TBH, 5, 0, 0, false, false},
            {9, Where::GATE, Axes::TBH, 5, 1, 0, false, false},
            {10, Where::GATE, Axes::TBH, 5, 2, 0, false, false},
            {11, Where::GATE, Axes::TBH, 5, 3, 0, false, false},
            {23, Where::KEPT, Axes::BH, 0, 0, 0, false, false},
            {24, Where::KEPT, Axes::BH, 0, 1, 0, false, false}
        }};
        static constexpr auto reads = std::make_tuple(reads0, reads1);
        static constexpr std::array<Slot, 2> results0{{
            {23, Where::KEPT, Axes::BH, 0, 0, 0, false, false},
            {24, Where::KEPT, Axes::BH, 0, 1, 0, false, false}
        }};
        static constexpr std::array<Slot, 8> results1{{
            {16, Where::GIVEN, Axes::TBH, 6, 0, 0, false, false},
            {17, Where::GIVEN, Axes::TBH, 7, 0, 0, true, false},
            {18, Where::GIVEN, Axes::TBH, 7, 1, 0, true, false},
            {19, Where::GIVEN, Axes::TBH, 7, 2, 0, true, false},
            {20, Where::GIVEN, Axes::TBH, 7, 3, 0, true, false},
            {21, Where::GIVEN, Axes::TBH, 8, 0, 0, true, false},
            {22, Where::CARRIED, Axes::BH, 9, 0, 0, false, false},
            {21, Where::CARRIED, Axes::BH, 10, 0, 0, false, false}
        }};
        static constexpr auto results = std::make_tuple(results0, results1);
        static constexpr std::array<Onward, 2> onward{{
            {22, 0, 0},
            {21, 1, 0}
        }};
        template <class V, class Valid, class Reset>
        SEQCELLS_INLINE static void row0([[maybe_unused]] V* v, [[maybe_unused]] Valid valid, [[maybe_unused]] Reset reset) {

        }
        template <class V, class Valid, class Reset>
        SEQCELLS_INLINE static void units0([[maybe_unused]] V* v, [[maybe_unused]] Valid valid, [[maybe_unused]] Reset reset) {
            const V reset_state_h = v[2];
            const V carried_h = v[0];
            const V reset_state_c = v[3];
            const V carried_c = v[1];
            const auto where_of_5 = where(reset, reset_state_h, carried_h);
            const auto where_of_4 = where(reset, reset_state_c, carried_c);
            v[24] = where_of_5;
            v[23] = where_of_4;
        }
        template <class V, class Valid, class Reset>
        SEQCELLS_INLINE static void row1([[maybe_unused]] V* v, [[maybe_unused]] Valid valid, [[maybe_unused]] Reset reset) {

        }
        template <class V, class Valid, class Reset>
        SEQCELLS_INLINE static void units1([[maybe_unused]] V* v, [[maybe_unused]] Valid valid, [[maybe_unused]] Reset reset) {
            using T = scalar<V>;
            const V hh_0 = v[12];
            const V bias_hh_i = v[4];
            const V hh_1 = v[13];
            const V bias_hh_f = v[5];
            const V hh_2 = v[14];
            const V bias_hh_g = v[6];
            const V hh_3 = v[15];
            const V bias_hh_o = v[7];
            const V x_i = v[8];
            const V x_f = v[9];
            const V x_g = v[10];
            const V x_o = v[11];
            const V where_of_4 = v[23];
            const V where_of_5 = v[24];
            const auto input = sigmoid(x_i + (hh_0 + bias_hh_i));
            const auto forget = sigmoid(x_f + (hh_1 + bias_hh_f));
            const auto candidate = tanh(x_g + (hh_2 + bias_hh_g));
            const auto output = sigmoid(x_o + (hh_3 + bias_hh_o));
            const auto cell = forget * where_of_4 + input * candidate;
            const auto h = output * tanh(cell);
            const auto where_of_3 = where(valid, h, where_of_5);
            const auto where_of_2 = where(valid, cell, where_of_4);
            const auto where_of = where(valid, h, T(0.0));
            v[17] = input;
            v[18] = forget;
            v[19] = candidate;
            v[20] = output;
            v[22] = where_of_3;
            v[21] = where_of_2;
            v[16] = where_of;
        }
        template <int K, class V, class Valid, class Reset>
        SEQCELLS_INLINE static void row(V* v, Valid valid, Reset reset) {
            if constexpr (K == 0) row0(v, valid, reset);
            if constexpr (K == 1) row1(v, valid, reset);
        }
        template <int K, class V, class Valid, class Reset>
        SEQCELLS_INLINE static void units(V* v, Valid valid, Reset reset) {
            if constexpr (K == 0) units0(v, valid, reset);
            if constexpr (K == 1) units1(v, valid, reset);
        }
    };
    struct Backward {
        static constexpr int values = 28, stages = 2;
        static constexpr int letters = 1, gates_at = 1;
        static constexpr int sums = 4, gates = 4, by = -1;
        static constexpr int ahead = 4;
        static constexpr bool side_by_side = false;
        static constexpr std::array<int, 2> letter{0, 0};
        static constexpr std::array<int, 2> follows{-1, 0};
        static constexpr std::array<const char* const, 17> names{{
            "grad_final.h",
            "grad_final.c",
            "grad_output",
            "reset_state.h",
            "previous",
            "reset_state.c",
            "after.c",
            "saved",
            "grad_reset_state.c",
            "grad_gates_x",
            "grad_initial.h",
            "grad_initial.c",
            "grad_reset_state.h",
            "weight_hh",
            "grad_bias_ih",
            "grad_bias_hh",
            "initial.c"
        }};
        static constexpr std::array<Kept, 3> keep{{{false, false, -1, 0}, {false, true, -1, 0}, {false, true, -1, 0}}};
        static constexpr std::array<Multiplicand, 1> operands{{{4, {24, 25, 26, 27}, {0, 0, 0, 0}, 0, true}}};
        static constexpr std::array<Multiplied, 1> products{{{1, 13, 0, 0, 4, 1, true}}};
        static constexpr std::array<Reduction, 0> reductions{{}};
        static constexpr std::array<Total, 8> totals{{{14, 0, true, 0, true, 0}, {15, 0, true, 0, true, 0}, {14, 1, true, 1, true, 0}, {15, 1, true, 1, true, 0}, {14, 2, true, 2, true, 0}, {15, 2, true, 2, true, 0}, {14, 3, true, 3, true, 0}, {15, 3, true, 3, true, 0}}};
        static constexpr std::array<Slot, 10> reads0{{
            {1, Where::CARRIED, Axes::BH, 1, 0, 0, false, false},
            {0, Where::CARRIED, Axes::BH, 0, 0, 0, false, false},
            {2, Where::GIVEN, Axes::TBH, 2, 0, 0, false, false},
            {5, Where::GIVEN, Axes::BH, 5, 0, 0, false, false},
            {6, Where::BEFORE, Axes::TBH, 6, 0, 16, true, false},
            {7, Where::GIVEN, Axes::TBH, 6, 0, 0, true, false},
            {8, Where::GIVEN, Axes::TBH, 7, 3, 0, true, false},
            {9, Where::GIVEN, Axes::TBH, 7, 2, 0, true, false},
            {10, Where::GIVEN, Axes::TBH, 7, 0, 0, true, false},
            {11, Where::GIVEN, Axes::TBH, 7, 1, 0, true, false}
        }};
        static constexpr std::array<Slot, 4> reads1{{
            {21, Where::KEPT, Axes::BH, 0, 0, 0, false, false},
            {22, Where::KEPT, Axes::BH, 0, 1, 0, false, false},
            {12, Where::PRODUCT, Axes::BH, 0, 0, 0, false, false},
            {23, Where::KEPT, Axes::BH, 0, 2, 0, false, false}
        }};
        static constexpr auto reads = std::make_tuple(reads0, reads1);
        static constexpr std::array<Slot, 12> results0{{
            {13, Where::GIVEN, Axes::BH, 8, 0, 0, true, true},
            {14, Where::GIVEN, Axes::TBH, 9, 0, 0, false, false},
            {15, Where::GIVEN, Axes::TBH, 9, 1, 0, false, false},
            {16, Where::GIVEN, Axes::TBH, 9, 2, 0, false, false},
            {17, Where::GIVEN, Axes::TBH, 9, 3, 0, false, false},
            {14, Where::SUM, Axes::H, 0, 0, 0, false, false},
            {15, Where::SUM, Axes::H, 0, 1, 0, false, false},
            {16, Where::SUM, Axes::H, 0, 2, 0, false, false},
            {17, Where::SUM, Axes::H, 0, 3, 0, false, false},
            {21, Where::KEPT, Axes::BH, 0, 0, 0, false, false},
            {22, Where::KEPT, Axes::BH, 0, 1, 0, false, false},
            {23, Where::KEPT, Axes::BH, 0, 2, 0, false, false}
        }};
        static constexpr std::array<Slot, 3> results1{{
            {18, Where::CARRIED, Axes::BH, 10, 0, 0, true, false},
            {19, Where::CARRIED, Axes::BH, 11, 0, 0, true, false},
            {20, Where::GIVEN, Axes::BH, 12, 0, 0, true, true}
        }};
        static constexpr auto results = std::make_tuple(results0, results1);
        static constexpr std::array<Onward, 2> onward{{
            {18, 0, 0},
            {19, 1, 0}
        }};
        template <class V, class Valid, class Reset>
        SEQCELLS_INLINE static void row0([[maybe_unused]] V* v, [[maybe_unused]] Valid valid, [[maybe_unused]] Reset reset) {

        }
        template <class V, class Valid, class Reset>
        SEQCELLS_INLINE static void units0([[maybe_unused]] V* v, [[maybe_unused]] Valid valid, [[maybe_unused]] Reset reset) {
            using T = scalar<V>;
            const V d_carried_c = v[1];
            const V d_carried_h = v[0];
            const V d_output = v[2];
            const V reset_state_c = v[5];
            const V before_c = v[6];
            const V after_c = v[7];
            const V saved_output = v[8];
            const V saved_candidate = v[9];
            const V saved_input = v[10];
            const V saved_forget = v[11];
            const auto where_of_3 = where(valid, T(0.0), d_carried_c);
            const auto where_of_4 = where(valid, T(0.0), d_carried_h);
            const auto d_h = where(valid, d_output + d_carried_h, T(0.0));
            const auto tanh_of = tanh(after_c);
            const auto d_output_2 = d_h * tanh_of;
            const auto d_cell = where(valid, d_carried_c, T(0.0)) + d_h * saved_output * (T(1.0) - tanh_of * tanh_of);
            const auto d_input = d_cell * saved_candidate;
            const auto d_candidate = d_cell * saved_input;
            const auto d_forget = d_cell * where(reset, reset_state_c, before_c);
            const auto t = d_cell * saved_forget;
            const auto t_6 = where_of_3 + where(valid, t, T(0.0));
            const auto t_5 = d_output_2 * saved_output * (T(1.0) - saved_output);
            const auto d_x_o = where(valid, t_5, T(0.0));
            const auto t_4 = d_candidate * (T(1.0) - saved_candidate * saved_candidate);
            const auto d_x_g = where(valid, t_4, T(0.0));
            const auto t_3 = d_forget * saved_forget * (T(1.0) - saved_forget);
            const auto d_x_f = where(valid, t_3, T(0.0));
            const auto t_2 = d_input * saved_input * (T(1.0) - saved_input);
            const auto d_x_i = where(valid, t_2, T(0.0));
            const auto d_reset_state_c = where(reset, t_6, T(0.0));
            v[22] = where_of_3;
            v[23] = where_of_4;
            v[21] = t;
            v[27] = t_5;
            v[17] = d_x_o;
            v[26] = t_4;
            v[16] = d_x_g;
            v[25] = t_3;
            v[15] = d_x_f;
            v[24] = t_2;
            v[14] = d_x_i;
            v[13] = d_reset_state_c;
        }
        template <class V, class Valid, class Reset>
        SEQCELLS_INLINE static void row1([[maybe_unused]] V* v, [[maybe_unused]] Valid valid, [[maybe_unused]] Reset reset) {

        }
        template <class V, class Valid, class Reset>
        SEQCELLS_INLINE static void units1([[maybe_unused]] V* v, [[maybe_unused]] Valid valid, [[maybe_unused]] Reset reset) {
            using T = scalar<V>;
            const V t = v[21];
            const V where_of_3 = v[22];
            const V back_hh = v[12];
            const V where_of_4 = v[23];
            const auto t_6 = where_of_3 + where(valid, t, T(0.0));
            const auto t_7 = where_of_4 + where(valid, back_hh, T(0.0));
            const auto where_of_2 = where(reset, T(0.0), t_6);
            const auto d_reset_state_h = where(reset, t_7, T(0.0));
            const auto where_of = where(reset, T(0.0), t_7);
            v[19] = where_of_2;
            v[20] = d_reset_state_h;
            v[18] = where_of;
        }
        template <int K, class V, class Valid, class Reset>
        SEQCELLS_INLINE static void row(V* v, Valid valid, Reset reset) {
            if constexpr (K == 0) row0(v, valid, reset);
            if constexpr (K == 1) row1(v, valid, reset);
        }
        template <int K, class V, class Valid, class Reset>
        SEQCELLS_INLINE static void units(V* v, Valid valid, Reset reset) {
            if constexpr (K == 0) units0(v, valid, reset);
            if constexpr (K == 1) units1(v, valid, reset);
        }
    };
};
}

// Gated recurrent unit (Cho et al. 2014), the reset gate applied after the recurrent product, as torch.nn.
//
// reset = sigmoid(x.r + r.r)
// update = sigmoid(x.z + r.z)
// new = tanh(x.n + reset * r.n)
// return new + update * (s.h - new)
namespace gru {
struct Equations {
    struct Forward {
        static constexpr int values = 18, stages = 2;
        static constexpr int letters = 1, gates_at = 1;
        static constexpr int sums = 0, gates = 3, by = 1;
        static constexpr int ahead = 8;
        static constexpr bool side_by_side = true;
        static constexpr std::array<int, 2> letter{0, 0};
        static constexpr std::array<int, 2> follows{-1, 0};
        static constexpr std::array<const char* const, 8> names{{
            "initial.h",
            "reset_state.h",
            "bias_hh",
            "gates_x",
            "output",
            "saved",
            "final.h",
            "weight_hh"
        }};
        static constexpr std::array<Kept, 1> keep{{{false, false, 0, 0}}};
        static constexpr std::array<Multiplicand, 1> operands{{{1, {17}, {0}, 0, true}}};
        static constexpr std::array<Multiplied, 1> products{{{1, 7, 0, 0, 3, 1, false}}};
        static constexpr std::array<Reduction, 0> reductions{{}};
        static constexpr std::array<Total, 0> totals{{}};
        static constexpr std::array<Slot, 2> reads0{{
            {1, Where::GIVEN, Axes::BH, 1, 0, 0, false, false},
            {0, Where::CARRIED, Axes::BH, 0, 0, 0, false, false}
        }};
        static constexpr std::array<Slot, 10> reads1{{
            {8, Where::PRODUCT, Axes::BH, 0, 0, 0, false, false},
            {2, Where::GIVEN, Axes::H, 2, 0, 0, false, false},
            {9, Where::PRODUCT, Axes::BH, 0, 1, 0, false, false},
            {3, Where::GIVEN, Axes::H, 2, 1, 0, false, false},
            {10, Where::PRODUCT, Axes::BH, 0, 2, 0, false, false},
            {4, Where::GIVEN, Axes::H, 2, 2, 0, false, false},
            {5, Where::GATE, Axes::TBH, 3, 0, 0, false, false},
            {6, Where::GATE, Axes::TBH, 3, 1, 0, false, false},
            {7, Where::GATE, Axes::TBH, 3, 2, 0, false, false},
            {17, Where::KEPT, Axes::BH, 0, 0, 0, false, false}
        }};
        static constexpr auto reads = std::make_tuple(reads0, reads1);
        static constexpr std::array<Slot, 1> results0{{
            {17, Where::KEPT, Axes::BH, 0, 0, 0, false, false}
        }};
        static constexpr std::array<Slot, 6> results1{{
            {11, Where::GIVEN, Axes::TBH, 4, 0, 0, false, false},
            {12, Where::GIVEN, Axes::TBH, 5, 0, 0, true, false},
            {13, Where::GIVEN, Axes::TBH, 5, 1, 0, true, false},
            {14, Where::GIVEN, Axes::TBH, 5, 2, 0, true, false},
            {15, Where::GIVEN, Axes::TBH, 5, 3, 0, true, false},
            {16, Where::CARRIED, Axes::BH, 6, 0, 0, false, false}
        }};
        static constexpr auto results = std::make_tuple(results0, results1);
        static constexpr std::array<Onward, 1> onward{{
            {16, 0, 0}
        }};
        template <class V, class Valid, class Reset>
        SEQCELLS_INLINE static void row0([[maybe_unused]] V* v, [[maybe_unused]] Valid valid, [[maybe_unused]] Reset reset) {

        }
        template <class V, class Valid, class Reset>
        SEQCELLS_INLINE static void units0([[maybe_unused]] V* v, [[maybe_unused]] Valid valid, [[maybe_unused]] Reset reset) {
            const V reset_state_h = v[1];
            const V carried_h = v[0];
            const auto where_of_3 = where(reset, reset_state_h, carried_h);
            v[17] = where_of_3;
        }
        template <class V, class Valid, class Reset>
        SEQCELLS_INLINE static void row1([[maybe_unused]] V* v, [[maybe_unused]] Valid valid, [[maybe_unused]] Reset reset) {

        }
        template <class V, class Valid, class Reset>
        SEQCELLS_INLINE static void units1([[maybe_unused]] V* v, [[maybe_unused]] Valid valid, [[maybe_unused]] Reset reset) {
            using T = scalar<V>;
            const V hh_0 = v[8];
            const V bias_hh_r = v[2];
            const V hh_1 = v[9];
            const V bias_hh_z = v[3];
            const V hh_2 = v[10];
            const V bias_hh_n = v[4];
            const V x_r = v[5];
            const V x_z = v[6];
            const V x_n = v[7];
            const V where_of_3 = v[17];
            const auto t = hh_2 + bias_hh_n;
            const auto reset_2 = sigmoid(x_r + (hh_0 + bias_hh_r));
            const auto update = sigmoid(x_z + (hh_1 + bias_hh_z));
            const auto new_2 = tanh(x_n + reset_2 * t);
            const auto h = new_2 + update * (where_of_3 - new_2);
            const auto where_of_2 = where(valid, h, where_of_3);
            const auto where_of = where(valid, h, T(0.0));
            v[12] = t;
            v[13] = reset_2;
            v[14] = update;
            v[15] = new_2;
            v[16] = where_of_2;
            v[11] = where_of;
        }
        template <int K, class V, class Valid, class Reset>
        SEQCELLS_INLINE static void row(V* v, Valid valid, Reset reset) {
            if constexpr (K == 0) row0(v, valid, reset);
            if constexpr (K == 1) row1(v, valid, reset);
        }
        template <int K, class V, class Valid, class Reset>
        SEQCELLS_INLINE static void units(V* v, Valid valid, Reset reset) {
            if constexpr (K == 0) units0(v, valid, reset);
            if constexpr (K == 1) units1(v, valid, reset);
        }
    };
    struct Backward {
        static constexpr int values = 20, stages = 2;
        static constexpr int letters = 1, gates_at = 1;
        static constexpr int sums = 4, gates = 3, by = -1;
        static constexpr int ahead = 4;
        static constexpr bool side_by_side = false;
        static constexpr std::array<int, 2> letter{0, 0};
        static constexpr std::array<int, 2> follows{-1, 0};
        static constexpr std::array<const char* const, 12> names{{
            "grad_final.h",
            "grad_output",
            "reset_state.h",
            "previous",
            "saved",
            "grad_gates_x",
            "grad_products",
            "grad_initial.h",
            "grad_reset_state.h",
            "weight_hh",
            "grad_bias_ih",
            "grad_bias_hh"
        }};
        static constexpr std::array<Kept, 2> keep{{{false, false, -1, 0}, {false, true, -1, 0}}};
        static constexpr std::array<Multiplicand, 1> operands{{{3, {17, 18, 19}, {0, 0, 0}, 0, true}}};
        static constexpr std::array<Multiplied, 1> products{{{1, 9, 0, 0, 3, 1, true}}};
        static constexpr std::array<Reduction, 0> reductions{{}};
        static constexpr std::array<Total, 6> totals{{{10, 0, true, 0, true, 0}, {11, 0, true, 0, true, 0}, {10, 1, true, 1, true, 0}, {11, 1, true, 1, true, 0}, {10, 2, true, 2, true, 0}, {11, 2, true, 3, true, 0}}};
        static constexpr std::array<Slot, 8> reads0{{
            {0, Where::CARRIED, Axes::BH, 0, 0, 0, false, false},
            {1, Where::GIVEN, Axes::TBH, 1, 0, 0, false, false},
            {2, Where::GIVEN, Axes::BH, 2, 0, 0, false, false},
            {3, Where::GIVEN, Axes::TBH, 3, 0, 0, false, false},
            {4, Where::GIVEN, Axes::TBH, 4, 3, 0, true, false},
            {5, Where::GIVEN, Axes::TBH, 4, 2, 0, true, false},
            {6, Where::GIVEN, Axes::TBH, 4, 0, 0, true, false},
            {7, Where::GIVEN, Axes::TBH, 4, 1, 0, true, false}
        }};
        static constexpr std::array<Slot, 4> reads1{{
            {15, Where::KEPT, Axes::BH, 0, 0, 0, false, false},
            {5, Where::GIVEN, Axes::TBH, 4, 2, 0, true, false},
            {16, Where::KEPT, Axes::BH, 0, 1, 0, false, false},
            {8, Where::PRODUCT, Axes::BH, 0, 0, 0, false, false}
        }};
        static constexpr auto reads = std::make_tuple(reads0, reads1);
        static constexpr std::array<Slot, 10> results0{{
            {9, Where::GIVEN, Axes::TBH, 5, 0, 0, false, false},
            {10, Where::GIVEN, Axes::TBH, 5, 1, 0, false, false},
            {11, Where::GIVEN, Axes::TBH, 5, 2, 0, false, false},
            {12, Where::GIVEN, Axes::TBH, 6, 0, 0, false, false},
            {9, Where::SUM, Axes::H, 0, 0, 0, false, false},
            {10, Where::SUM, Axes::H, 0, 1, 0, false, false},
            {11, Where::SUM, Axes::H, 0, 2, 0, false, false},
            {12, Where::SUM, Axes::H, 0, 3, 0, false, false},
            {15, Where::KEPT, Axes::BH, 0, 0, 0, false, false},
            {16, Where::KEPT, Axes::BH, 0, 1, 0, false, false}
        }};
        static constexpr std::array<Slot, 2> results1{{
            {13, Where::CARRIED, Axes::BH, 7, 0, 0, true, false},
            {14, Where::GIVEN, Axes::BH, 8, 0, 0, true, true}
        }};
        static constexpr auto results = std::make_tuple(results0, results1);
        static constexpr std::array<Onward, 1> onward{{
            {13, 0, 0}
        }};
        template <class V, class Valid, class Reset>
        SEQCELLS_INLINE static void row0([[maybe_unused]] V* v, [[maybe_unused]] Valid valid, [[maybe_unused]] Reset reset) {

        }
        template <class V, class Valid, class Reset>
        SEQCELLS_INLINE static void units0([[maybe_unused]] V* v, [[maybe_unused]] Valid valid, [[maybe_unused]] Reset reset) {
            using T = scalar<V>;
            const V d_carried_h = v[0];
            const V d_output = v[1];
            const V reset_state_h = v[2];
            const V before_h = v[3];
            const V saved_new = v[4];
            const V saved_update = v[5];
            const V saved_hh_n = v[6];
            const V saved_reset = v[7];
            const auto where_of_2 = where(valid, T(0.0), d_carried_h);
            const auto t = d_output + d_carried_h;
            const auto d_h = where(valid, t, T(0.0));
            const auto d_update = d_h * (where(reset, reset_state_h, before_h) - saved_new);
            const auto t_5 = T(1.0) - saved_update;
            const auto d_new = d_h * t_5;
            const auto t_6 = d_new * (T(1.0) - saved_new * saved_new);
            const auto d_x_n = where(valid, t_6, T(0.0));
            const auto d_reset = t_6 * saved_hh_n;
            const auto t_4 = t_6 * saved_reset;
            const auto t_3 = d_update * saved_update * t_5;
            const auto d_x_z = where(valid, t_3, T(0.0));
            const auto t_2 = d_reset * saved_reset * (T(1.0) - saved_reset);
            const auto d_x_r = where(valid, t_2, T(0.0));
            const auto d_bias_hh_n = where(valid, t_4, T(0.0));
            v[16] = where_of_2;
            v[15] = t;
            v[11] = d_x_n;
            v[19] = t_4;
            v[18] = t_3;
            v[10] = d_x_z;
            v[17] = t_2;
            v[9] = d_x_r;
            v[12] = d_bias_hh_n;
        }
        template <class V, class Valid, class Reset>
        SEQCELLS_INLINE static void row1([[maybe_unused]] V* v, [[maybe_unused]] Valid valid, [[maybe_unused]] Reset reset) {

        }
        template <class V, class Valid, class Reset>
        SEQCELLS_INLINE static void units1([[maybe_unused]] V* v, [[maybe_unused]] Valid valid, [[maybe_unused]] Reset reset) {
            using T = scalar<V>;
            const V t = v[15];
            const V saved_update = v[5];
            const V where_of_2 = v[16];
            const V back_hh = v[8];
            const auto d_h = where(valid, t, T(0.0));
            const auto t_7 = where_of_2 + where(valid, d_h * saved_update, T(0.0)) + where(valid, back_hh, T(0.0));
            const auto d_reset_state_h = where(reset, t_7, T(0.0));
            const auto where_of = where(reset, T(0.0), t_7);
            v[14] = d_reset_state_h;
            v[13] = where_of;
        }
        template <int K, class V, class Valid, class Reset>
        SEQCELLS_INLINE static void row(V* v, Valid valid, Reset reset) {
            if constexpr (K == 0) row0(v, valid, reset);
            if constexpr (K == 1) row1(v, valid, reset);
        }
        template <int K, class V, class Valid, class Reset>
        SEQCELLS_INLINE static void units(V* v, Valid valid, Reset reset) {
            if constexpr (K == 0) units0(v, valid, reset);
            if constexpr (K == 1) units1(v, valid, reset);
        }
    };
};
}

// Elman's simple recurrent network (Elman 1990) with tanh, as torch.nn.
//
// return tanh(x.h + r.h)
namespace rnn_tanh {
struct Equations {
    struct Forward {
        static constexpr int values = 8, stages = 2;
        static constexpr int letters = 1, gates_at = 1;
        static constexpr int sums = 0, gates = 1, by = 1;
        static constexpr int ahead = 8;
        static constexpr bool side_by_side = true;
        static constexpr std::array<int, 2> letter{0, 0};
        static constexpr std::array<int, 2> follows{-1, 0};
        static constexpr std::array<const char* const, 7> names{{
            "initial.h",
            "reset_state.h",
            "bias_hh",
            "gates_x",
            "output",
            "final.h",
            "weight_hh"
        }};
        static constexpr std::array<Kept, 1> keep{{{false, true, 0, 0}}};
        static constexpr std::array<Multiplicand, 1> operands{{{1, {7}, {0}, 0, true}}};
        static constexpr std::array<Multiplied, 1> products{{{1, 6, 0, 0, 1, 1, false}}};
        static constexpr std::array<Reduction, 0> reductions{{}};
        static constexpr std::array<Total, 0> totals{{}};
        static constexpr std::array<Slot, 2> reads0{{
            {1, Where::GIVEN, Axes::BH, 1, 0, 0, false, false},
            {0, Where::CARRIED, Axes::BH, 0, 0, 0, false, false}
        }};
        static constexpr std::array<Slot, 4> reads1{{
            {4, Where::PRODUCT, Axes::BH, 0, 0, 0, false, false},
            {2, Where::GIVEN, Axes::H, 2, 0, 0, false, false},
            {3, Where::GATE, Axes::TBH, 3, 0, 0, false, false},
            {7, Where::KEPT, Axes::BH, 0, 0, 0, false, false}
        }};
        static constexpr auto reads = std::make_tuple(reads0, reads1);
        static constexpr std::array<Slot, 1> results0{{
            {7, Where::KEPT, Axes::BH, 0, 0, 0, false, false}
        }};
        static constexpr std::array<Slot, 2> results1{{
            {5, Where::GIVEN, Axes::TBH, 4, 0, 0, false, false},
            {6, Where::CARRIED, Axes::BH, 5, 0, 0, false, false}
        }};
        static constexpr auto results = std::make_tuple(results0, results1);
        static constexpr std::array<Onward, 1> onward{{
            {6, 0, 0}
        }};
        template <class V, class Valid, class Reset>
        SEQCELLS_INLINE static void row0([[maybe_unused]] V* v, [[maybe_unused]] Valid valid, [[maybe_unused]] Reset reset) {

        }
        template <class V, class Valid, class Reset>
        SEQCELLS_INLINE static void units0([[maybe_unused]] V* v, [[maybe_unused]] Valid valid, [[maybe_unused]] Reset reset) {
            const V reset_state_h = v[1];
            const V carried_h = v[0];
            const auto where_of_3 = where(reset, reset_state_h, carried_h);
            v[7] = where_of_3;
        }
        template <class V, class Valid, class Reset>
        SEQCELLS_INLINE static void row1([[maybe_unused]] V* v, [[maybe_unused]] Valid valid, [[maybe_unused]] Reset reset) {

        }
        template <class V, class Valid, class Reset>
        SEQCELLS_INLINE static void units1([[maybe_unused]] V* v, [[maybe_unused]] Valid valid, [[maybe_unused]] Reset reset) {
            using T = scalar<V>;
            const V hh_0 = v[4];
            const V bias_hh_h = v[2];
            const V x_h = v[3];
            const V where_of_3 = v[7];
            const auto h = tanh(x_h + (hh_0 + bias_hh_h));
            const auto where_of_2 = where(valid, h, where_of_3);
            const auto where_of = where(valid, h, T(0.0));
            v[6] = where_of_2;
            v[5] = where_of;
        }
        template <int K, class V, class Valid, class Reset>
        SEQCELLS_INLINE static void row(V* v, Valid valid, Reset reset) {
            if constexpr (K == 0) row0(v, valid, reset);
            if constexpr (K == 1) row1(v, valid, reset);
        }
        template <int K, class V, class Valid, class Reset>
        SEQCELLS_INLINE static void units(V* v, Valid valid, Reset reset) {
            if constexpr (K == 0) units0(v, valid, reset);
            if constexpr (K == 1) units1(v, valid, reset);
        }
    };
    struct Backward {
        static constexpr int values = 11, stages = 2;
        static constexpr int letters = 1, gates_at = 1;
        static constexpr int sums = 1, gates = 1, by = -1;
        static constexpr int ahead = 4;
        static constexpr bool side_by_side = false;
        static constexpr std::array<int, 2> letter{0, 0};
        static constexpr std::array<int, 2> follows{-1, 0};
        static constexpr std::array<const char* const, 11> names{{
            "grad_final.h",
            "grad_output",
            "reset_state.h",
            "previous",
            "output",
            "grad_gates_x",
            "grad_initial.h",
            "grad_reset_state.h",
            "weight_hh",
            "grad_bias_ih",
            "grad_bias_hh"
        }};
        static constexpr std::array<Kept, 1> keep{{{false, true, -1, 0}}};
        static constexpr std::array<Multiplicand, 1> operands{{{1, {10}, {0}, 0, true}}};
        static constexpr std::array<Multiplied, 1> products{{{1, 8, 0, 0, 1, 1, true}}};
        static constexpr std::array<Reduction, 0> reductions{{}};
        static constexpr std::array<Total, 2> totals{{{9, 0, true, 0, true, 0}, {10, 0, true, 0, true, 0}}};
        static constexpr std::array<Slot, 3> reads0{{
            {0, Where::CARRIED, Axes::BH, 0, 0, 0, false, false},
            {1, Where::GIVEN, Axes::TBH, 1, 0, 0, false, false},
            {4, Where::GIVEN, Axes::TBH, 4, 0, 0, false, false}
        }};
        static constexpr std::array<Slot, 2> reads1{{
            {5, Where::PRODUCT, Axes::BH, 0, 0, 0, false, false},
            {9, Where::KEPT, Axes::BH, 0, 0, 0, false, false}
        }};
        static constexpr auto reads = std::make_tuple(reads0, reads1);
        static constexpr std::array<Slot, 3> results0{{
            {6, Where::GIVEN, Axes::TBH, 5, 0, 0, false, false},
            {6, Where::SUM, Axes::H, 0, 0, 0, false, false},
            {9, Where::KEPT, Axes::BH, 0, 0, 0, false, false}
        }};
        static constexpr std::array<Slot, 2> results1{{
            {7, Where::CARRIED, Axes::BH, 6, 0, 0, true, false},
            {8, Where::GIVEN, Axes::BH, 7, 0, 0, true, true}
        }};
        static constexpr auto results = std::make_tuple(results0, results1);
        static constexpr std::array<Onward, 1> onward{{
            {7, 0, 0}
        }};
        template <class V, class Valid, class Reset>
        SEQCELLS_INLINE static void row0([[maybe_unused]] V* v, [[maybe_unused]] Valid valid, [[maybe_unused]] Reset reset) {

        }
        template <class V, class Valid, class Reset>
        SEQCELLS_INLINE static void units0([[maybe_unused]] V* v, [[maybe_unused]] Valid valid, [[maybe_unused]] Reset reset) {
            using T = scalar<V>;
            const V d_carried_h = v[0];
            const V d_output = v[1];
            const V after_h = v[4];
            const auto where_of_2 = where(valid, T(0.0), d_carried_h);
            const auto d_h = where(valid, d_output + d_carried_h, T(0.0));
            const auto t = d_h * (T(1.0) - after_h * after_h);
            const auto d_x_h = where(valid, t, T(0.0));
            v[9] = where_of_2;
            v[10] = t;
            v[6] = d_x_h;
        }
        template <class V, class Valid, class Reset>
        SEQCELLS_INLINE static void row1([[maybe_unused]] V* v, [[maybe_unused]] Valid valid, [[maybe_unused]] Reset reset) {

        }
        template <class V, class Valid, class Reset>
        SEQCELLS_INLINE static void units1([[maybe_unused]] V* v, [[maybe_unused]] Valid valid, [[maybe_unused]] Reset reset) {
            using T = scalar<V>;
            const V back_hh = v[5];
            const V where_of_2 = v[9];
            const auto t_2 = where_of_2 + where(valid, back_hh, T(0.0));
            const auto d_reset_state_h = where(reset, t_2, T(0.0));
            const auto where_of = where(reset, T(0.0), t_2);
            v[8] = d_reset_state_h;
            v[7] = where_of;
        }
        template <int K, class V, class Valid, class Reset>
        SEQCELLS_INLINE static void row(V* v, Valid valid, Reset reset) {
            if constexpr (K == 0) row0(v, valid, reset);
            if constexpr (K == 1) row1(v, valid, reset);
        }
        template <int K, class V, class Valid, class Reset>
        SEQCELLS_INLINE static void units(V* v, Valid valid, Reset reset) {
            if constexpr (K == 0) units0(v, valid, reset);
            if constexpr (K == 1) units1(v, valid, reset);
        }
    };
};
}

// Elman's simple recurrent network with a rectifier (Le et al. 2015), as torch.nn.
//
// return relu(x.h + r.h)
namespace rnn_relu {
struct Equations {
    struct Forward {
        static constexpr int values = 8, stages = 2;
        static constexpr int letters = 1, gates_at = 1;
        static constexpr int sums = 0, gates = 1, by = 1;
        static constexpr int ahead = 8;
        static constexpr bool side_by_side = true;
        static constexpr std::array<int, 2> letter{0, 0};
        static constexpr std::array<int, 2> follows{-1, 0};
        static constexpr std::array<const char* const, 7> names{{
            "initial.h",
            "reset_state.h",
            "bias_hh",
            "gates_x",
            "output",
            "final.h",
            "weight_hh"
        }};
        static constexpr std::array<Kept, 1> keep{{{false, true, 0, 0}}};
        static constexpr std::array<Multiplicand, 1> operands{{{1, {7}, {0}, 0, true}}};
        static constexpr std::array<Multiplied, 1> products{{{1, 6, 0, 0, 1, 1, false}}};
        static constexpr std::array<Reduction, 0> reductions{{}};
        static constexpr std::array<Total, 0> totals{{}};
        static constexpr std::array<Slot, 2> reads0{{
            {1, Where::GIVEN, Axes::BH, 1, 0, 0, false, false},
            {0, Where::CARRIED, Axes::BH, 0, 0, 0, false, false}
        }};
        static constexpr std::array<Slot, 4> reads1{{
            {4, Where::PRODUCT, Axes::BH, 0, 0, 0, false, false},
            {2, Where::GIVEN, Axes::H, 2, 0, 0, false, false},
            {3, Where::GATE, Axes::TBH, 3, 0, 0, false, false},
            {7, Where::KEPT, Axes::BH, 0, 0, 0, false, false}
        }};
        static constexpr auto reads = std::make_tuple(reads0, reads1);
        static constexpr std::array<Slot, 1> results0{{
            {7, Where::KEPT, Axes::BH, 0, 0, 0, false, false}
        }};
        static constexpr std::array<Slot, 2> results1{{
            {5, Where::GIVEN, Axes::TBH, 4, 0, 0, false, false},
            {6, Where::CARRIED, Axes::BH, 5, 0, 0, false, false}
        }};
        static constexpr auto results = std::make_tuple(results0, results1);
        static constexpr std::array<Onward, 1> onward{{
            {6, 0, 0}
        }};
        template <class V, class Valid, class Reset>
        SEQCELLS_INLINE static void row0([[maybe_unused]] V* v, [[maybe_unused]] Valid valid, [[maybe_unused]] Reset reset) {

        }
        template <class V, class Valid, class Reset>
        SEQCELLS_INLINE static void units0([[maybe_unused]] V* v, [[maybe_unused]] Valid valid, [[maybe_unused]] Reset reset) {
            const V reset_state_h = v[1];
            const V carried_h = v[0];
            const auto where_of_3 = where(reset, reset_state_h, carried_h);
            v[7] = where_of_3;
        }
        template <class V, class Valid, class Reset>
        SEQCELLS_INLINE static void row1([[maybe_unused]] V* v, [[maybe_unused]] Valid valid, [[maybe_unused]] Reset reset) {

        }
        template <class V, class Valid, class Reset>
        SEQCELLS_INLINE static void units1([[maybe_unused]] V* v, [[maybe_unused]] Valid valid, [[maybe_unused]] Reset reset) {
            using T = scalar<V>;
            const V hh_0 = v[4];
            const V bias_hh_h = v[2];
            const V x_h = v[3];
            const V where_of_3 = v[7];
            const auto h = relu(x_h + (hh_0 + bias_hh_h));
            const auto where_of_2 = where(valid, h, where_of_3);
            const auto where_of = where(valid, h, T(0.0));
            v[6] = where_of_2;
            v[5] = where_of;
        }
        template <int K, class V, class Valid, class Reset>
        SEQCELLS_INLINE static void row(V* v, Valid valid, Reset reset) {
            if constexpr (K == 0) row0(v, valid, reset);
            if constexpr (K == 1) row1(v, valid, reset);
        }
        template <int K, class V, class Valid, class Reset>
        SEQCELLS_INLINE static void units(V* v, Valid valid, Reset reset) {
            if constexpr (K == 0) units0(v, valid, reset);
            if constexpr (K == 1) units1(v, valid, reset);
        }
    };
    struct Backward {
        static constexpr int values = 11, stages = 2;
        static constexpr int letters = 1, gates_at = 1;
        static constexpr int sums = 1, gates = 1, by = -1;
        static constexpr int ahead = 4;
        static constexpr bool side_by_side = false;
        static constexpr std::array<int, 2> letter{0, 0};
        static constexpr std::array<int, 2> follows{-1, 0};
        static constexpr std::array<const char* const, 11> names{{
            "grad_final.h",
            "grad_output",
            "reset_state.h",
            "previous",
            "output",
            "grad_gates_x",
            "grad_initial.h",
            "grad_reset_state.h",
            "weight_hh",
            "grad_bias_ih",
            "grad_bias_hh"
        }};
        static constexpr std::array<Kept, 1> keep{{{false, true, -1, 0}}};
        static constexpr std::array<Multiplicand, 1> operands{{{1, {10}, {0}, 0, true}}};
        static constexpr std::array<Multiplied, 1> products{{{1, 8, 0, 0, 1, 1, true}}};
        static constexpr std::array<Reduction, 0> reductions{{}};
        static constexpr std::array<Total, 2> totals{{{9, 0, true, 0, true, 0}, {10, 0, true, 0, true, 0}}};
        static constexpr std::array<Slot, 3> reads0{{
            {0, Where::CARRIED, Axes::BH, 0, 0, 0, false, false},
            {1, Where::GIVEN, Axes::TBH, 1, 0, 0, false, false},
            {4, Where::GIVEN, Axes::TBH, 4, 0, 0, false, false}
        }};
        static constexpr std::array<Slot, 2> reads1{{
            {5, Where::PRODUCT, Axes::BH, 0, 0, 0, false, false},
            {9, Where::KEPT, Axes::BH, 0, 0, 0, false, false}
        }};
        static constexpr auto reads = std::make_tuple(reads0, reads1);
        static constexpr std::array<Slot, 3> results0{{
            {6, Where::GIVEN, Axes::TBH, 5, 0, 0, false, false},
            {6, Where::SUM, Axes::H, 0, 0, 0, false, false},
            {9, Where::KEPT, Axes::BH, 0, 0, 0, false, false}
        }};
        static constexpr std::array<Slot, 2> results1{{
            {7, Where::CARRIED, Axes::BH, 6, 0, 0, true, false},
            {8, Where::GIVEN, Axes::BH, 7, 0, 0, true, true}
        }};
        static constexpr auto results = std::make_tuple(results0, results1);
        static constexpr std::array<Onward, 1> onward{{
            {7, 0, 0}
        }};
        template <class V, class Valid, class Reset>
        SEQCELLS_INLINE static void row0([[maybe_unused]] V* v, [[maybe_unused]] Valid valid, [[maybe_unused]] Reset reset) {

        }
        template <class V, class Valid, class Reset>
        SEQCELLS_INLINE static void units0([[maybe_unused]] V* v, [[maybe_unused]] Valid valid, [[maybe_unused]] Reset reset) {
            using T = scalar<V>;
            const V d_carried_h = v[0];
            const V d_output = v[1];
            const V after_h = v[4];
            const auto where_of_2 = where(valid, T(0.0), d_carried_h);
            const auto d_h = where(valid, d_output + d_carried_h, T(0.0));
            const auto where_of_3 = where(after_h > T(0.0), d_h, V{} + T(0.0));
            const auto d_x_h = where(valid, where_of_3, T(0.0));
            v[9] = where_of_2;
            v[10] = where_of_3;
            v[6] = d_x_h;
        }
        template <class V, class Valid, class Reset>
        SEQCELLS_INLINE static void row1([[maybe_unused]] V* v, [[maybe_unused]] Valid valid, [[maybe_unused]] Reset reset) {

        }
        template <class V, class Valid, class Reset>
        SEQCELLS_INLINE static void units1([[maybe_unused]] V* v, [[maybe_unused]] Valid valid, [[maybe_unused]] Reset reset) {
            using T = scalar<V>;
            const V back_hh = v[5];
            const V where_of_2 = v[9];
            const auto t = where_of_2 + where(valid, back_hh, T(0.0));
            const auto d_reset_state_h = where(reset, t, T(0.0));
            const auto where_of = where(reset, T(0.0), t);
            v[8] = d_reset_state_h;
            v[7] = where_of;
        }
        template <int K, class V, class Valid, class Reset>
        SEQCELLS_INLINE static void row(V* v, Valid valid, Reset reset) {
            if constexpr (K == 0) row0(v, valid, reset);
            if constexpr (K == 1) row1(v, valid, reset);
        }
        template <int K, class V, class Valid, class Reset>
        SEQCELLS_INLINE static void units(V* v, Valid valid, Reset reset) {
            if constexpr (K == 0) units0(v, valid, reset);
            if constexpr (K == 1) units1(v, valid, reset);
        }
    };
};
}

// LSTM whose gates see the cell state (Gers & Schmidhuber 2000): i and f see c_{t-1}, o sees c_t.
//
// input = sigmoid(x.i + r.i + p.i * s.c)
// forget = sigmoid(x.f + r.f + p.f * s.c)
// candidate = tanh(x.g + r.g)
// cell = forget * s.c + input * candidate
// output = sigmoid(x.o + r.o + p.o * cell)
// return output * tanh(cell), cell
namespace peephole_lstm {
struct Equations {
    struct Forward {
        static constexpr int values = 28, stages = 2;
        static constexpr int letters = 1, gates_at = 1;
        static constexpr int sums = 0, gates = 4, by = 1;
        static constexpr int ahead = 8;
        static constexpr bool side_by_side = true;
        static constexpr std::array<int, 2> letter{0, 0};
        static constexpr std::array<int, 2> follows{-1, 0};
        static constexpr std::array<const char* const, 13> names{{
            "initial.h",
            "initial.c",
            "reset_state.h",
            "reset_state.c",
            "weight_peephole",
            "bias_hh",
            "gates_x",
            "output",
            "saved",
            "after.c",
            "final.h",
            "final.c",
            "weight_hh"
        }};
        static constexpr std::array<Kept, 2> keep{{{false, false, -1, 0}, {false, true, 0, 0}}};
        static constexpr std::array<Multiplicand, 1> operands{{{1, {27}, {0}, 0, true}}};
        static constexpr std::array<Multiplied, 1> products{{{1, 12, 0, 0, 4, 1, false}}};
        static constexpr std::array<Reduction, 0> reductions{{}};
        static constexpr std::array<Total, 0> totals{{}};
        static constexpr std::array<Slot, 4> reads0{{
            {2, Where::GIVEN, Axes::BH, 2, 0, 0, false, false},
            {0, Where::CARRIED, Axes::BH, 0, 0, 0, false, false},
            {3, Where::GIVEN, Axes::BH, 3, 0, 0, false, false},
            {1, Where::CARRIED, Axes::BH, 1, 0, 0, false, false}
        }};
        static constexpr std::array<Slot, 17> reads1{{
            {15, Where::PRODUCT, Axes::BH, 0, 0, 0, false, false},
            {6, Where::GIVEN, Axes::H, 5, 0, 0, false, false},
            {16, Where::PRODUCT, Axes::BH, 0, 1, 0, false, false},
            {7, Where::GIVEN, Axes::H, 5, 1, 0, false, false},
            {17, Where::PRODUCT, Axes::BH, 0, 2, 0, false, false},
            {8, Where::GIVEN, Axes::H, 5, 2, 0, false, false},
            {18, Where::PRODUCT, Axes::BH, 0, 3, 0, false, false},
            {9, Where::GIVEN, Axes::H, 5, 3, 0, false, false},
            {10, Where::GATE, Axes::TBH, 6, 0, 0, false, false},
            {4, Where::GIVEN, Axes::H, 4, 0, 0, false, false},
            {26, Where::KEPT, Axes::BH, 0, 0, 0, false, false},
            {11, Where::GATE, Axes::TBH, 6, 1, 0, false, false},
            {5, Where::GIVEN, Axes::H, 4, 1, 0, false, false},
            {12, Where::GATE, Axes::TBH, 6, 2, 0, false, false},
            {13, Where::GATE, Axes::TBH, 6, 3, 0, false, false},
            {14, Where::GIVEN, Axes::H, 4, 2, 0, false, false},
            {27, Where::KEPT, Axes::BH, 0, 1, 0, false, false}
        }};
        static constexpr auto reads = std::make_tuple(reads0, reads1);
        static constexpr std::array<Slot, 2> results0{{
            {26, Where::KEPT, Axes::BH, 0, 0, 0, false, false},
            {27, Where::KEPT, Axes::BH, 0, 1, 0, false, false}
        }};
        static constexpr std::array<Slot, 8> results1{{
            {19, Where::GIVEN, Axes::TBH, 7, 0, 0, false, false},
            {20, Where::GIVEN, Axes::TBH, 8, 0, 0, true, false},
            {21, Where::GIVEN, Axes::TBH, 8, 1, 0, true, false},
            {22, Where::GIVEN, Axes::TBH, 8, 2, 0, true, false},
            {23, Where::GIVEN, Axes::TBH, 8, 3, 0, true, false},
            {24, Where::GIVEN, Axes::TBH, 9, 0, 0, true, false},
            {25, Where::CARRIED, Axes::BH, 10, 0, 0, false, false},
            {24, Where::CARRIED, Axes::BH, 11, 0, 0, false, false}
        }};
        static constexpr auto results = std::make_tuple(results0, results1);
        static constexpr std::array<Onward, 2> onward{{
            {25, 0, 0},
            {24, 1, 0}
        }};
        template <class V, class Valid, class Reset>
        SEQCELLS_INLINE static void row0([[maybe_unused]] V* v, [[maybe_unused]] Valid valid, [[maybe_unused]] Reset reset) {

        }
        template <class V, class Valid, class Reset>
        SEQCELLS_INLINE static void units0([[maybe_unused]] V* v, [[maybe_unused]] Valid valid, [[maybe_unused]] Reset reset) {
            const V reset_state_h = v[2];
            const V carried_h = v[0];
            const V reset_state_c = v[3];
            const V carried_c = v[1];
            const auto where_of_5 = where(reset, reset_state_h, carried_h);
            const auto where_of_4 = where(reset, reset_state_c, carried_c);
            v[27] = where_of_5;
            v[26] = where_of_4;
        }
        template <class V, class Valid, class Reset>
        SEQCELLS_INLINE static void row1([[maybe_unused]] V* v, [[maybe_unused]] Valid valid, [[maybe_unused]] Reset reset) {

        }
        template <class V, class Valid, class Reset>
        SEQCELLS_INLINE static void units1([[maybe_unused]] V* v, [[maybe_unused]] Valid valid, [[maybe_unused]] Reset reset) {
            using T = scalar<V>;
            const V hh_0 = v[15];
            const V bias_hh_i = v[6];
            const V hh_1 = v[16];
            const V bias_hh_f = v[7];
            const V hh_2 = v[17];
            const V bias_hh_g = v[8];
            const V hh_3 = v[18];
            const V bias_hh_o = v[9];
            const V x_i = v[10];
            const V p_i = v[4];
            const V where_of_4 = v[26];
            const V x_f = v[11];
            const V p_f = v[5];
            const V x_g = v[12];
            const V x_o = v[13];
            const V p_o = v[14];
            const V where_of_5 = v[27];
            const auto input = sigmoid(x_i + (hh_0 + bias_hh_i) + p_i * where_of_4);
            const auto forget = sigmoid(x_f + (hh_1 + bias_hh_f) + p_f * where_of_4);
            const auto candidate = tanh(x_g + (hh_2 + bias_hh_g));
            const auto cell = forget * where_of_4 + input * candidate;
            const auto output = sigmoid(x_o + (hh_3 + bias_hh_o) + p_o * cell);
            const auto h = output * tanh(cell);
            const auto where_of_3 = where(valid, h, where_of_5);
            const auto where_of_2 = where(valid, cell, where_of_4);
            const auto where_of = where(valid, h, T(0.0));
            v[20] = input;
            v[21] = forget;
            v[22] = candidate;
            v[23] = output;
            v[25] = where_of_3;
            v[24] = where_of_2;
            v[19] = where_of;
        }
        template <int K, class V, class Valid, class Reset>
        SEQCELLS_INLINE static void row(V* v, Valid valid, Reset reset) {
            if constexpr (K == 0) row0(v, valid, reset);
            if constexpr (K == 1) row1(v, valid, reset);
        }
        template <int K, class V, class Valid, class Reset>
        SEQCELLS_INLINE static void units(V* v, Valid valid, Reset reset) {
            if constexpr (K == 0) units0(v, valid, reset);
            if constexpr (K == 1) units1(v, valid, reset);
        }
    };
    struct Backward {
        static constexpr int values = 33, stages = 2;
        static constexpr int letters = 1, gates_at = 1;
        static constexpr int sums = 7, gates = 4, by = -1;
        static constexpr int ahead = 4;
        static constexpr bool side_by_side = false;
        static constexpr std::array<int, 2> letter{0, 0};
        static constexpr std::array<int, 2> follows{-1, 0};
        static constexpr std::array<const char* const, 19> names{{
            "grad_final.h",
            "grad_final.c",
            "grad_output",
            "reset_state.h",
            "previous",
            "reset_state.c",
            "after.c",
            "saved",
            "weight_peephole",
            "grad_reset_state.c",
            "grad_gates_x",
            "grad_initial.h",
            "grad_initial.c",
            "grad_reset_state.h",
            "weight_hh",
            "grad_bias_ih",
            "grad_bias_hh",
            "grad_weight_peephole",
            "initial.c"
        }};
        static constexpr std::array<Kept, 2> keep{{{false, true, -1, 0}, {false, false, -1, 0}}};
        static constexpr std::array<Multiplicand, 1> operands{{{4, {29, 30, 31, 32}, {0, 0, 0, 0}, 0, true}}};
        static constexpr std::array<Multiplied, 1> products{{{1, 14, 0, 0, 4, 1, true}}};
        static constexpr std::array<Reduction, 0> reductions{{}};
        static constexpr std::array<Total, 11> totals{{{15, 0, true, 0, true, 0}, {16, 0, true, 0, true, 0}, {15, 1, true, 1, true, 0}, {16, 1, true, 1, true, 0}, {15, 2, true, 2, true, 0}, {16, 2, true, 2, true, 0}, {15, 3, true, 3, true, 0}, {16, 3, true, 3, true, 0}, {17, 0, true, 4, true, 0}, {17, 1, true, 5, true, 0}, {17, 2, true, 6, true, 0}}};
        static constexpr std::array<Slot, 13> reads0{{
            {1, Where::CARRIED, Axes::BH, 1, 0, 0, false, false},
            {0, Where::CARRIED, Axes::BH, 0, 0, 0, false, false},
            {2, Where::GIVEN, Axes::TBH, 2, 0, 0, false, false},
            {5, Where::GIVEN, Axes::BH, 5, 0, 0, false, false},
            {6, Where::BEFORE, Axes::TBH, 6, 0, 18, true, false},
            {7, Where::GIVEN, Axes::TBH, 6, 0, 0, true, false},
            {8, Where::GIVEN, Axes::TBH, 7, 3, 0, true, false},
            {9, Where::GIVEN, Axes::H, 8, 2, 0, false, false},
            {10, Where::GIVEN, Axes::TBH, 7, 2, 0, true, false},
            {11, Where::GIVEN, Axes::TBH, 7, 0, 0, true, false},
            {12, Where::GIVEN, Axes::TBH, 7, 1, 0, true, false},
            {13, Where::GIVEN, Axes::H, 8, 1, 0, false, false},
            {14, Where::GIVEN, Axes::H, 8, 0, 0, false, false}
        }};
        static constexpr std::array<Slot, 3> reads1{{
            {15, Where::PRODUCT, Axes::BH, 0, 0, 0, false, false},
            {27, Where::KEPT, Axes::BH, 0, 0, 0, false, false},
            {28, Where::KEPT, Axes::BH, 0, 1, 0, false, false}
        }};
        static constexpr auto reads = std::make_tuple(reads0, reads1);
        static constexpr std::array<Slot, 14> results0{{
            {16, Where::GIVEN, Axes::BH, 9, 0, 0, true, true},
            {17, Where::GIVEN, Axes::TBH, 10, 0, 0, false, false},
            {18, Where::GIVEN, Axes::TBH, 10, 1, 0, false, false},
            {19, Where::GIVEN, Axes::TBH, 10, 2, 0, false, false},
            {20, Where::GIVEN, Axes::TBH, 10, 3, 0, false, false},
            {17, Where::SUM, Axes::H, 0, 0, 0, false, false},
            {18, Where::SUM, Axes::H, 0, 1, 0, false, false},
            {19, Where::SUM, Axes::H, 0, 2, 0, false, false},
            {20, Where::SUM, Axes::H, 0, 3, 0, false, false},
            {21, Where::SUM, Axes::H, 0, 4, 0, false, false},
            {22, Where::SUM, Axes::H, 0, 5, 0, false, false},
            {23, Where::SUM, Axes::H, 0, 6, 0, false, false},
            {27, Where::KEPT, Axes::BH, 0, 0, 0, false, false},
            {28, Where::KEPT, Axes::BH, 0, 1, 0, false, false}
        }};
        static constexpr std::array<Slot, 3> results1{{
            {24, Where::CARRIED, Axes::BH, 11, 0, 0, true, false},
            {25, Where::CARRIED, Axes::BH, 12, 0, 0, true, false},
            {26, Where::GIVEN, Axes::BH, 13, 0, 0, true, true}
        }};
        static constexpr auto results = std::make_tuple(results0, results1);
        static constexpr std::array<Onward, 2> onward{{
            {24, 0, 0},
            {25, 1, 0}
        }};
        template <class V, class Valid, class Reset>
        SEQCELLS_INLINE static void row0([[maybe_unused]] V* v, [[maybe_unused]] Valid valid, [[maybe_unused]] Reset reset) {

        }
        template <class V, class Valid, class Reset>
        SEQCELLS_INLINE static void units0([[maybe_unused]] V* v, [[maybe_unused]] Valid valid, [[maybe_unused]] Reset reset) {
            using T = scalar<V>;
            const V d_carried_c = v[1];
            const V d_carried_h = v[0];
            const V d_output = v[2];
            const V reset_state_c = v[5];
            const V before_c = v[6];
            const V after_c = v[7];
            const V saved_output = v[8];
            const V p_o = v[9];
            const V saved_candidate = v[10];
            const V saved_input = v[11];
            const V saved_forget = v[12];
            const V p_f = v[13];
            const V p_i = v[14];
            const auto where_of_3 = where(valid, T(0.0), d_carried_h);
            const auto d_h = where(valid, d_output + d_carried_h, T(0.0));
            const auto where_of_4 = where(reset, reset_state_c, before_c);
            const auto tanh_of = tanh(after_c);
            const auto d_output_2 = d_h * tanh_of;
            const auto t_5 = d_output_2 * saved_output * (T(1.0) - saved_output);
            const auto d_p_o = where(valid, t_5 * after_c, T(0.0));
            const auto d_cell = where(valid, d_carried_c, T(0.0)) + d_h * saved_output * (T(1.0) - tanh_of * tanh_of) + t_5 * p_o;
            const auto d_x_o = where(valid, t_5, T(0.0));
            const auto d_input = d_cell * saved_candidate;
            const auto d_candidate = d_cell * saved_input;
            const auto d_forget = d_cell * where_of_4;
            const auto t_4 = d_candidate * (T(1.0) - saved_candidate * saved_candidate);
            const auto d_x_g = where(valid, t_4, T(0.0));
            const auto t_3 = d_forget * saved_forget * (T(1.0) - saved_forget);
            const auto d_p_f = where(valid, t_3 * where_of_4, T(0.0));
            const auto d_x_f = where(valid, t_3, T(0.0));
            const auto t_2 = d_input * saved_input * (T(1.0) - saved_input);
            const auto d_p_i = where(valid, t_2 * where_of_4, T(0.0));
            const auto t = where(valid, T(0.0), d_carried_c) + where(valid, d_cell * saved_forget, T(0.0)) + where(valid, t_3 * p_f, T(0.0)) + where(valid, t_2 * p_i, T(0.0));
            const auto d_x_i = where(valid, t_2, T(0.0));
            const auto d_reset_state_c = where(reset, t, T(0.0));
            v[27] = where_of_3;
            v[32] = t_5;
            v[23] = d_p_o;
            v[20] = d_x_o;
            v[31] = t_4;
            v[19] = d_x_g;
            v[30] = t_3;
            v[22] = d_p_f;
            v[18] = d_x_f;
            v[29] = t_2;
            v[21] = d_p_i;
            v[28] = t;
            v[17] = d_x_i;
            v[16] = d_reset_state_c;
        }
        template <class V, class Valid, class Reset>
        SEQCELLS_INLINE static void row1([[maybe_unused]] V* v, [[maybe_unused]] Valid valid, [[maybe_unused]] Reset reset) {

        }
        template <class V, class Valid, class Reset>
        SEQCELLS_INLINE static void units1([[maybe_unused]] V* v, [[maybe_unused]] Valid valid, [[maybe_unused]] Reset reset) {
            using T = scalar<V>;
            const V back_hh = v[15];
            const V where_of_3 = v[27];
            const V t = v[28];
            const auto t_6 = where_of_3 + where(valid, back_hh, T(0.0));
            const auto where_of_2 = where(reset, T(0.0), t);
            const auto d_reset_state_h = where(reset, t_6, T(0.0));
            const auto where_of = where(reset, T(0.0), t_6);
            v[25] = where_of_2;
            v[26] = d_reset_state_h;
            v[24] = where_of;
        }
        template <int K, class V, class Valid, class Reset>
        SEQCELLS_INLINE static void row(V* v, Valid valid, Reset reset) {
            if constexpr (K == 0) row0(v, valid, reset);
            if constexpr (K == 1) row1(v, valid, reset);
        }
        template <int K, class V, class Valid, class Reset>
        SEQCELLS_INLINE static void units(V* v, Valid valid, Reset reset) {
            if constexpr (K == 0) units0(v, valid, reset);
            if constexpr (K == 1) units1(v, valid, reset);
        }
    };
};
}

// Long short-term memory with a forget gate (Hochreiter & Schmidhuber 1997; Gers et al. 2000), as torch.nn.
//
// input = sigmoid(x.i + r.i)
// forget = sigmoid(x.f + r.f)
// candidate = tanh(x.g + r.g)
// output = sigmoid(x.o + r.o)
// cell = forget * s.c + input * candidate
// return output * tanh(cell), cell
namespace lstm_with_projection_1 {
struct Equations {
    struct Forward {
        static constexpr int values = 27, stages = 3;
        static constexpr int letters = 2, gates_at = 1;
        static constexpr int sums = 0, gates = 4, by = 1;
        static constexpr int ahead = 8;
        static constexpr bool side_by_side = true;
        static constexpr std::array<int, 4> letter{0, 0, 1, 1};
        static constexpr std::array<int, 4> follows{-1, 0, 3, -1};
        static constexpr std::array<const char* const, 13> names{{
            "initial.h",
            "initial.c",
            "reset_state.h",
            "reset_state.c",
            "bias_hh",
            "gates_x",
            "saved",
            "after.c",
            "final.c",
            "output",
            "final.h",
            "weight_hh",
            "weight_hr"
        }};
        static constexpr std::array<Kept, 2> keep{{{false, false, -1, 0}, {false, true, 0, 0}}};
        static constexpr std::array<Multiplicand, 2> operands{{{1, {25}, {3}, 1, true}, {1, {26}, {1}, 0, false}}};
        static constexpr std::array<Multiplied, 2> products{{{1, 11, 0, 0, 4, 1, false}, {2, 12, 1, 0, 1, 1, false}}};
        static constexpr std::array<Reduction, 0> reductions{{}};
        static constexpr std::array<Total, 0> totals{{}};
        static constexpr std::array<Slot, 2> reads0{{
            {3, Where::GIVEN, Axes::BH, 3, 0, 0, false, false},
            {1, Where::CARRIED, Axes::BH, 1, 0, 0, false, false}
        }};
        static constexpr std::array<Slot, 13> reads1{{
            {12, Where::PRODUCT, Axes::BH, 0, 0, 0, false, false},
            {4, Where::GIVEN, Axes::H, 4, 0, 0, false, false},
            {13, Where::PRODUCT, Axes::BH, 0, 1, 0, false, false},
            {5, Where::GIVEN, Axes::H, 4, 1, 0, false, false},
            {14, Where::PRODUCT, Axes::BH, 0, 2, 0, false, false},
            {6, Where::GIVEN, Axes::H, 4, 2, 0, false, false},
            {15, Where::PRODUCT, Axes::BH, 0, 3, 0, false, false},
            {7, Where::GIVEN, Axes::H, 4, 3, 0, false, false},
            {8, Where::GATE, Axes::TBH, 5, 0, 0, false, false},
            {9, Where::GATE, Axes::TBH, 5, 1, 0, false, false},
            {10, Where::GATE, Axes::TBH, 5, 2, 0, false, false},
            {11, Where::GATE, Axes::TBH, 5, 3, 0, false, false},
            {24, Where::KEPT, Axes::BH, 0, 0, 0, false, false}
        }};
        static constexpr std::array<Slot, 2> reads2{{
            {16, Where::PRODUCT, Axes::BH, 1, 0, 0, false, false},
            {25, Where::KEPT, Axes::BH, 0, 1, 0, false, false}
        }};
        static constexpr std::array<Slot, 2> reads3{{
            {2, Where::GIVEN, Axes::BH, 2, 0, 0, false, false},
            {0, Where::CARRIED, Axes::BH, 0, 0, 0, false, false}
        }};
        static constexpr auto reads = std::make_tuple(reads0, reads1, reads2, reads3);
        static constexpr std::array<Slot, 1> results0{{
            {24, Where::KEPT, Axes::BH, 0, 0, 0, false, false}
        }};
        static constexpr std::array<Slot, 6> results1{{
            {17, Where::GIVEN, Axes::TBH, 6, 0, 0, true, false},
            {18, Where::GIVEN, Axes::TBH, 6, 1, 0, true, false},
            {19, Where::GIVEN, Axes::TBH, 6, 2, 0, true, false},
            {20, Where::GIVEN, Axes::TBH, 6, 3, 0, true, false},
            {21, Where::GIVEN, Axes::TBH, 7, 0, 0, true, false},
            {21, Where::CARRIED, Axes::BH, 8, 0, 0, false, false}
        }};
        static constexpr std::array<Slot, 2> results2{{
            {22, Where::GIVEN, Axes::TBH, 9, 0, 0, false, false},
            {23, Where::CARRIED, Axes::BH, 10, 0, 0, false, false}
        }};
        static constexpr std::array<Slot, 1> results3{{
            {25, Where::KEPT, Axes::BH, 0, 1, 0, false, false}
        }};
        static constexpr auto results = std::make_tuple(results0, results1, results2, results3);
        static constexpr std::array<Onward, 2> onward{{
            {23, 0, 1},
            {21, 1, 0}
        }};
        template <class V, class Valid, class Reset>
        SEQCELLS_INLINE static void row0([[maybe_unused]] V* v, [[maybe_unused]] Valid valid, [[maybe_unused]] Reset reset) {

        }
        template <class V, class Valid, class Reset>
        SEQCELLS_INLINE static void units0([[maybe_unused]] V* v, [[maybe_unused]] Valid valid, [[maybe_unused]] Reset reset) {
            const V reset_state_c = v[3];
            const V carried_c = v[1];
            const auto where_of_4 = where(reset, reset_state_c, carried_c);
            v[24] = where_of_4;
        }
        template <class V, class Valid, class Reset>
        SEQCELLS_INLINE static void row1([[maybe_unused]] V* v, [[maybe_unused]] Valid valid, [[maybe_unused]] Reset reset) {

        }
        template <class V, class Valid, class Reset>
        SEQCELLS_INLINE static void units1([[maybe_unused]] V* v, [[maybe_unused]] Valid valid, [[maybe_unused]] Reset reset) {
            const V hh_0 = v[12];
            const V bias_hh_i = v[4];
            const V hh_1 = v[13];
            const V bias_hh_f = v[5];
            const V hh_2 = v[14];
            const V bias_hh_g = v[6];
            const V hh_3 = v[15];
            const V bias_hh_o = v[7];
            const V x_i = v[8];
            const V x_f = v[9];
            const V x_g = v[10];
            const V x_o = v[11];
            const V where_of_4 = v[24];
            const auto input = sigmoid(x_i + (hh_0 + bias_hh_i));
            const auto forget = sigmoid(x_f + (hh_1 + bias_hh_f));
            const auto candidate = tanh(x_g + (hh_2 + bias_hh_g));
            const auto output = sigmoid(x_o + (hh_3 + bias_hh_o));
            const auto cell = forget * where_of_4 + input * candidate;
            const auto t = output * tanh(cell);
            const auto where_of = where(valid, cell, where_of_4);
            v[17] = input;
            v[18] = forget;
            v[19] = candidate;
            v[20] = output;
            v[26] = t;
            v[21] = where_of;
        }
        template <class V, class Valid, class Reset>
        SEQCELLS_INLINE static void row2([[maybe_unused]] V* v, [[maybe_unused]] Valid valid, [[maybe_unused]] Reset reset) {

        }
        template <class V, class Valid, class Reset>
        SEQCELLS_INLINE static void units2([[maybe_unused]] V* v, [[maybe_unused]] Valid valid, [[maybe_unused]] Reset reset) {
            using T = scalar<V>;
            const V h = v[16];
            const V where_of_5 = v[25];
            const auto where_of_3 = where(valid, h, where_of_5);
            const auto where_of_2 = where(valid, h, T(0.0));
            v[23] = where_of_3;
            v[22] = where_of_2;
        }
        template <class V, class Valid, class Reset>
        SEQCELLS_INLINE static void row3([[maybe_unused]] V* v, [[maybe_unused]] Valid valid, [[maybe_unused]] Reset reset) {

        }
        template <class V, class Valid, class Reset>
        SEQCELLS_INLINE static void units3([[maybe_unused]] V* v, [[maybe_unused]] Valid valid, [[maybe_unused]] Reset reset) {
            const V reset_state_h = v[2];
            const V carried_h = v[0];
            const auto where_of_5 = where(reset, reset_state_h, carried_h);
            v[25] = where_of_5;
        }
        template <int K, class V, class Valid, class Reset>
        SEQCELLS_INLINE static void row(V* v, Valid valid, Reset reset) {
            if constexpr (K == 0) row0(v, valid, reset);
            if constexpr (K == 1) row1(v, valid, reset);
            if constexpr (K == 2) row2(v, valid, reset);
            if constexpr (K == 3) row3(v, valid, reset);
        }
        template <int K, class V, class Valid, class Reset>
        SEQCELLS_INLINE static void units(V* v, Valid valid, Reset reset) {
            if constexpr (K == 0) units0(v, valid, reset);
            if constexpr (K == 1) units1(v, valid, reset);
            if constexpr (K == 2) units2(v, valid, reset);
            if constexpr (K == 3) units3(v, valid, reset);
        }
    };
    struct Backward {
        static constexpr int values = 34, stages = 3;
        static constexpr int letters = 2, gates_at = 1;
        static constexpr int sums = 4, gates = 4, by = -1;
        static constexpr int ahead = 4;
        static constexpr bool side_by_side = false;
        static constexpr std::array<int, 4> letter{0, 0, 1, 1};
        static constexpr std::array<int, 4> follows{-1, 0, 3, -1};
        static constexpr std::array<const char* const, 20> names{{
            "grad_final.h",
            "grad_final.c",
            "grad_output",
            "reset_state.h",
            "previous",
            "reset_state.c",
            "after.c",
            "saved",
            "multiplied",
            "grad_initial.c",
            "grad_reset_state.c",
            "grad_gates_x",
            "grad_initial.h",
            "grad_reset_state.h",
            "grad_products.P",
            "weight_hr",
            "weight_hh",
            "grad_bias_ih",
            "grad_bias_hh",
            "initial.c"
        }};
        static constexpr std::array<Kept, 5> keep{{{false, false, -1, 0}, {false, false, -1, 0}, {false, false, -1, 0}, {false, true, -1, 0}, {false, true, -1, 0}}};
        static constexpr std::array<Multiplicand, 2> operands{{{1, {29}, {3}, 1, true}, {4, {30, 31, 32, 33}, {1, 1, 1, 1}, 0, false}}};
        static constexpr std::array<Multiplied, 2> products{{{1, 15, 0, 0, 1, 1, true}, {2, 16, 1, 0, 4, 1, true}}};
        static constexpr std::array<Reduction, 0> reductions{{}};
        static constexpr std::array<Total, 8> totals{{{17, 0, true, 0, true, 0}, {18, 0, true, 0, true, 0}, {17, 1, true, 1, true, 0}, {18, 1, true, 1, true, 0}, {17, 2, true, 2, true, 0}, {18, 2, true, 2, true, 0}, {17, 3, true, 3, true, 0}, {18, 3, true, 3, true, 0}}};
        static constexpr std::array<Slot, 3> reads0{{
            {1, Where::CARRIED, Axes::BH, 1, 0, 0, false, false},
            {7, Where::GIVEN, Axes::TBH, 6, 0, 0, true, false},
            {8, Where::GIVEN, Axes::TBH, 7, 3, 0, true, false}
        }};
        static constexpr std::array<Slot, 11> reads1{{
            {5, Where::GIVEN, Axes::BH, 5, 0, 0, false, false},
            {6, Where::BEFORE, Axes::TBH, 6, 0, 19, true, false},
            {12, Where::PRODUCT, Axes::BH, 0, 0, 0, false, false},
            {24, Where::KEPT, Axes::BH, 0, 0, 0, false, false},
            {8, Where::GIVEN, Axes::TBH, 7, 3, 0, true, false},
            {25, Where::KEPT, Axes::BH, 0, 1, 0, false, false},
            {26, Where::KEPT, Axes::BH, 0, 2, 0, false, false},
            {9, Where::GIVEN, Axes::TBH, 7, 2, 0, true, false},
            {11, Where::GIVEN, Axes::TBH, 7, 0, 0, true, false},
            {10, Where::GIVEN, Axes::TBH, 7, 1, 0, true, false},
            {27, Where::KEPT, Axes::BH, 0, 3, 0, false, false}
        }};
        static constexpr std::array<Slot, 2> reads2{{
            {13, Where::PRODUCT, Axes::BH, 1, 0, 0, false, false},
            {28, Where::KEPT, Axes::BH, 0, 4, 0, false, false}
        }};
        static constexpr std::array<Slot, 2> reads3{{
            {0, Where::CARRIED, Axes::BH, 0, 0, 0, false, false},
            {2, Where::GIVEN, Axes::TBH, 2, 0, 0, false, false}
        }};
        static constexpr auto reads = std::make_tuple(reads0, reads1, reads2, reads3);
        static constexpr std::array<Slot, 5> results0{{
            {14, Where::GIVEN, Axes::TBH, 8, 0, 0, false, false},
            {24, Where::KEPT, Axes::BH, 0, 0, 0, false, false},
            {25, Where::KEPT, Axes::BH, 0, 1, 0, false, false},
            {26, Where::KEPT, Axes::BH, 0, 2, 0, false, false},
            {27, Where::KEPT, Axes::BH, 0, 3, 0, false, false}
        }};
        static constexpr std::array<Slot, 10> results1{{
            {15, Where::CARRIED, Axes::BH, 9, 0, 0, true, false},
            {16, Where::GIVEN, Axes::BH, 10, 0, 0, true, true},
            {17, Where::GIVEN, Axes::TBH, 11, 0, 0, false, false},
            {18, Where::GIVEN, Axes::TBH, 11, 1, 0, false, false},
            {19, Where::GIVEN, Axes::TBH, 11, 2, 0, false, false},
            {20, Where::GIVEN, Axes::TBH, 11, 3, 0, false, false},
            {17, Where::SUM, Axes::H, 0, 0, 0, false, false},
            {18, Where::SUM, Axes::H, 0, 1, 0, false, false},
            {19, Where::SUM, Axes::H, 0, 2, 0, false, false},
            {20, Where::SUM, Axes::H, 0, 3, 0, false, false}
        }};
        static constexpr std::array<Slot, 2> results2{{
            {21, Where::CARRIED, Axes::BH, 12, 0, 0, true, false},
            {22, Where::GIVEN, Axes::BH, 13, 0, 0, true, true}
        }};
        static constexpr std::array<Slot, 2> results3{{
            {23, Where::GIVEN, Axes::TBH, 14, 0, 0, false, false},
            {28, Where::KEPT, Axes::BH, 0, 4, 0, false, false}
        }};
        static constexpr auto results = std::make_tuple(results0, results1, results2, results3);
        static constexpr std::array<Onward, 2> onward{{
            {21, 0, 1},
            {15, 1, 0}
        }};
        template <class V, class Valid, class Reset>
        SEQCELLS_INLINE static void row0([[maybe_unused]] V* v, [[maybe_unused]] Valid valid, [[maybe_unused]] Reset reset) {

        }
        template <class V, class Valid, class Reset>
        SEQCELLS_INLINE static void units0([[maybe_unused]] V* v, [[maybe_unused]] Valid valid, [[maybe_unused]] Reset reset) {
            using T = scalar<V>;
            const V d_carried_c = v[1];
            const V after_c = v[7];
            const V saved_output = v[8];
            const auto where_of_5 = where(valid, d_carried_c, T(0.0));
            const auto where_of_6 = where(valid, T(0.0), d_carried_c);
            const auto tanh_of = tanh(after_c);
            const auto where_of = where(valid, saved_output * tanh_of, T(0.0));
            const auto t = T(1.0) - tanh_of * tanh_of;
            v[26] = where_of_5;
            v[27] = where_of_6;
            v[24] = tanh_of;
            v[14] = where_of;
            v[25] = t;
        }
        template <class V, class Valid, class Reset>
        SEQCELLS_INLINE static void row1([[maybe_unused]] V* v, [[maybe_unused]] Valid valid, [[maybe_unused]] Reset reset) {

        }
        template <class V, class Valid, class Reset>
        SEQCELLS_INLINE static void units1([[maybe_unused]] V* v, [[maybe_unused]] Valid valid, [[maybe_unused]] Reset reset) {
            using T = scalar<V>;
            const V reset_state_c = v[5];
            const V before_c = v[6];
            const V back_hr = v[12];
            const V tanh_of = v[24];
            const V saved_output = v[8];
            const V t = v[25];
            const V where_of_5 = v[26];
            const V saved_candidate = v[9];
            const V saved_input = v[11];
            const V saved_forget = v[10];
            const V where_of_6 = v[27];
            const auto d_output_2 = back_hr * tanh_of;
            const auto d_cell = where_of_5 + back_hr * saved_output * t;
            const auto d_input = d_cell * saved_candidate;
            const auto d_candidate = d_cell * saved_input;
            const auto d_forget = d_cell * where(reset, reset_state_c, before_c);
            const auto t_6 = where_of_6 + where(valid, d_cell * saved_forget, T(0.0));
            const auto t_5 = d_output_2 * saved_output * (T(1.0) - saved_output);
            const auto d_x_o = where(valid, t_5, T(0.0));
            const auto t_4 = d_candidate * (T(1.0) - saved_candidate * saved_candidate);
            const auto d_x_g = where(valid, t_4, T(0.0));
            const auto t_3 = d_forget * saved_forget * (T(1.0) - saved_forget);
            const auto d_x_f = where(valid, t_3, T(0.0));
            const auto t_2 = d_input * saved_input * (T(1.0) - saved_input);
            const auto d_x_i = where(valid, t_2, T(0.0));
            const auto d_reset_state_c = where(reset, t_6, T(0.0));
            const auto where_of_2 = where(reset, T(0.0), t_6);
            v[33] = t_5;
            v[20] = d_x_o;
            v[32] = t_4;
            v[19] = d_x_g;
            v[31] = t_3;
            v[18] = d_x_f;
            v[30] = t_2;
            v[17] = d_x_i;
            v[16] = d_reset_state_c;
            v[15] = where_of_2;
        }
        template <class V, class Valid, class Reset>
        SEQCELLS_INLINE static void row2([[maybe_unused]] V* v, [[maybe_unused]] Valid valid, [[maybe_unused]] Reset reset) {

        }
        template <class V, class Valid, class Reset>
        SEQCELLS_INLINE static void units2([[maybe_unused]] V* v, [[maybe_unused]] Valid valid, [[maybe_unused]] Reset reset) {
            using T = scalar<V>;
            const V back_hh = v[13];
            const V where_of_7 = v[28];
            const auto t_7 = where_of_7 + where(valid, back_hh, T(0.0));
            const auto d_reset_state_h = where(reset, t_7, T(0.0));
            const auto where_of_3 = where(reset, T(0.0), t_7);
            v[22] = d_reset_state_h;
            v[21] = where_of_3;
        }
        template <class V, class Valid, class Reset>
        SEQCELLS_INLINE static void row3([[maybe_unused]] V* v, [[maybe_unused]] Valid valid, [[maybe_unused]] Reset reset) {

        }
        template <class V, class Valid, class Reset>
        SEQCELLS_INLINE static void units3([[maybe_unused]] V* v, [[maybe_unused]] Valid valid, [[maybe_unused]] Reset reset) {
            using T = scalar<V>;
            const V d_carried_h = v[0];
            const V d_output = v[2];
            const auto where_of_7 = where(valid, T(0.0), d_carried_h);
            const auto d_h = where(valid, d_output + d_carried_h, T(0.0));
            const auto where_of_4 = where(valid, d_h, T(0.0));
            v[28] = where_of_7;
            v[29] = d_h;
            v[23] = where_of_4;
        }
        template <int K, class V, class Valid, class Reset>
        SEQCELLS_INLINE static void row(V* v, Valid valid, Reset reset) {
            if constexpr (K == 0) row0(v, valid, reset);
            if constexpr (K == 1) row1(v, valid, reset);
            if constexpr (K == 2) row2(v, valid, reset);
            if constexpr (K == 3) row3(v, valid, reset);
        }
        template <int K, class V, class Valid, class Reset>
        SEQCELLS_INLINE static void units(V* v, Valid valid, Reset reset) {
            if constexpr (K == 0) units0(v, valid, reset);
            if constexpr (K == 1) units1(v, valid, reset);
            if constexpr (K == 2) units2(v, valid, reset);
            if constexpr (K == 3) units3(v, valid, reset);
        }
    };
};
}

// GRU as first published (Cho et al. 2014, arXiv:1406.1078): the reset gate before the candidate's product.
//
// reset = sigmoid(x.r + r.r)
// update = sigmoid(x.z + r.z)
// new = tanh(x.n + p.candidate(reset * s.h))
// return new + update * (s.h - new)
namespace gru_reset_before {
struct Equations {
    struct Forward {
        static constexpr int values = 18, stages = 3;
        static constexpr int letters = 1, gates_at = 1;
        static constexpr int sums = 0, gates = 3, by = 1;
        static constexpr int ahead = 8;
        static constexpr bool side_by_side = true;
        static constexpr std::array<int, 3> letter{0, 0, 0};
        static constexpr std::array<int, 3> follows{-1, -1, 0};
        static constexpr std::array<const char* const, 10> names{{
            "initial.h",
            "reset_state.h",
            "bias_hh",
            "gates_x",
            "bias_candidate",
            "saved",
            "output",
            "final.h",
            "weight_hh",
            "weight_candidate"
        }};
        static constexpr std::array<Kept, 2> keep{{{false, false, 0, 0}, {false, false, -1, 0}}};
        static constexpr std::array<Multiplicand, 2> operands{{{1, {16}, {0}, 0, true}, {1, {17}, {1}, 0, false}}};
        static constexpr std::array<Multiplied, 2> products{{{1, 8, 0, 0, 2, 1, false}, {2, 9, 1, 0, 1, 1, false}}};
        static constexpr std::array<Reduction, 0> reductions{{}};
        static constexpr std::array<Total, 0> totals{{}};
        static constexpr std::array<Slot, 2> reads0{{
            {1, Where::GIVEN, Axes::BH, 1, 0, 0, false, false},
            {0, Where::CARRIED, Axes::BH, 0, 0, 0, false, false}
        }};
        static constexpr std::array<Slot, 7> reads1{{
            {8, Where::PRODUCT, Axes::BH, 0, 0, 0, false, false},
            {2, Where::GIVEN, Axes::H, 2, 0, 0, false, false},
            {9, Where::PRODUCT, Axes::BH, 0, 1, 0, false, false},
            {3, Where::GIVEN, Axes::H, 2, 1, 0, false, false},
            {4, Where::GATE, Axes::TBH, 3, 0, 0, false, false},
            {5, Where::GATE, Axes::TBH, 3, 1, 0, false, false},
            {16, Where::KEPT, Axes::BH, 0, 0, 0, false, false}
        }};
        static constexpr std::array<Slot, 5> reads2{{
            {10, Where::PRODUCT, Axes::BH, 1, 0, 0, false, false},
            {6, Where::GIVEN, Axes::H, 4, 0, 0, false, false},
            {7, Where::GATE, Axes::TBH, 3, 2, 0, false, false},
            {16, Where::KEPT, Axes::BH, 0, 0, 0, false, false},
            {12, Where::KEPT, Axes::BH, 0, 1, 0, false, false}
        }};
        static constexpr auto reads = std::make_tuple(reads0, reads1, reads2);
        static constexpr std::array<Slot, 1> results0{{
            {16, Where::KEPT, Axes::BH, 0, 0, 0, false, false}
        }};
        static constexpr std::array<Slot, 3> results1{{
            {11, Where::GIVEN, Axes::TBH, 5, 0, 0, true, false},
            {12, Where::GIVEN, Axes::TBH, 5, 1, 0, true, false},
            {12, Where::KEPT, Axes::BH, 0, 1, 0, false, false}
        }};
        static constexpr std::array<Slot, 3> results2{{
            {13, Where::GIVEN, Axes::TBH, 6, 0, 0, false, false},
            {14, Where::GIVEN, Axes::TBH, 5, 2, 0, true, false},
            {15, Where::CARRIED, Axes::BH, 7, 0, 0, false, false}
        }};
        static constexpr auto results = std::make_tuple(results0, results1, results2);
        static constexpr std::array<Onward, 1> onward{{
            {15, 0, 0}
        }};
        template <class V, class Valid, class Reset>
        SEQCELLS_INLINE static void row0([[maybe_unused]] V* v, [[maybe_unused]] Valid valid, [[maybe_unused]] Reset reset) {

        }
        template <class V, class Valid, class Reset>
        SEQCELLS_INLINE static void units0([[maybe_unused]] V* v, [[maybe_unused]] Valid valid, [[maybe_unused]] Reset reset) {
            const V reset_state_h = v[1];
            const V carried_h = v[0];
            const auto where_of_3 = where(reset, reset_state_h, carried_h);
            v[16] = where_of_3;
        }
        template <class V, class Valid, class Reset>
        SEQCELLS_INLINE static void row1([[maybe_unused]] V* v, [[maybe_unused]] Valid valid, [[maybe_unused]] Reset reset) {

        }
        template <class V, class Valid, class Reset>
        SEQCELLS_INLINE static void units1([[maybe_unused]] V* v, [[maybe_unused]] Valid valid, [[maybe_unused]] Reset reset) {
            const V hh_0 = v[8];
            const V bias_hh_r = v[2];
            const V hh_1 = v[9];
            const V bias_hh_z = v[3];
            const V x_r = v[4];
            const V x_z = v[5];
            const V where_of_3 = v[16];
            const auto reset_2 = sigmoid(x_r + (hh_0 + bias_hh_r));
            const auto update = sigmoid(x_z + (hh_1 + bias_hh_z));
            const auto t = reset_2 * where_of_3;
            v[11] = reset_2;
            v[12] = update;
            v[17] = t;
        }
        template <class V, class Valid, class Reset>
        SEQCELLS_INLINE static void row2([[maybe_unused]] V* v, [[maybe_unused]] Valid valid, [[maybe_unused]] Reset reset) {

        }
        template <class V, class Valid, class Reset>
        SEQCELLS_INLINE static void units2([[maybe_unused]] V* v, [[maybe_unused]] Valid valid, [[maybe_unused]] Reset reset) {
            using T = scalar<V>;
            const V candidate_0 = v[10];
            const V bias_candidate_n = v[6];
            const V x_n = v[7];
            const V where_of_3 = v[16];
            const V update = v[12];
            const auto new_2 = tanh(x_n + (candidate_0 + bias_candidate_n));
            const auto h = new_2 + update * (where_of_3 - new_2);
            const auto where_of_2 = where(valid, h, where_of_3);
            const auto where_of = where(valid, h, T(0.0));
            v[14] = new_2;
            v[15] = where_of_2;
            v[13] = where_of;
        }
        template <int K, class V, class Valid, class Reset>
        SEQCELLS_INLINE static void row(V* v, Valid valid, Reset reset) {
            if constexpr (K == 0) row0(v, valid, reset);
            if constexpr (K == 1) row1(v, valid, reset);
            if constexpr (K == 2) row2(v, valid, reset);
        }
        template <int K, class V, class Valid, class Reset>
        SEQCELLS_INLINE static void units(V* v, Valid valid, Reset reset) {
            if constexpr (K == 0) units0(v, valid, reset);
            if constexpr (K == 1) units1(v, valid, reset);
            if constexpr (K == 2) units2(v, valid, reset);
        }
    };
    struct Backward {
        static constexpr int values = 21, stages = 3;
        static constexpr int letters = 1, gates_at = 1;
        static constexpr int sums = 3, gates = 3, by = -1;
        static constexpr int ahead = 4;
        static constexpr bool side_by_side = false;
        static constexpr std::array<int, 3> letter{0, 0, 0};
        static constexpr std::array<int, 3> follows{-1, -1, 0};
        static constexpr std::array<const char* const, 14> names{{
            "grad_final.h",
            "grad_output",
            "reset_state.h",
            "previous",
            "saved",
            "grad_gates_x",
            "multiplied",
            "grad_initial.h",
            "grad_reset_state.h",
            "weight_candidate",
            "weight_hh",
            "grad_bias_ih",
            "grad_bias_hh",
            "grad_bias_candidate"
        }};
        static constexpr std::array<Kept, 3> keep{{{false, false, -1, 0}, {false, true, -1, 0}, {false, false, -1, 0}}};
        static constexpr std::array<Multiplicand, 2> operands{{{1, {18}, {0}, 0, true}, {2, {19, 20}, {1, 0}, 0, true}}};
        static constexpr std::array<Multiplied, 2> products{{{1, 9, 0, 0, 1, 1, true}, {2, 10, 1, 0, 2, 1, true}}};
        static constexpr std::array<Reduction, 0> reductions{{}};
        static constexpr std::array<Total, 6> totals{{{11, 0, true, 0, true, 0}, {12, 0, true, 0, true, 0}, {11, 1, true, 1, true, 0}, {12, 1, true, 1, true, 0}, {11, 2, true, 2, true, 0}, {13, 0, true, 2, true, 0}}};
        static constexpr std::array<Slot, 7> reads0{{
            {0, Where::CARRIED, Axes::BH, 0, 0, 0, false, false},
            {1, Where::GIVEN, Axes::TBH, 1, 0, 0, false, false},
            {2, Where::GIVEN, Axes::BH, 2, 0, 0, false, false},
            {3, Where::GIVEN, Axes::TBH, 3, 0, 0, false, false},
            {4, Where::GIVEN, Axes::TBH, 4, 0, 0, true, false},
            {5, Where::GIVEN, Axes::TBH, 4, 2, 0, true, false},
            {6, Where::GIVEN, Axes::TBH, 4, 1, 0, true, false}
        }};
        static constexpr std::array<Slot, 4> reads1{{
            {2, Where::GIVEN, Axes::BH, 2, 0, 0, false, false},
            {3, Where::GIVEN, Axes::TBH, 3, 0, 0, false, false},
            {7, Where::PRODUCT, Axes::BH, 0, 0, 0, false, false},
            {4, Where::GIVEN, Axes::TBH, 4, 0, 0, true, false}
        }};
        static constexpr std::array<Slot, 5> reads2{{
            {15, Where::KEPT, Axes::BH, 0, 0, 0, false, false},
            {6, Where::GIVEN, Axes::TBH, 4, 1, 0, true, false},
            {16, Where::KEPT, Axes::BH, 0, 1, 0, false, false},
            {17, Where::KEPT, Axes::BH, 0, 2, 0, false, false},
            {8, Where::PRODUCT, Axes::BH, 1, 0, 0, false, false}
        }};
        static constexpr auto reads = std::make_tuple(reads0, reads1, reads2);
        static constexpr std::array<Slot, 7> results0{{
            {9, Where::GIVEN, Axes::TBH, 5, 1, 0, false, false},
            {10, Where::GIVEN, Axes::TBH, 5, 2, 0, false, false},
            {11, Where::GIVEN, Axes::TBH, 6, 0, 0, false, false},
            {9, Where::SUM, Axes::H, 0, 1, 0, false, false},
            {10, Where::SUM, Axes::H, 0, 2, 0, false, false},
            {15, Where::KEPT, Axes::BH, 0, 0, 0, false, false},
            {16, Where::KEPT, Axes::BH, 0, 1, 0, false, false}
        }};
        static constexpr std::array<Slot, 3> results1{{
            {12, Where::GIVEN, Axes::TBH, 5, 0, 0, false, false},
            {12, Where::SUM, Axes::H, 0, 0, 0, false, false},
            {17, Where::KEPT, Axes::BH, 0, 2, 0, false, false}
        }};
        static constexpr std::array<Slot, 2> results2{{
            {13, Where::CARRIED, Axes::BH, 7, 0, 0, true, false},
            {14, Where::GIVEN, Axes::BH, 8, 0, 0, true, true}
        }};
        static constexpr auto results = std::make_tuple(results0, results1, results2);
        static constexpr std::array<Onward, 1> onward{{
            {13, 0, 0}
        }};
        template <class V, class Valid, class Reset>
        SEQCELLS_INLINE static void row0([[maybe_unused]] V* v, [[maybe_unused]] Valid valid, [[maybe_unused]] Reset reset) {

        }
        template <class V, class Valid, class Reset>
        SEQCELLS_INLINE static void units0([[maybe_unused]] V* v, [[maybe_unused]] Valid valid, [[maybe_unused]] Reset reset) {
            using T = scalar<V>;
            const V d_carried_h = v[0];
            const V d_output = v[1];
            const V reset_state_h = v[2];
            const V before_h = v[3];
            const V saved_reset = v[4];
            const V saved_new = v[5];
            const V saved_update = v[6];
            const auto where_of_3 = where(valid, T(0.0), d_carried_h);
            const auto t = d_output + d_carried_h;
            const auto d_h = where(valid, t, T(0.0));
            const auto where_of_4 = where(reset, reset_state_h, before_h);
            const auto d_update = d_h * (where_of_4 - saved_new);
            const auto t_6 = T(1.0) - saved_update;
            const auto d_new = d_h * t_6;
            const auto t_3 = d_new * (T(1.0) - saved_new * saved_new);
            const auto d_x_n = where(valid, t_3, T(0.0));
            const auto where_of = where(valid, saved_reset * where_of_4, T(0.0));
            const auto t_5 = d_update * saved_update * t_6;
            const auto d_x_z = where(valid, t_5, T(0.0));
            v[16] = where_of_3;
            v[15] = t;
            v[18] = t_3;
            v[10] = d_x_n;
            v[11] = where_of;
            v[20] = t_5;
            v[9] = d_x_z;
        }
        template <class V, class Valid, class Reset>
        SEQCELLS_INLINE static void row1([[maybe_unused]] V* v, [[maybe_unused]] Valid valid, [[maybe_unused]] Reset reset) {

        }
        template <class V, class Valid, class Reset>
        SEQCELLS_INLINE static void units1([[maybe_unused]] V* v, [[maybe_unused]] Valid valid, [[maybe_unused]] Reset reset) {
            using T = scalar<V>;
            const V reset_state_h = v[2];
            const V before_h = v[3];
            const V back_candidate = v[7];
            const V saved_reset = v[4];
            const auto where_of_4 = where(reset, reset_state_h, before_h);
            const auto d_reset = back_candidate * where_of_4;
            const auto t_2 = back_candidate * saved_reset;
            const auto t_4 = d_reset * saved_reset * (T(1.0) - saved_reset);
            const auto d_x_r = where(valid, t_4, T(0.0));
            v[17] = t_2;
            v[19] = t_4;
            v[12] = d_x_r;
        }
        template <class V, class Valid, class Reset>
        SEQCELLS_INLINE static void row2([[maybe_unused]] V* v, [[maybe_unused]] Valid valid, [[maybe_unused]] Reset reset) {

        }
        template <class V, class Valid, class Reset>
        SEQCELLS_INLINE static void units2([[maybe_unused]] V* v, [[maybe_unused]] Valid valid, [[maybe_unused]] Reset reset) {
            using T = scalar<V>;
            const V t = v[15];
            const V saved_update = v[6];
            const V where_of_3 = v[16];
            const V t_2 = v[17];
            const V back_hh = v[8];
            const auto d_h = where(valid, t, T(0.0));
            const auto t_7 = where_of_3 + where(valid, d_h * saved_update, T(0.0)) + where(valid, t_2, T(0.0)) + where(valid, back_hh, T(0.0));
            const auto d_reset_state_h = where(reset, t_7, T(0.0));
            const auto where_of_2 = where(reset, T(0.0), t_7);
            v[14] = d_reset_state_h;
            v[13] = where_of_2;
        }
        template <int K, class V, class Valid, class Reset>
        SEQCELLS_INLINE static void row(V* v, Valid valid, Reset reset) {
            if constexpr (K == 0) row0(v, valid, reset);
            if constexpr (K == 1) row1(v, valid, reset);
            if constexpr (K == 2) row2(v, valid, reset);
        }
        template <int K, class V, class Valid, class Reset>
        SEQCELLS_INLINE static void units(V* v, Valid valid, Reset reset) {
            if constexpr (K == 0) units0(v, valid, reset);
            if constexpr (K == 1) units1(v, valid, reset);
            if constexpr (K == 2) units2(v, valid, reset);
        }
    };
};
}

SEQCELLS_CELL_END

#define SEQCELLS_CELLS(CELL) CELL("e8e272a8145e51d48269516b", lstm::Equations) CELL("b5da0a16002728f7adcf6ac5", gru::Equations) CELL("974f4d57026f1e57f26fe91c", rnn_tanh::Equations) CELL("9943c06d5560ba54fd7899d6", rnn_relu::Equations) CELL("abe6eadb6e0f4dd7c1d7a2ca", peephole_lstm::Equations) CELL("01816efaab2fa278520bc2fc", lstm_with_projection_1::Equations) CELL("e373e8c8fb0a57069314660a", gru_reset_before::Equations)
