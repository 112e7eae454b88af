// The Python module: finds the kernels of the best instruction set that this machine has, and calls them.

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <cstring>

#include "problem.h"

namespace seqcells {

#define SEQCELLS_TABLES(target)          \
    namespace target {                   \
    extern const Kernels float32[];      \
    extern const Kernels float64[];      \
    }
SEQCELLS_TABLES(portable)
#if defined(__x86_64__)
SEQCELLS_TABLES(avx2)
SEQCELLS_TABLES(avx512)
#endif

namespace {

struct Target {
    const char* name;
    bool (*supported)();
    const Kernels *float32, *float64;
};

const Target targets[] = {
#if defined(__x86_64__)
    {"avx512",
     [] {
         return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
     },
     avx512::float32, avx512::float64},
    {"avx2", [] { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }, avx2::float32, avx2::float64},
#endif
    {"portable", [] { return true; }, portable::float32, portable::float64},
};

// targets() -> names of those that this machine can run, best first
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

template <class F>
PyObject* tuple(int count, F item) {
    PyObject* items = PyTuple_New(count);
    for (int k = 0; items && k < count; ++k) PyTuple_SET_ITEM(items, k, PyLong_FromLong(item(k)));
    return items;
}

// find(target, dtype, cell) -> (a handle for run, saves, shared, path), or None for a cell that is not in the tables
PyObject* find(PyObject*, PyObject* args) {
    const char *name, *dtype, *cell;
    if (!PyArg_ParseTuple(args, "sss", &name, &dtype, &cell)) return nullptr;
    for (const Target& target : targets) {
        if (std::strcmp(target.name, name) || !target.supported()) continue;
        const Kernels* row = std::strcmp(dtype, "float32") ? target.float64 : target.float32;
        for (; row->cell; ++row)
            if (!std::strcmp(row->cell, cell))
                return Py_BuildValue("NiNN", PyLong_FromVoidPtr(const_cast<Kernels*>(row)), row->saves,
                                     tuple(row->recurrent_gates, [&](int k) { return row->shared[k]; }),
                                     tuple(row->states, [&](int k) { return int(row->path[k]); }));
    }
    Py_RETURN_NONE;
}

constexpr Py_ssize_t FIELDS = sizeof(Problem) / sizeof(int64_t);
static_assert(sizeof(Problem) % sizeof(int64_t) == 0 && sizeof(void*) == sizeof(int64_t), "all fields of 8 bytes");

// run(handle, backward, *fields of Problem), addresses and sizes alike as integers
PyObject* run(PyObject*, PyObject* const* args, Py_ssize_t count) {
    if (count != FIELDS + 2) {
        PyErr_Format(PyExc_TypeError, "run takes a handle, a direction and %zd fields, got %zd arguments", FIELDS, count);
        return nullptr;
    }
    const auto* kernels = static_cast<const Kernels*>(PyLong_AsVoidPtr(args[0]));
    const int backward = PyObject_IsTrue(args[1]);
    int64_t fields[FIELDS];
    for (Py_ssize_t k = 0; k < FIELDS; ++k) fields[k] = PyLong_AsLongLong(args[k + 2]);
    if (PyErr_Occurred()) return nullptr;
    Problem problem;
    std::memcpy(&problem, fields, sizeof problem);
    int status;
    Py_BEGIN_ALLOW_THREADS;
    status = backward ? kernels->backward(problem) : kernels->forward(problem);
    Py_END_ALLOW_THREADS;
    if (status) return PyErr_NoMemory();
    Py_RETURN_NONE;
}

PyMethodDef methods[] = {
    {"targets", targets_here, METH_NOARGS, nullptr},
    {"find", find, METH_VARARGS, nullptr},
    {"run", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(run)), METH_FASTCALL, nullptr},
    {nullptr, nullptr, 0, nullptr},
};

PyModuleDef definition = {PyModuleDef_HEAD_INIT, "_engine", nullptr, -1, methods, nullptr, nullptr, nullptr, nullptr};

}  // namespace
}  // namespace seqcells

PyMODINIT_FUNC PyInit__engine() { return PyModule_Create(&seqcells::definition); }
