// What the parts of the compiled half share. Each part brings a table of functions; module.c puts them together.
#ifndef SMGRID_NATIVE_H
#define SMGRID_NATIVE_H

#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030B0000 // one binary for every Python from 3.11
#include <Python.h>

#include <stdint.h>
#include <string.h>

#if defined(__GNUC__) && defined(__x86_64__)
#define SMGRID_X86 1 // forms for AVX2 and AVX-512 are compiled beside the plain one and chosen when the module loads
#endif

// Raised by one with each change of a function that Python calls, here and in native.py: a stale binary is not used.
#define SMGRID_INTERFACE 1

enum { SMGRID_PLAIN = 0, SMGRID_AVX2 = 1, SMGRID_AVX512 = 2 };

// The form in use: the best that this processor has, unless a test asked for a plainer one.
extern int smgrid_form;

extern PyMethodDef smgrid_trees[];
extern PyMethodDef smgrid_cells[];

#endif
