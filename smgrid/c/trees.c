// Tree ensembles on band-first tiles: the table of functions, and what the two kinds of kernels share.
#include "trees.h"

#include <stdlib.h>

static int is_kind(const Py_buffer *view, char kind) {
    const char *format = view->format ? view->format : "B";
    if (format[0] == '\0' || format[1] != '\0')
        return 0; // another byte order, or a structure
    if (kind == 'q')
        return view->itemsize == 8 && (format[0] == 'q' || format[0] == 'l');
    return format[0] == kind;
}

void *take(arrays *all, PyObject *object, const char *name, char kind, int dimensions, int written) {
    Py_buffer *view = &all->view[all->count];
    if (PyObject_GetBuffer(object, view, PyBUF_STRIDES | PyBUF_FORMAT | (written ? PyBUF_WRITABLE : 0)))
        return NULL;
    all->count++;
    int whole = view->ndim == dimensions && is_kind(view, kind) && PyBuffer_IsContiguous(view, 'C');
    if (whole && (uintptr_t)view->buf % (size_t)view->itemsize == 0)
        return view->buf;
    return PyErr_Format(PyExc_ValueError,
                        "%s must be a C-contiguous, aligned array of %d dimensions and format '%c'; it has %d and '%s'",
                        name, dimensions, kind, view->ndim, view->format ? view->format : "B");
}

void release(arrays *all) {
    while (all->count)
        PyBuffer_Release(&all->view[--all->count]);
}

void *room(size_t items, size_t size) {
    void *got = size && items > (SIZE_MAX - 192) / size ? NULL : calloc(1, items * size + 192);
    if (!got)
        return PyErr_NoMemory();
    char *aligned = (char *)(((uintptr_t)got + 64 + 63) & ~(uintptr_t)63); // a place before it for what was got; vectors may be read past its end
    ((void **)aligned)[-1] = got;
    return aligned;
}

void drop(void *memory) {
    if (memory)
        free(((void **)memory)[-1]);
}

PyMethodDef smgrid_trees[] = {
    {"deep_pack", deep_pack, METH_VARARGS, "Trees of any depth, checked and packed."},
    {"deep_predict", deep_predict, METH_VARARGS, "Sums of packed trees over the cells of a tile."},
    {"deep_spread", deep_spread, METH_VARARGS, "Mean and standard deviation over packed trees."},
    {"shallow_pack", shallow_pack, METH_VARARGS, "Boosted trees filled up to one depth, checked and packed."},
    {"shallow_predict", shallow_predict, METH_VARARGS, "Sums of filled-up trees over the cells of a tile."},
    {NULL, NULL, 0, NULL},
};
