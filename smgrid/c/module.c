// The module smgrid._native: which instructions it may use, and the functions of its parts.
#include "native.h"

int smgrid_form = SMGRID_PLAIN;

static const char *const NAMES[] = {"plain", "avx2", "avx512"};

static int best_form(void) {
#ifdef SMGRID_X86
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl"))
        return SMGRID_AVX512;
    if (__builtin_cpu_supports("avx2"))
        return SMGRID_AVX2;
#endif
    return SMGRID_PLAIN;
}

static PyObject *form(PyObject *self, PyObject *args) {
    (void)self;
    const char *name = NULL;
    if (!PyArg_ParseTuple(args, "|s", &name))
        return NULL;
    if (name) {
        int wanted = 0;
        while (wanted < 3 && strcmp(name, NAMES[wanted]))
            wanted++;
        if (wanted > best_form())
            return PyErr_Format(PyExc_ValueError, "this processor has no form '%s'; its best is '%s'", name,
                                NAMES[best_form()]);
        smgrid_form = wanted;
    }
    return PyUnicode_FromString(NAMES[smgrid_form]);
}

static PyMethodDef methods[] = {
    {"form", form, METH_VARARGS, "form(name=None): name of the instructions in use; given a name, use those."},
    {NULL, NULL, 0, NULL},
};

static int load(PyObject *module) {
    smgrid_form = best_form();
    if (PyModule_AddIntConstant(module, "INTERFACE", SMGRID_INTERFACE))
        return -1;
    return PyModule_AddFunctions(module, smgrid_trees) || PyModule_AddFunctions(module, smgrid_cells) ? -1 : 0;
}

static PyModuleDef_Slot slots[] = {{Py_mod_exec, load}, {0, NULL}};

static PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "smgrid._native", "Tree kernels and the walk over the cells of a block.", 0, methods, slots,
    NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__native(void) { return PyModuleDef_Init(&definition); }
