// Runs a package of AOTInductor without Python: ./run libmodel.so model.pt2 inputs.pt outputs.pt
//
// The library has seqcells' operator, see seqcells.io.native. Inputs and outputs are lists of tensors in files of
// torch.save.

#include <dlfcn.h>
#include <torch/csrc/inductor/aoti_package/model_package_loader.h>
#include <torch/csrc/jit/serialization/pickle.h>

#include <fstream>
#include <iostream>
#include <iterator>
#include <vector>

int main(int count, char** arguments) {
    if (count != 5) {
        std::cerr << "usage: " << arguments[0] << " library package inputs outputs\n";
        return 2;
    }
    // Loading the library registers its operator, which the package needs.
    if (!dlopen(arguments[1], RTLD_NOW | RTLD_GLOBAL)) {
        std::cerr << dlerror() << '\n';
        return 1;
    }
    try {
        std::ifstream read(arguments[3], std::ios::binary);
        const std::vector<char> bytes{std::istreambuf_iterator<char>(read), {}};
        const c10::IValue given = torch::jit::pickle_load(bytes);
        std::vector<at::Tensor> inputs;
        for (const c10::IValue& each : given.toListRef()) inputs.push_back(each.toTensor());
        torch::inductor::AOTIModelPackageLoader package(arguments[2]);
        std::vector<c10::IValue> made;
        for (const at::Tensor& each : package.run(inputs)) made.emplace_back(each);
        const std::vector<char> outputs = torch::jit::pickle_save(c10::ivalue::Tuple::create(made));
        std::ofstream(arguments[4], std::ios::binary).write(outputs.data(), outputs.size());
    } catch (const c10::Error& problem) {
        std::cerr << problem.what_without_backtrace() << '\n';
        return 1;
    } catch (const std::exception& problem) {
        std::cerr << problem.what() << '\n';
        return 1;
    }
}
