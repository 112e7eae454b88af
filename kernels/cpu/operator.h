// The operator seqcells::recurrence for programs that run without Python.
//
// A library holds the layers of some exported programs, printed by operator.py: for each the fields of its calls, and which
// tensor's address belongs in which field. Nothing here knows a cell. It is written for torch's stable interface, so one
// library serves later versions of torch too.

#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <cstring>
#include <initializer_list>
#include <string>
#include <thread>
#include <vector>

#include "forward.h"

namespace seqcells {

using torch::stable::Tensor;
using Type = torch::headeronly::ScalarType;

// Sizes that a tensor's axes may have in the place of a number.
constexpr int64_t STEPS = -1, BATCH_SIZE = -2;

// A tensor that a layer is given or makes.
struct Operand {
    Type type;
    std::vector<int64_t> sizes;
};

// Whose address a field of a direction's call is: a tensor's, counted through what is given and what is made, from `column`
// on; or its part for the direction, of as many parts as there are directions along the first axis.
constexpr int64_t PART = -1;
struct Address {
    int direction, field, tensor;
    int64_t column;
};

// A layer of a program, and all its calls: they differ in time steps, sequences and addresses.
struct Layer {
    const char *cell, *program, *names, *kept;
    bool reverse;
    int forward;  // its cell's place among the forward passes
    std::vector<Operand> given, made;
    std::vector<Call> directions;
    std::vector<Address> addresses;
};

// A direction's call of its first fields; the others are 0.
inline Call call_of(std::initializer_list<int64_t> fields) {
    Call call{};
    std::memcpy(static_cast<void*>(&call), fields.begin(), std::min(sizeof call, fields.size() * sizeof(int64_t)));
    return call;
}

class Operator {
  public:
    Operator(const std::vector<Instructions>& best_first, const std::vector<Layer>& layers) : layers_(layers) {
        for (const Instructions& set : best_first)
            if (!forwards_ && set.supported()) forwards_ = set.forwards;
    }

    std::vector<Tensor> operator()(const Layer& layer, std::vector<Tensor> tensors) const {
        STD_TORCH_CHECK(forwards_, "this library of seqcells has no kernels for this processor: make it with target portable too");
        const int64_t steps = tensors[0].size(0), batch = tensors[0].size(1);
        const size_t given = tensors.size();
        for (size_t k = 0; k < given; ++k) tensors[k] = as_read(tensors[k], layer.given[k].type);
        for (const Operand& each : layer.made) {
            std::vector<int64_t> sizes = each.sizes;
            for (int64_t& size : sizes) size = size == STEPS ? steps : size == BATCH_SIZE ? batch : size;
            tensors.push_back(torch::stable::new_empty(tensors[0], sizes));
        }
        std::vector<Call> calls = layer.directions;
        const int64_t threads = std::min<int64_t>(torch::stable::get_num_threads(), std::max(1u, std::thread::hardware_concurrency()));
        for (Call& call : calls) call.steps = steps, call.batch = batch, call.threads = threads;
        for (const Address& each : layer.addresses) {
            const Tensor& tensor = tensors[each.tensor];
            const int64_t part = tensor.numel() / int64_t(calls.size()) * each.direction;
            const int64_t ahead = (each.column == PART ? part : each.column) * int64_t(tensor.element_size());
            const char* address = static_cast<const char*>(tensor.data_ptr()) + ahead;
            std::memcpy(reinterpret_cast<char*>(&calls[each.direction]) + each.field * sizeof address, &address, sizeof address);
        }
        const Forward& forward = forwards_[layer.forward];
        STD_TORCH_CHECK(!forward.run(forward.pass, calls.data(), int(calls.size())), "seqcells: out of memory");
        return {tensors.begin() + given, tensors.end()};
    }

    // The layer of a call; an error that names it where the library has none.
    const Layer& find(const std::string& cell, const std::string& program, const std::vector<Tensor>& tensors,
                      const std::string& names, bool reverse, const std::string& kept) const {
        for (const Layer& layer : layers_)
            if (layer.cell == cell && layer.program == program && layer.names == names && layer.reverse == reverse &&
                layer.kept == kept && fits(layer, tensors))
                return layer;
        std::string sizes;
        for (const Tensor& tensor : tensors) {
            sizes += sizes.empty() ? "(" : ", (";
            for (int64_t axis = 0; axis < tensor.dim(); ++axis) sizes += (axis ? ", " : "") + std::to_string(tensor.size(axis));
            sizes += ")";
        }
        STD_TORCH_CHECK(false, "this library of seqcells has no ", cell, " layer of ", names, " of sizes ", sizes,
                        ": make it of the program that is run");
    }

  private:
    // Contiguous, and of the type that the loop reads: lengths may be other integers.
    static Tensor as_read(const Tensor& tensor, Type type) {
        return torch::stable::contiguous(tensor.scalar_type() == type ? tensor : torch::stable::to(tensor, type));
    }

    static bool fits(const Layer& layer, const std::vector<Tensor>& tensors) {
        if (tensors.size() != layer.given.size() || tensors.empty() || tensors[0].dim() != 3) return false;
        const int64_t steps = tensors[0].size(0), batch = tensors[0].size(1);
        for (size_t k = 0; k < tensors.size(); ++k) {
            const Operand& expected = layer.given[k];
            const Tensor& tensor = tensors[k];
            const bool is_index = expected.type == Type::Long;
            if (!is_index && tensor.scalar_type() != expected.type) return false;
            if (tensor.dim() != int64_t(expected.sizes.size())) return false;
            for (int64_t axis = 0; axis < tensor.dim(); ++axis) {
                const int64_t size = expected.sizes[axis];
                if (tensor.size(axis) != (size == STEPS ? steps : size == BATCH_SIZE ? batch : size)) return false;
            }
        }
        return true;
    }

    const std::vector<Layer>& layers_;
    const Forward* forwards_ = nullptr;
};

}  // namespace seqcells

// The library's registration with torch's dispatcher, of what `layers` and `instructions` are in the file that includes this.
#define SEQCELLS_OPERATOR(schema, instructions, layers)                                                                     \
    namespace seqcells {                                                                                                    \
    static std::vector<Tensor> recurrence(std::string cell, std::string program, std::vector<Tensor> tensors,               \
                                          std::string names, bool reverse, std::string, std::string kept) {                 \
        static const Operator run(instructions, layers);                                                                    \
        return run(run.find(cell, program, tensors, names, reverse, kept), tensors);                                        \
    }                                                                                                                       \
    }                                                                                                                       \
    STABLE_TORCH_LIBRARY(seqcells, m) { m.def(schema); }                                                                    \
    STABLE_TORCH_LIBRARY_IMPL(seqcells, CPU, m) { m.impl("recurrence", TORCH_BOX(&seqcells::recurrence)); }
