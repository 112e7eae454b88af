// The Python module. It finds the kernels for an instruction set that this machine has, and calls them.

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <cstring>
#include <initializer_list>
#include <vector>

#include "buffer.h"
#include "precision.h"
#include "targets.h"

// The hash of the headers of this extension. Libraries of single cells must be compiled with the same headers.
#ifndef SEQCELLS_HEADERS
#define SEQCELLS_HEADERS ""
#endif

namespace seqcells {

namespace {

// targets() -> names of the instruction sets that this machine can run, best first
PyObject* targets_here(PyObject*, PyObject*) {
    PyObject* names = PyList_New(0);
    for (const Target& target : targets)
        if (names && target.supported()) {
            PyObject* name = PyUnicode_FromString(target.name);
            if (!name || PyList_Append(names, name)) Py_CLEAR(names);
            Py_XDECREF(name);
        }
    return names;
}

// find_passes(target, key, type) -> the addresses of a cell's two passes, computed in "float" or "double"; None if the
// extension was built without the cell
PyObject* find_passes(PyObject*, PyObject* args) {
    const char *name, *key, *type;
    if (!PyArg_ParseTuple(args, "sss", &name, &key, &type)) return nullptr;
    if (const Target* target = target_here(name))
        for (const Built* row = target->cells; row->key; ++row)
            if (!std::strcmp(row->key, key)) {
                const Pass* both = std::strcmp(type, "double") ? row->single : row->wide;
                return Py_BuildValue("NN", PyLong_FromVoidPtr(const_cast<Pass*>(both)), PyLong_FromVoidPtr(const_cast<Pass*>(both + 1)));
            }
    Py_RETURN_NONE;
}

// find_precision(target, precision) -> a handle for gemm and find_loop, or None
PyObject* find_precision(PyObject*, PyObject* args) {
    const char *target, *precision;
    if (!PyArg_ParseTuple(args, "ss", &target, &precision)) return nullptr;
    const Target* found = target_here(target);
    if (const Precision* tables = found ? found->find(precision) : nullptr) return PyLong_FromVoidPtr(const_cast<Precision*>(tables));
    Py_RETURN_NONE;
}

// Fills structs, whose fields are integers and addresses, from as many Python integers. Returns how many structs, 0 on an
// error.
template <class Struct>
int fill(Struct* all, int most, PyObject* const* args, Py_ssize_t count) {
    constexpr Py_ssize_t fields = sizeof(Struct) / sizeof(int64_t);
    static_assert(sizeof(Struct) % sizeof(int64_t) == 0 && sizeof(void*) == sizeof(int64_t), "all fields of 8 bytes");
    if (!count || count % fields || count > most * fields) {
        PyErr_Format(PyExc_TypeError, "expected %zd fields, or up to %d times as many, got %zd", fields, most, count);
        return 0;
    }
    int64_t values[fields];
    for (Py_ssize_t k = 0; k < count; ++k) {
        values[k % fields] = PyLong_AsLongLong(args[k]);
        if (k % fields == fields - 1) std::memcpy(all + k / fields, values, sizeof *all);
    }
    return PyErr_Occurred() ? 0 : int(count / fields);
}

// Runs work() without the interpreter's lock -> None, or MemoryError if work() returns other than 0
template <class Work>
PyObject* unlocked(Work work) {
    int status;
    Py_BEGIN_ALLOW_THREADS;
    status = work();
    Py_END_ALLOW_THREADS;
    if (status) return PyErr_NoMemory();
    Py_RETURN_NONE;
}

// gemm(handle, *fields of Gemm)
PyObject* gemm(PyObject*, PyObject* const* args, Py_ssize_t count) {
    if (count < 1) return PyErr_Format(PyExc_TypeError, "gemm takes a handle and the fields");
    const auto* precision = static_cast<const Precision*>(PyLong_AsVoidPtr(args[0]));
    Gemm product;
    if (PyErr_Occurred() || !fill(&product, 1, args + 1, count - 1)) return nullptr;
    return unlocked([&] { return precision->gemm(product); });
}

// A cell's pass, and the loop for one precision and instruction set.
struct Looped {
    const Precision& precision;
    const Pass& pass;

    int operator()(const LayerCall* directions, int count) const { return precision.loop(pass, directions, count); }
};

// find_loop(handle of a precision, address of a pass) -> a handle for loop and pack. Handles are few, and never freed.
PyObject* find_loop(PyObject*, PyObject* args) {
    PyObject *precision, *pass;
    if (!PyArg_ParseTuple(args, "O!O!", &PyLong_Type, &precision, &PyLong_Type, &pass)) return nullptr;
    const auto *tables = static_cast<const Precision*>(PyLong_AsVoidPtr(precision));
    const auto *own = static_cast<const Pass*>(PyLong_AsVoidPtr(pass));
    return PyErr_Occurred() ? nullptr : PyLong_FromVoidPtr(new Looped{*tables, *own});
}

// loop(handle, *fields of each direction's LayerCall)
PyObject* loop(PyObject*, PyObject* const* args, Py_ssize_t count) {
    if (count < 1) return PyErr_Format(PyExc_TypeError, "loop takes a handle and the fields");
    const auto* looped = static_cast<const Looped*>(PyLong_AsVoidPtr(args[0]));
    LayerCall directions[2];
    if (PyErr_Occurred()) return nullptr;
    const int given = fill(directions, 2, args + 1, count - 1);
    if (!given) return nullptr;
    return unlocked([&] { return (*looped)(directions, given); });
}

// pack(handle, address, *fields of a direction's LayerCall) -> the bytes that the direction's packed weights take. They are written
// to the address unless that is 0.
PyObject* pack(PyObject*, PyObject* const* args, Py_ssize_t count) {
    if (count < 2) return PyErr_Format(PyExc_TypeError, "pack takes a handle, an address and the fields");
    const auto* looped = static_cast<const Looped*>(PyLong_AsVoidPtr(args[0]));
    void* memory = PyLong_AsVoidPtr(args[1]);
    LayerCall direction;
    if (PyErr_Occurred() || !fill(&direction, 1, args + 2, count - 2)) return nullptr;
    return PyLong_FromLongLong(looped->precision.pack(looped->pass, direction, memory));
}

// release() -> the bytes given back to the system
PyObject* release(PyObject*, PyObject*) { return PyLong_FromLongLong(pool::release()); }

// Frees an object of one of this module's types, and its reference to the type.
void free_object(PyObject* object) {
    PyTypeObject* type = Py_TYPE(object);
    reinterpret_cast<freefunc>(PyType_GetSlot(type, Py_tp_free))(object);
    Py_DECREF(type);
}

// memory(bytes): a writable buffer from the pool. The pool gets it back when no reference to it is left.
struct Memory {
    PyObject_HEAD
    void* address;
    int64_t bytes, asked;
};

PyObject* memory_new(PyTypeObject* type, PyObject* args, PyObject*) {
    long long bytes;
    if (!PyArg_ParseTuple(args, "L", &bytes)) return nullptr;
    auto* self = reinterpret_cast<Memory*>(PyType_GenericAlloc(type, 0));
    if (!self) return nullptr;
    self->asked = bytes;
    self->bytes = (bytes + 127) / 64 * 64;
    self->address = pool::take(self->bytes);
    if (self->address) return reinterpret_cast<PyObject*>(self);
    Py_DECREF(self);
    return PyErr_NoMemory();
}

void memory_free(PyObject* object) {
    auto* self = reinterpret_cast<Memory*>(object);
    if (self->address) pool::give(self->address, self->bytes);
    free_object(object);
}

int memory_buffer(PyObject* object, Py_buffer* view, int flags) {
    auto* self = reinterpret_cast<Memory*>(object);
    return PyBuffer_FillInfo(view, object, self->address, self->asked, 0, flags);
}

PyType_Slot memory_slots[] = {
    {Py_tp_new, reinterpret_cast<void*>(memory_new)},
    {Py_tp_dealloc, reinterpret_cast<void*>(memory_free)},
    {Py_bf_getbuffer, reinterpret_cast<void*>(memory_buffer)},
    {0, nullptr},
};
PyType_Spec memory_spec = {"seqcells.kernels.cpu._engine.memory", sizeof(Memory), 0, Py_TPFLAGS_DEFAULT, memory_slots};

// prepared(runs, arguments, bytes): passes of layers, products, copies and sums that run in order, for calls that differ only
// in the addresses of their arrays. A run is (what, handle, fields, places). A place is (field, which, ahead): the field
// becomes the address of the data of argument `which`, plus `ahead` bytes. The object is called with `arguments` tensors; None
// stands for null. If `bytes` is not 0, one more argument, past the last tensor, is memory by which runs pass values on to
// later runs.
struct Place {
    Py_ssize_t field, which;
    long long ahead;
};

// Copies planes of rows, each row of `bytes` bytes. `to` and `from` are the addresses of the first rows; the strides from plane
// to plane and from row to row are in bytes.
struct Copy {
    int64_t planes, rows, bytes;
    void* to;
    int64_t to_by_plane, to_by_row;
    const void* from;
    int64_t from_by_plane, from_by_row;

    int operator()() const {
        for (int64_t plane = 0; plane < planes; ++plane)
            for (int64_t row = 0; row < rows; ++row)
                std::memcpy(static_cast<char*>(to) + plane * to_by_plane + row * to_by_row,
                            static_cast<const char*>(from) + plane * from_by_plane + row * from_by_row, bytes);
        return 0;
    }
};

// Adds `count` numbers to as many numbers at `to`, each of `bytes` bytes.
struct Add {
    int64_t count, bytes;
    void* to;
    const void* from;

    int operator()() const {
        if (bytes == sizeof(float)) add<float>();
        else add<double>();
        return 0;
    }

  private:
    template <class Number>
    void add() const {
        Number* sums = static_cast<Number*>(to);
        const Number* more = static_cast<const Number*>(from);
        for (int64_t k = 0; k < count; ++k) sums[k] += more[k];
    }
};

struct Run {
    char what;  // the first letter of: loop, gemm, copy, add
    const void* handle;
    int directions;
    union {
        LayerCall calls[2];
        Gemm gemm;
        Copy copy;
        Add add;
    };
    std::vector<Place> places;

    Run() : calls() {}

    int operator()(const std::vector<int64_t>& addresses) const {
        switch (what) {
            case 'g': return static_cast<const Precision*>(handle)->gemm(filled(gemm, addresses));
            case 'c': return filled(copy, addresses)();
            case 'a': return filled(add, addresses)();
        }
        return (*static_cast<const Looped*>(handle))(filled(Both{{calls[0], calls[1]}}, addresses).of, directions);
    }

  private:
    struct Both {
        LayerCall of[2];
    };
    template <class Struct>
    Struct filled(Struct fields, const std::vector<int64_t>& addresses) const {
        for (const Place& place : places) {
            const int64_t address = addresses[place.which] ? addresses[place.which] + place.ahead : 0;
            std::memcpy(reinterpret_cast<char*>(&fields) + place.field * sizeof address, &address, sizeof address);
        }
        return fields;
    }
};
struct Prepared {
    PyObject_HEAD
    std::vector<Run> runs;
    Py_ssize_t arguments;
    long long bytes;
};

// Reads a run from its Python form. Returns false, with an exception set, on an error.
bool read(PyObject* given, Run& run, Py_ssize_t arguments) {
    const char* what;
    PyObject *handle, *fields, *places;
    if (!PyArg_ParseTuple(given, "sO!O!O!", &what, &PyLong_Type, &handle, &PyList_Type, &fields, &PyList_Type, &places)) return false;
    run.what = *what;
    run.handle = PyLong_AsVoidPtr(handle);
    const Py_ssize_t count = PyList_Size(fields);
    std::vector<PyObject*> items(count);
    for (Py_ssize_t k = 0; k < count; ++k) items[k] = PyList_GetItem(fields, k);
    PyObject* const* values = items.data();
    switch (run.what) {
        case 'l': run.directions = fill(run.calls, 2, values, count); break;
        case 'g': run.directions = fill(&run.gemm, 1, values, count); break;
        case 'c': run.directions = fill(&run.copy, 1, values, count); break;
        case 'a': run.directions = fill(&run.add, 1, values, count); break;
        default: return PyErr_Format(PyExc_ValueError, "there is no run of the kind %s", what);
    }
    for (Py_ssize_t k = 0; run.directions && k < PyList_Size(places); ++k) {
        Place place;
        if (!PyArg_ParseTuple(PyList_GetItem(places, k), "nnL", &place.field, &place.which, &place.ahead)) return false;
        if (place.field < 0 || place.field >= count || place.which < 0 || place.which > arguments)
            return PyErr_Format(PyExc_IndexError, "there is no field %zd, or no argument %zd", place.field, place.which);
        run.places.push_back(place);
    }
    return run.directions;
}

PyObject* prepared_new(PyTypeObject* type, PyObject* args, PyObject*) {
    PyObject* given;
    Py_ssize_t arguments;
    long long bytes;
    if (!PyArg_ParseTuple(args, "O!nL", &PyList_Type, &given, &arguments, &bytes)) return nullptr;
    auto* self = reinterpret_cast<Prepared*>(PyType_GenericAlloc(type, 0));
    if (!self) return nullptr;
    new (&self->runs) std::vector<Run>(PyList_Size(given));
    self->arguments = arguments, self->bytes = bytes;
    for (size_t k = 0; k < self->runs.size(); ++k)
        if (!read(PyList_GetItem(given, k), self->runs[k], self->arguments)) {
            Py_DECREF(self);
            return nullptr;
        }
    return reinterpret_cast<PyObject*>(self);
}

void prepared_free(PyObject* object) {
    reinterpret_cast<Prepared*>(object)->runs.~vector();
    free_object(object);
}

PyObject* prepared_call(PyObject* object, PyObject* args, PyObject*) {
    static PyObject* const data_ptr = PyUnicode_InternFromString("data_ptr");
    const auto* self = reinterpret_cast<const Prepared*>(object);
    if (PyTuple_Size(args) != self->arguments)
        return PyErr_Format(PyExc_TypeError, "expected %zd tensors, got %zd", self->arguments, PyTuple_Size(args));
    std::vector<int64_t> addresses(self->arguments + 1);
    for (Py_ssize_t k = 0; k < self->arguments; ++k) {
        PyObject* tensor = PyTuple_GetItem(args, k);
        if (tensor == Py_None) continue;
        PyObject* address = PyObject_CallMethodObjArgs(tensor, data_ptr, nullptr);
        if (!address) return nullptr;
        addresses[k] = PyLong_AsLongLong(address);
        Py_DECREF(address);
    }
    if (PyErr_Occurred()) return nullptr;
    return unlocked([&] {
        Buffer<char> memory;
        if (self->bytes) memory = Buffer<char>(self->bytes);
        if (self->bytes && !memory.get()) return -1;
        addresses.back() = reinterpret_cast<int64_t>(memory.get());
        for (const Run& run : self->runs)
            if (run(addresses)) return -1;
        return 0;
    });
}

PyType_Slot prepared_slots[] = {
    {Py_tp_new, reinterpret_cast<void*>(prepared_new)},
    {Py_tp_dealloc, reinterpret_cast<void*>(prepared_free)},
    {Py_tp_call, reinterpret_cast<void*>(prepared_call)},
    {0, nullptr},
};
PyType_Spec prepared_spec = {"seqcells.kernels.cpu._engine.prepared", sizeof(Prepared), 0, Py_TPFLAGS_DEFAULT, prepared_slots};

PyMethodDef methods[] = {
    {"targets", targets_here, METH_NOARGS, nullptr},
    {"find_passes", find_passes, METH_VARARGS, nullptr},
    {"find_precision", find_precision, METH_VARARGS, nullptr},
    {"find_loop", find_loop, METH_VARARGS, nullptr},
    {"loop", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(loop)), METH_FASTCALL, nullptr},
    {"pack", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(pack)), METH_FASTCALL, nullptr},
    {"release", release, METH_NOARGS, nullptr},
    {"gemm", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(gemm)), METH_FASTCALL, nullptr},
    {nullptr, nullptr, 0, nullptr},
};

PyModuleDef definition = {PyModuleDef_HEAD_INIT, "_engine", nullptr, -1, methods, nullptr, nullptr, nullptr, nullptr};

}  // namespace
}  // namespace seqcells

PyMODINIT_FUNC PyInit__engine() {
    using namespace seqcells;
    PyObject* module = PyModule_Create(&definition);
    for (PyType_Spec* spec : {&memory_spec, &prepared_spec}) {
        PyObject* type = module ? PyType_FromSpec(spec) : nullptr;
        if (module && (!type || PyModule_AddType(module, reinterpret_cast<PyTypeObject*>(type)))) Py_CLEAR(module);
        Py_XDECREF(type);
    }
    if (module && (PyModule_AddStringConstant(module, "headers", SEQCELLS_HEADERS) || PyModule_AddIntMacro(module, MAX_ARRAYS) || PyModule_AddIntMacro(module, MAX_LETTERS))) Py_CLEAR(module);
    return module;
}
