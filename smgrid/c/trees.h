// What the two kinds of tree kernels share: arrays at the door, and memory.
#ifndef SMGRID_TREES_H
#define SMGRID_TREES_H
#include "native.h"

#if defined(__GNUC__)
#define INLINE static inline __attribute__((always_inline))
#define APART static __attribute__((noinline))
#else
#define INLINE static inline
#define APART static
#endif

// Arrays of one call; all are released together.
typedef struct {
    Py_buffer view[12];
    int count;
} arrays;

// Take an array of the next argument: `kind` is its buffer format ('f', 'd', 'B', or 'q' for any int64). Its elements, or
// NULL with an exception set: ValueError for another dtype, number of dimensions, a gap in memory, or a read-only result.
void *take(arrays *all, PyObject *object, const char *name, char kind, int dimensions, int written);
void release(arrays *all);

INLINE Py_ssize_t length(const arrays *all, int which, int axis) { return all->view[which].shape[axis]; }

// Zeroed memory outside Python's heap, aligned for every vector; NULL with MemoryError set. Freed by drop().
void *room(size_t items, size_t size);
void drop(void *memory);

// The functions of deep.c and shallow.c.
PyObject *deep_pack(PyObject *self, PyObject *args);
PyObject *deep_predict(PyObject *self, PyObject *args);
PyObject *deep_spread(PyObject *self, PyObject *args);
PyObject *shallow_pack(PyObject *self, PyObject *args);
PyObject *shallow_predict(PyObject *self, PyObject *args);

#endif
