// Runs all steps of a layer's pass in one launch. A cluster of blocks computes ROWS sequences. Its blocks exchange the operands
// of products through distributed shared memory. Clusters do not communicate with each other.
//
// A thread has the same items in all stages and steps, so values that pass between stages stay in its registers. An exchange
// has two buffers, each with an mbarrier. No block overwrites data that another block still reads. A block sends for step t + 2
// only after it has received all data of step t + 1. Each block sends these data after its products of step t. Blocks end
// together. No store is in flight then, because each block has waited for all data sent to it.

#pragma once

#include "products.cuh"
#include "reductions.cuh"
#include "value_access.cuh"

namespace seqcells {

template <class Program, class Form>
struct Cluster {
    using Z = Sizes<Form>;
    using Storage = typename Z::Storage;
    static constexpr int LAST = Program::stages - 1, ITEMS = Z::ITEMS;
    static constexpr int LATE = int(std::get<LAST>(Program::results).size());

    const Arguments& a;
    char* const shared;
    const uint32_t base;
    const int thread, rank, direction;
    const int64_t first_row;
    const int rows;  // rows of this cluster that exist
    const Steps steps;
    AllWeights<Program, Form> weights;
    float v[ITEMS][Program::values + 1];
    float sums[ITEMS][Program::sums + 1], added[ITEMS][Program::names.size() + 1], late[ITEMS][LATE + 1];
    int length[ITEMS];
    bool reset_now[ITEMS], reset_next[ITEMS];

    SEQCELLS_INLINE explicit Cluster(const Arguments& call)
        : a(call), shared(shared_memory()), base(address_of(shared)), thread(thread_index()), rank(cluster_rank()),
          direction(direction_index()), first_row(int64_t(block_index() / Form::BLOCKS) * Form::ROWS),
          rows(call.batch - first_row < Form::ROWS ? int(call.batch - first_row) : Form::ROWS), steps{call, int(call.steps), (call.reverse != 0) != (direction == 1)} {}

    SEQCELLS_INLINE Item<Program, Form> item(int n) const {
        const int i = thread + n * Z::THREADS, local_row = i / Form::UNITS, local_unit = i % Form::UNITS;
        const int unit = rank * Form::UNITS + local_unit;
        return {a, local_row, local_unit, typename Form::Index(first_row + local_row), unit, direction, local_row < rows && (Form::H == Form::UNITS * Form::BLOCKS || unit < Form::H)};
    }
    SEQCELLS_INLINE bool is_in_tile(int n) const { return Z::ITEMS * Z::THREADS == Form::UNITS * Form::ROWS || thread + n * Z::THREADS < Form::UNITS * Form::ROWS; }

    // The index, in the order of travel, of the pass's j-th step. Forward begins with the first index, backward with the last.
    SEQCELLS_INLINE int index(int j) const { return Program::by > 0 ? j : steps.count - 1 - j; }
    template <int K>
    using Reduced = Reductions<Program, Form, K>;
    SEQCELLS_INLINE char* ring(int j) const { return shared + Form::RING_AT + j % Form::STEPS * Form::RING_BYTES; }
    SEQCELLS_INLINE void copy_ahead(int j) const {
        if (j < steps.count)
            copy_step<Program, Form>(a, steps, index(j), ring(j), first_row, rows, rank, direction);
        else
            copies_commit();
    }

    // Computes the values of stage K, for the j-th step of the pass, in registers.
    template <int K, bool BEGINS>
    SEQCELLS_INLINE void compute(int j) {
        using Valid = std::conditional_t<Form::BOUNDED, Whether, Always>;
        using Reset = std::conditional_t<Form::BOUNDED, Whether, Never>;
        const char* from = ring(j);
        const int time = steps.at(index(j));
#pragma unroll
        for (int n = 0; n < ITEMS; ++n) {
            const auto own = item(n);
            each_constant<int(std::get<K>(Program::reads).size())>([&](auto k) {
                using Of = Read<Program, K, decltype(k)::value>;
                constexpr Slot slot = Of::slot;
                float& value = v[n][slot.value];
                if constexpr (is_of_steps(slot))
                    value = is_in_tile(n) ? own.template from_ring<ring_column_of<Form>(slot)>(from) : 0.0f;
                else if constexpr (slot.where == Where::PRODUCT)
                    value = is_in_tile(n) ? sum_of<slot.array, slot.column>(own, j) : 0.0f;
                else if constexpr (Reduced<K>::gives(slot))
                    value = is_in_tile(n) ? Reduced<K>::template number<slot.column>(shared, own.local_row) : 0.0f;
                else if constexpr (slot.where == Where::GIVEN && slot.axes == Axes::TB)
                    value = own.template load<Of>(time);
                else if constexpr (slot.where == Where::CARRIED && BEGINS)
                    value = own.template load<Of>(0);
            });
            Valid valid{};
            Reset reset{};
            if constexpr (Form::BOUNDED) {
                valid.is = time < length[n];
                reset.is = K == 0 ? reset_next[n] : reset_now[n];
            }
            Program::template row<K>(v[n], valid, reset);
            Program::template units<K>(v[n], valid, reset);
            each_constant<int(std::get<K>(Program::results).size())>([&](auto k) {
                constexpr Slot slot = Written<Program, K, decltype(k)::value>::slot;
                if constexpr (slot.where == Where::SUM) sums[n][slot.column] += v[n][slot.value];
                if constexpr (slot.where == Where::GIVEN && slot.adds && Form::given[slot.array]) added[n][slot.array] += v[n][slot.value];
                if constexpr (K == LAST) late[n][decltype(k)::value] = v[n][slot.value];
            });
            // Writes to shared memory the values that the next stage reduces.
            if (is_in_tile(n))
                Reduced<K + 1>::each([&](auto one) {
                    using Of = decltype(one);
                    constexpr Slot slot = Of::from;
                    float value = v[n][slot.value];
                    if constexpr (is_of_steps(slot)) value = own.template from_ring<ring_column_of<Form>(slot)>(from);
                    Reduced<K + 1>::template units<Of>(shared, own.local_row)[own.local_unit] = value;
                });
            // Writes this block's part of the operands to shared memory. It is zero for units and rows that do not exist.
            if (is_in_tile(n))
                each_constant<Z::OPERANDS>([&](auto o) {
                    constexpr int O = decltype(o)::value;
                    each_constant<Program::operands[O].blocks>([&](auto b) {
                        constexpr int B = decltype(b)::value;
                        if constexpr (Program::operands[O].made_at[B] == K) {
                            const int chunk = B * Z::CHUNKS + own.local_unit / Z::CHUNK;
                            auto* to = reinterpret_cast<Storage*>(shared + Form::operand[O].own_at + (chunk * Form::ROWS + own.local_row) * 16) + own.local_unit % Z::CHUNK;
                            round_for_product(*to, own.there ? v[n][Program::operands[O].values[B]] : 0.0f);
                        }
                    });
                });
        }
    }

    // One sum of a product for an item. It adds the parts of the depth, or the sums from all blocks, in order.
    template <int P, int COLUMN>
    SEQCELLS_INLINE float sum_of(const Item<Program, Form>& own, int j) const {
        float total = 0.0f;
        if constexpr (Form::product[P].scattered) {
            const float* from = reinterpret_cast<const float*>(shared + Form::product[P].received_at + (j & 1) * Z::RECEIVED_BYTES) + own.local_row * Form::UNITS + own.local_unit;
#pragma unroll
            for (int block = 0; block < Form::BLOCKS; ++block) total += from[block * Form::ROWS * Form::UNITS];
        } else {
            const float* from = reinterpret_cast<const float*>(shared + Form::product[P].partial_at);
#pragma unroll
            for (int part = 0; part < Form::product[P].parts; ++part) total += from[Weights<Program, Form, P>::place(COLUMN * Form::UNITS + own.local_unit, own.local_row, part)];
        }
        return total;
    }

    SEQCELLS_INLINE void announce(int j) const {
        if (thread == 0)
            each_constant<Z::EXCHANGES>([&](auto x) {
                constexpr int X = decltype(x)::value, STAGE = X - Z::OPERANDS - Z::PRODUCTS;
                constexpr int OF_ROW = Z::bytes_of_row(X, Program::operands[X < Z::OPERANDS ? X : 0].blocks);
                constexpr int REDUCED = STAGE < 0 ? 0 : Form::BLOCKS * Reduced<larger(STAGE, 0)>::BYTES;
                if constexpr (OF_ROW + REDUCED > 0) mbarrier_announce(base + Z::barrier_at(X, j & 1), rows * OF_ROW + REDUCED);
            });
    }
    template <int X>
    SEQCELLS_INLINE void wait(int j) const {
        mbarrier_wait(base + Z::barrier_at(X, j & 1), j >> 1 & 1);
    }

    // Sends PIECES pieces of 16 bytes to each block. `piece(i, block)` tells a piece's row, its source and its destination.
    template <int X, int PIECES, class Piece>
    SEQCELLS_INLINE void send(int j, Piece piece) const {
        const uint32_t barrier = base + Z::barrier_at(X, j & 1);
#pragma unroll
        for (int first = 0; first < PIECES * Form::BLOCKS; first += Z::THREADS) {
            const int i = first + thread, block = i / PIECES;
            if (PIECES * Form::BLOCKS % Z::THREADS == 0 || i < PIECES * Form::BLOCKS) {
                const auto one = piece(i % PIECES, block);
                if (one.row < rows) store_async(peer(one.to, block), peer(barrier, block), *reinterpret_cast<const Chunk*>(one.from));
            }
        }
    }
    struct Piece {
        int row;
        const char* from;
        uint32_t to;
    };

    // Exchanges an operand for the j-th step, after all threads have written this block's part of it.
    template <int O>
    SEQCELLS_INLINE void exchange(int j) {
        if constexpr (Form::operand[O].scattered) {
            each_product<O>([&](auto p) { weights.template get<decltype(p)::value>().multiply(base + Form::operand[O].own_at, shared); });
            block_barrier();
            each_product<O>([&](auto p) {
                constexpr int P = decltype(p)::value, EACH = Form::UNITS / 4;
                send<Z::OPERANDS + P, EACH * Form::ROWS>(j, [&](int i, int block) {
                    const int row = i / EACH;
                    const char* from = shared + Form::product[P].partial_at + ((block * Form::ROWS + row) * Form::product[P].pitch + i % EACH * 4) * 4;
                    return Piece{row, from, base + Form::product[P].received_at + (j & 1) * Z::RECEIVED_BYTES + (rank * Form::ROWS * Form::UNITS + i * 4) * 4};
                });
            });
        } else {
            constexpr int EACH = Z::CHUNKS * Form::ROWS;
            send<O, Program::operands[O].blocks * EACH>(j, [&](int i, int) {
                const uint32_t to = base + Form::operand[O].gathered_at + (j & 1) * Form::operand[O].gathered_bytes;
                const int chunk = i / EACH * Z::ALL_CHUNKS + rank * Z::CHUNKS, within = i % EACH;
                return Piece{i % Form::ROWS, shared + Form::operand[O].own_at + i * 16, to + (chunk * Form::ROWS + within) * 16};
            });
        }
    }
    template <int O, class F>
    SEQCELLS_DEVICE void each_product(F f) {
        each_constant<Z::PRODUCTS>([&](auto p) {
            if constexpr (Program::products[decltype(p)::value].operand == O) f(p);
        });
    }
    // Computes this block's partial results of the reductions before stage K, and sends them.
    template <int K>
    SEQCELLS_INLINE void reduce(int j) {
        if constexpr (Reduced<K>::COUNT > 0) {
            Reduced<K>::reduce(shared, rank);
            block_barrier();
            send<Reduced<K>::EXCHANGE, Reduced<K>::BYTES / 16>(j, [&](int i, int) {
                return Piece{0, shared + Form::PARTIAL_AT + i * 16, base + Reduced<K>::received_at(j & 1) + rank * Reduced<K>::BYTES + i * 16};
            });
        }
    }

    // Exchanges all operands that are complete after stage K, and the reductions before the next stage.
    template <int K>
    SEQCELLS_INLINE void exchange_all(int j) {
        each_constant<Z::OPERANDS>([&](auto o) {
            if constexpr (Form::operand[decltype(o)::value].made_at == K) exchange<decltype(o)::value>(j);
        });
        reduce<K + 1>(j);
    }
    template <int K>
    SEQCELLS_DEVICE constexpr bool sends() {
        if (Reduced<K + 1>::COUNT > 0) return true;
        for (int o = 0; o < Z::OPERANDS; ++o)
            if (Form::operand[o].made_at == K) return true;
        return false;
    }

    // Waits for the operands and partial results that stage K needs, multiplies gathered operands, and merges reductions.
    template <int K>
    SEQCELLS_INLINE void gather(int j) {
        bool made = false;
        each_constant<Z::PRODUCTS>([&](auto p) {
            constexpr int P = decltype(p)::value;
            constexpr Multiplied of = Program::products[P];
            if constexpr (of.stage == K) {
                wait<Form::product[P].scattered ? Z::OPERANDS + P : of.operand>(j);
                if constexpr (!Form::product[P].scattered) {
                    weights.template get<P>().multiply(base + Form::operand[of.operand].gathered_at + (j & 1) * Form::operand[of.operand].gathered_bytes, shared);
                    made = true;
                }
            }
        });
        if constexpr (Reduced<K>::COUNT > 0) {
            wait<Reduced<K>::EXCHANGE>(j);
            Reduced<K>::merge(shared, j & 1);
            made = true;
        }
        if (made) block_barrier();
    }

    // A result of a stage. The last stage's results are copies (`late`), because they are written after the next step's first
    // stage has been computed.
    template <int K, int R>
    SEQCELLS_INLINE float result(int n) const {
        if constexpr (K == LAST)
            return late[n][R];
        else
            return v[n][Written<Program, K, R>::slot.value];
    }
    template <int K>
    SEQCELLS_INLINE void write(int j) const {
        const int time = steps.at(index(j));
#pragma unroll
        for (int n = 0; n < ITEMS; ++n)
            each_constant<int(std::get<K>(Program::results).size())>([&](auto k) {
                using Of = Written<Program, K, decltype(k)::value>;
                constexpr Slot slot = Of::slot;
                if constexpr (slot.where == Where::GIVEN && !slot.adds) item(n).template store<Of>(time, result<K, decltype(k)::value>(n));
            });
    }

    // The stages between the first and the last one.
    template <int K>
    SEQCELLS_INLINE void between(int j) {
        if constexpr (K < LAST) {
            gather<K>(j);
            compute<K, false>(j);
            if constexpr (sends<K>()) {
                block_barrier();
                exchange_all<K>(j);
            }
            write<K>(j);
            between<K + 1>(j);
        }
    }

    SEQCELLS_INLINE void look_ahead(int j) {
        if constexpr (Form::BOUNDED)
#pragma unroll
            for (int n = 0; n < ITEMS; ++n) {
                reset_now[n] = reset_next[n];
                reset_next[n] = j < steps.count && item(n).there && steps.boundary(steps.at(index(j)), item(n).row, length[n]);
            }
    }

    SEQCELLS_INLINE void begin() {
        each_constant<Z::PRODUCTS>([&](auto p) {
            constexpr int P = decltype(p)::value, ARRAY = Program::products[P].weight;
            const auto* from = reinterpret_cast<const Storage*>(a.arrays[ARRAY]) + direction * Form::apart[ARRAY];
            weights.template get<P>().load(from, shared, rank);
        });
        // Each thread clears the shared memory through which it loaded its own weights.
        for (int i = thread; i < Form::BARRIERS_AT / 16; i += Z::THREADS) reinterpret_cast<Chunk*>(shared)[i] = {};
        if (thread == 0) {
            for (int k = 0; k < 2 * Z::EXCHANGES; ++k) mbarrier_init(base + Z::barrier_at(0, 0) + 8 * k);
            mbarriers_are_there();
        }
        block_barrier();
#pragma unroll
        for (int n = 0; n < ITEMS; ++n) {
            const auto own = item(n);
            length[n] = a.lengths && own.there ? int(a.lengths[own.row]) : steps.count;
            clear(v[n]);
            clear(sums[n]);
            clear(added[n]);
            each_constant<Program::stages>([&](auto stage) {
                constexpr int K = decltype(stage)::value;
                each_constant<int(std::get<K>(Program::reads).size())>([&](auto k) {
                    using Of = Read<Program, K, decltype(k)::value>;
                    constexpr Slot slot = Of::slot;
                    if constexpr (slot.where == Where::GIVEN && slot.axes != Axes::TBH && slot.axes != Axes::TB) v[n][slot.value] = own.template load<Of>(0);
                    if constexpr (slot.where == Where::COUNT) v[n][slot.value] = float(Form::H);
                });
            });
            reset_next[n] = false;
        }
        for (int j = 0; j < Form::STEPS; ++j) copy_ahead(j);
        announce(0);
        look_ahead(0);
        copies_wait<Form::STEPS - 2>();
        cluster_barrier();  // no block sends before all mbarriers are initialised
        compute<0, true>(0);
        block_barrier();
        exchange_all<0>(0);
        write<0>(0);
        look_ahead(1);
    }

    SEQCELLS_INLINE void run() {
        begin();
        for (int j = 0; j < steps.count; ++j) {
            const bool goes_on = j + 1 < steps.count;
            between<1>(j);
            gather<LAST>(j);
            compute<LAST, false>(j);
            if (goes_on) {
                announce(j + 1);
#pragma unroll
                for (int n = 0; n < ITEMS; ++n)
                    each_constant<int(Program::onward.size())>([&](auto k) {
                        constexpr Onward one = Program::onward[decltype(k)::value];
                        v[n][one.becomes] = v[n][one.value];
                    });
                compute<0, false>(j + 1);
            }
            copies_wait<Form::STEPS - 3>();
            block_barrier();
            if (goes_on) exchange_all<0>(j + 1);
            write<LAST>(j);
            if (goes_on) {
                write<0>(j + 1);
                copy_ahead(j + Form::STEPS);
                look_ahead(j + 2);
            }
        }
        end();
    }

    SEQCELLS_INLINE void end() {
#pragma unroll
        for (int n = 0; n < ITEMS; ++n) {
            const auto own = item(n);
            each_constant<Program::stages>([&](auto stage) {
                constexpr int K = decltype(stage)::value;
                each_constant<int(std::get<K>(Program::results).size())>([&](auto k) {
                    using Of = Written<Program, K, decltype(k)::value>;
                    constexpr Slot slot = Of::slot;
                    if constexpr (slot.where == Where::CARRIED) own.template store<Of>(0, result<K, decltype(k)::value>(n));
                    if constexpr (slot.where == Where::GIVEN && slot.adds && Form::given[slot.array]) own.template store<Of>(0, own.template load<Of>(0) + added[n][slot.array]);
                });
            });
            each_constant<Program::sums>([&](auto k) {
                constexpr int COLUMN = Form::sum_column[decltype(k)::value];
                if constexpr (COLUMN >= 0)
                    if (own.there) a.sums[((direction * a.batch + own.row) * a.sums_columns + COLUMN) * Form::H + own.unit] += sums[n][decltype(k)::value];
            });
        }
        cluster_barrier();
    }

  private:
    template <int N>
    SEQCELLS_DEVICE void clear(float (&values)[N]) {
#pragma unroll
        for (int k = 0; k < N; ++k) values[k] = 0.0f;
    }
};

}  // namespace seqcells
