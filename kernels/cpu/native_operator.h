// The operator seqcells::recurrence for programs that run without Python.
//
// A library holds the layers of some exported programs, which native_operator.py prints. It prints for each layer the fields of its
// calls, and which tensor's address belongs in which field. Nothing here depends on a cell. The code uses torch's stable
// interface, so one library serves later versions of torch too.

#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <initializer_list>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "native_library.h"

// The check of a call of torch's stable C interface has another name before torch 2.12.
#if defined(STABLE_TORCH_ERROR_CODE_CHECK)
#define SEQCELLS_CHECK_TORCH STABLE_TORCH_ERROR_CODE_CHECK
#else
#define SEQCELLS_CHECK_TORCH TORCH_ERROR_CODE_CHECK
#endif

namespace seqcells {

using torch::stable::Tensor;
using Type = torch::headeronly::ScalarType;

// These stand for sizes of a tensor that are no fixed numbers.
constexpr int64_t STEPS = -1, BATCH_SIZE = -2;

// A tensor that a layer takes or makes.
struct Operand {
    Type type;
    std::vector<int64_t> sizes;
};

// The address in one field of a direction's call. `tensor` counts the tensors given, then the tensors made. The address is that
// of element `column`; PART stands for the direction's part, where the first axis has one part for each direction.
constexpr int64_t PART = -1;
struct Address {
    int direction, field, tensor;
    int64_t column;
};

// A layer of a program, and what all its calls share: calls differ in time steps, sequences and addresses.
struct Layer {
    const char *cell, *program, *names, *kept;
    bool reverse;
    int forward;  // its cell's index among the forward passes
    std::vector<Operand> given, made;
    std::vector<LayerCall> directions;
    std::vector<Address> addresses;
};

// A direction's call, from its first fields; the remaining fields are 0.
inline LayerCall call_of(std::initializer_list<int64_t> fields) {
    LayerCall call{};
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
        if (!forwards_) fail("this library of seqcells has no kernels for this processor: make it with target portable too");
        const int64_t steps = tensors[0].size(0), batch = tensors[0].size(1);
        if (!steps) fail("Expected sequence length to be larger than 0 in RNN");
        const size_t given = tensors.size();
        for (size_t k = 0; k < given; ++k) tensors[k] = as_read(tensors[k], layer.given[k].type);
        for (const Operand& each : layer.made) {
            std::vector<int64_t> sizes = each.sizes;
            for (int64_t& size : sizes) size = size == STEPS ? steps : size == BATCH_SIZE ? batch : size;
            tensors.push_back(torch::stable::new_empty(tensors[0], sizes));
        }
        std::vector<LayerCall> calls = layer.directions;
        const int64_t threads = std::min<int64_t>(torch::stable::get_num_threads(), std::max(1u, std::thread::hardware_concurrency()));
        for (LayerCall& call : calls) call.steps = steps, call.batch = batch, call.threads = threads;
        for (const Address& each : layer.addresses) {
            const Tensor& tensor = tensors[each.tensor];
            const int64_t part = tensor.numel() / int64_t(calls.size()) * each.direction;
            const int64_t ahead = (each.column == PART ? part : each.column) * int64_t(tensor.element_size());
            const char* address = static_cast<const char*>(tensor.data_ptr()) + ahead;
            std::memcpy(reinterpret_cast<char*>(&calls[each.direction]) + each.field * sizeof address, &address, sizeof address);
        }
        const Forward& forward = forwards_[layer.forward];
        if (forward.run(forward.pass, calls.data(), int(calls.size()))) fail("seqcells: out of memory");
        return {tensors.begin() + given, tensors.end()};
    }

    // The layer that a call asks for. If the library has none, the error names it.
    const Layer& find(const std::string& cell, const std::string& program, const std::vector<Tensor>& tensors,
                      const std::string& names, bool reverse, const std::string& kept) const {
        for (const Layer& layer : layers_)
            if (layer.cell == cell && layer.program == program && layer.names == names && layer.reverse == reverse &&
                layer.kept == kept && fits(layer, tensors))
                return layer;
        std::string found;
        for (const Tensor& tensor : tensors) {
            found += found.empty() ? "" : ", ";
            found += std::string(torch::headeronly::toString(tensor.scalar_type())) + "(";
            for (int64_t axis = 0; axis < tensor.dim(); ++axis) found += (axis ? ", " : "") + std::to_string(tensor.size(axis));
            found += ")";
        }
        fail("this library of seqcells has no " + cell + " layer of " + names + " that are " + found +
             ": make it of the program that is run");
    }

  private:
    [[noreturn]] static void fail(const std::string& words) { throw std::runtime_error(words); }

    // The tensor, contiguous and of the type that the loop reads. Lengths may come as other integers.
    static Tensor as_read(const Tensor& tensor, Type type) {
        return torch::stable::contiguous(tensor.scalar_type() == type ? tensor : torch::stable::to(tensor, type));
    }

    static bool fits(const Layer& layer, const std::vector<Tensor>& tensors) {
        if (tensors.size() != layer.given.size() || tensors.empty() || tensors[0].dim() != 3) return false;
        const int64_t steps = tensors[0].size(0), batch = tensors[0].size(1);
        for (size_t k = 0; k < tensors.size(); ++k) {
            const Operand& expected = layer.given[k];
            const Tensor& tensor = tensors[k];
            const Type type = tensor.scalar_type();
            if (expected.type == Type::Long ? !is_integer(type) : type != expected.type) return false;
            if (tensor.dim() != int64_t(expected.sizes.size())) return false;
            for (int64_t axis = 0; axis < tensor.dim(); ++axis) {
                const int64_t size = expected.sizes[axis];
                if (tensor.size(axis) != (size == STEPS ? steps : size == BATCH_SIZE ? batch : size)) return false;
            }
        }
        return true;
    }

    static bool is_integer(Type type) {
        for (Type each : {Type::Long, Type::Int, Type::Short, Type::Char, Type::Byte})
            if (type == each) return true;
        return false;
    }

    const std::vector<Layer>& layers_;
    const Forward* forwards_ = nullptr;
};

// The registration with torch's dispatcher, which accepts an operator only once.
class Registration {
  public:
    Registration(const char* schema, void (*boxed)(StableIValue*, uint64_t, uint64_t)) {
        // torch's macros are not used: if the operator exists already, they go on without a library to write to.
        if (aoti_torch_library_init_def("seqcells", __FILE__, __LINE__, &definition_)) {
            std::fprintf(stderr, "seqcells: torch has the operator already, by another library or by seqcells itself: "
                                 "the layers of the library that is loaded now are not used\n");
            definition_ = nullptr;
            return;
        }
        SEQCELLS_CHECK_TORCH(aoti_torch_library_def(definition_, schema));
        using torch::stable::detail::StableLibrary;
        kernels_.reset(new StableLibrary(StableLibrary::Kind::IMPL, "seqcells", "CPU", __FILE__, __LINE__));
        kernels_->impl("recurrence", boxed);
    }
    ~Registration() {
        kernels_.reset();
        if (definition_) aoti_torch_delete_library_object(definition_);
    }

  private:
    TorchLibraryHandle definition_ = nullptr;
    std::unique_ptr<torch::stable::detail::StableLibrary> kernels_;
};

}  // namespace seqcells

// Makes a library of `layers` and `instructions` of the including file.
#define SEQCELLS_OPERATOR(schema, instructions, layers)                                                                     \
    namespace seqcells {                                                                                                    \
    static std::vector<Tensor> recurrence(std::string cell, std::string program, std::vector<Tensor> tensors,               \
                                          std::string names, bool reverse, std::string, std::string kept) {                 \
        static const Operator run(instructions, layers);                                                                    \
        return run(run.find(cell, program, tensors, names, reverse, kept), tensors);                                        \
    }                                                                                                                       \
    static const Registration registration(schema, TORCH_BOX(&recurrence));                                                 \
    }
