// Judging the cells of a block, gathering those to be predicted, and laying predictions down.
//
// A field may be broadcast (strides of 0) or turned (any strides); it is walked row by row of the block, never blown up.
// Known cells are runs: pairs (first cell, how many known cells came before), closed by (cells, known cells).
#include "native.h"

#include <float.h>

enum { MAX_DIMS = 16, RUN = 128 }; // cells of a run are counted in a byte
enum { PREDICTED = 0, OUTSIDE = 1, MISSING = 2, INVALID = 3 }; // as in smgrid/shapes.py

#if defined(__GNUC__)
#define INLINE static inline __attribute__((always_inline))
#else
#define INLINE static inline
#endif

// ---- fields

typedef struct {
    Py_buffer view;
    const char *data;
    Py_ssize_t cells, shape[MAX_DIMS], step[MAX_DIMS];
    int dims, wide; // wide: float64, else float32
} Field;

static char kind_of(const Py_buffer *view) {
    const char *format = view->format ? view->format : "B";
    const uint16_t one = 1;
    if (*format == '@' || *format == '=' || *format == (*(const uint8_t *)&one ? '<' : '>'))
        format++; // of this machine's byte order
    return format[0] && !format[1] ? format[0] : 0;
}

// Open a field and join axes that lie behind each other, so that a contiguous block is one row.
static int open_field(PyObject *object, Field *field) {
    if (PyObject_GetBuffer(object, &field->view, PyBUF_FORMAT | PyBUF_STRIDES))
        return -1;
    Py_buffer *view = &field->view;
    char kind = kind_of(view);
    field->wide = kind == 'd';
    Py_ssize_t size = field->wide ? 8 : 4;
    int fine = (kind == 'f' || kind == 'd') && view->itemsize == size && view->ndim <= MAX_DIMS &&
               (uintptr_t)view->buf % (size_t)size == 0;
    for (int d = 0; fine && d < view->ndim; d++)
        fine = view->strides[d] % size == 0;
    if (!fine) {
        PyBuffer_Release(view);
        PyErr_SetString(PyExc_ValueError, "a field is an aligned array of float32 or float64 of at most 16 dimensions");
        return -1;
    }
    field->data = view->buf;
    field->cells = 1;
    field->dims = 0;
    for (int d = 0; d < view->ndim; d++) {
        Py_ssize_t n = view->shape[d], step = view->strides[d];
        field->cells *= n;
        if (n == 1)
            continue;
        int last = field->dims - 1;
        if (last >= 0 && field->step[last] == step * n) {
            field->shape[last] *= n;
            field->step[last] = step;
        } else {
            field->shape[field->dims] = n;
            field->step[field->dims++] = step;
        }
    }
    if (!field->dims) {
        field->shape[0] = 1;
        field->step[0] = 0;
        field->dims = 1;
    }
    return 0;
}

// Where a cell lies in memory, and how many cells follow it in its row.
static const char *place(const Field *field, Py_ssize_t cell, Py_ssize_t *follow) {
    const char *at = field->data;
    int last = field->dims - 1;
    for (int d = last; d >= 0; d--) {
        Py_ssize_t i = cell % field->shape[d];
        if (d == last)
            *follow = field->shape[d] - i;
        at += i * field->step[d];
        cell /= field->shape[d];
    }
    return at;
}

// Open a contiguous array of one of some kinds and of a length.
static int open_plain(PyObject *object, Py_buffer *view, const char *kinds, int writable, const char *what) {
    if (PyObject_GetBuffer(object, view, PyBUF_FORMAT | PyBUF_C_CONTIGUOUS | (writable ? PyBUF_WRITABLE : 0)))
        return -1;
    char kind = kind_of(view);
    if (!kind || !strchr(kinds, kind) || (uintptr_t)view->buf % (size_t)view->itemsize) {
        PyBuffer_Release(view);
        PyErr_Format(PyExc_ValueError, "%s is not of the type that is wanted", what);
        return -1;
    }
    return 0;
}

// ---- judging

typedef struct {
    double low, high, from, to; // plausible and trained range
    int trained;
    uint8_t number;
} Limits;

// One run of a row: most are all judged already, or clean; the rest is worked out in bytes.
#define JUDGE(T)                                                                                                       \
    INLINE Py_ssize_t judge_##T(const char *at, Py_ssize_t step, int n, uint8_t *status, uint8_t *culprit,             \
                                const Limits *l) {                                                                     \
        T low = (T)l->low, high = (T)l->high, from = (T)l->from, to = (T)l->to, held[RUN];                             \
        T least = l->trained && from > low ? from : low, most = l->trained && to < high ? to : high;                   \
        uint8_t open = 0, any = 0;                                                                                     \
        int unclean = 0;                                                                                               \
        for (int j = 0; j < n; j++)                                                                                    \
            any |= status[j];                                                                                          \
        if (!any)                                                                                                      \
            open = (uint8_t)n;                                                                                         \
        else                                                                                                           \
            for (int j = 0; j < n; j++)                                                                                \
                open += status[j] < MISSING;                                                                           \
        if (!open)                                                                                                     \
            return 0;                                                                                                  \
        const T *v = (const T *)at;                                                                                    \
        if (step != sizeof(T)) {                                                                                       \
            for (int j = 0; j < n; j++, at += step)                                                                    \
                held[j] = *(const T *)at;                                                                              \
            v = held;                                                                                                  \
        }                                                                                                              \
        for (int j = 0; j < n; j++)                                                                                    \
            unclean |= !((v[j] >= least) & (v[j] <= most));                                                            \
        if (!unclean)                                                                                                  \
            return open;                                                                                               \
        if (any) { /* cells that are settled already, gaps as a rule, need no second verdict */                        \
            uint8_t fresh = 0;                                                                                         \
            for (int j = 0; j < n; j++)                                                                                \
                fresh |= (status[j] < MISSING) & !((v[j] >= least) & (v[j] <= most));                                  \
            if (!fresh)                                                                                                \
                return open;                                                                                           \
        }                                                                                                              \
        uint8_t bad[RUN], verdict[RUN], out[RUN];                                                                      \
        for (int j = 0; j < n; j++) {                                                                                  \
            bad[j] = !((v[j] >= low) & (v[j] <= high));                                                                \
            verdict[j] = v[j] != v[j] ? MISSING : INVALID;                                                             \
            out[j] = (v[j] < from) | (v[j] > to);                                                                      \
        }                                                                                                              \
        open = 0;                                                                                                      \
        for (int j = 0; j < n; j++) {                                                                                  \
            uint8_t s = status[j], fails = bad[j] & (s < MISSING), strange = out[j] & !bad[j] & (s == PREDICTED);      \
            strange &= (uint8_t)l->trained;                                                                            \
            culprit[j] = (fails | strange) ? l->number : culprit[j];                                                   \
            s = fails ? verdict[j] : strange ? OUTSIDE : s;                                                            \
            status[j] = s;                                                                                             \
            open += s < MISSING;                                                                                       \
        }                                                                                                              \
        return open;                                                                                                   \
    }
JUDGE(float)
JUDGE(double)

INLINE Py_ssize_t judge_all(const Field *field, uint8_t *status, uint8_t *culprit, const Limits *l) {
    Py_ssize_t open = 0, step = field->step[field->dims - 1], follow = 0;
    for (Py_ssize_t cell = 0; cell < field->cells;) {
        const char *at = place(field, cell, &follow);
        for (Py_ssize_t end = cell + follow; cell < end;) {
            int n = end - cell < RUN ? (int)(end - cell) : RUN;
            open += field->wide ? judge_double(at, step, n, status + cell, culprit + cell, l)
                                : judge_float(at, step, n, status + cell, culprit + cell, l);
            cell += n;
            at += n * step;
        }
    }
    return open;
}

// ---- gathering

typedef struct {
    double least, width;
    int scaled;
} Scale;

#define GATHER(T, TO)                                                                                                  \
    INLINE void gather_##T##_##TO(const char *at, Py_ssize_t step, Py_ssize_t n, TO *out, const Scale *s) {            \
        double least = s->least, width = s->width;                                                                     \
        if (step == sizeof(T)) {                                                                                       \
            const T *v = (const T *)at;                                                                                \
            if (!s->scaled)                                                                                            \
                for (Py_ssize_t j = 0; j < n; j++)                                                                     \
                    out[j] = (TO)v[j];                                                                                 \
            else                                                                                                       \
                for (Py_ssize_t j = 0; j < n; j++)                                                                     \
                    out[j] = (TO)(((double)v[j] - least) / width);                                                     \
        } else if (step == 0) {                                                                                        \
            double x = (double)*(const T *)at;                                                                         \
            TO same = (TO)(s->scaled ? (x - least) / width : x);                                                       \
            for (Py_ssize_t j = 0; j < n; j++)                                                                         \
                out[j] = same;                                                                                         \
        } else                                                                                                         \
            for (Py_ssize_t j = 0; j < n; j++, at += step) {                                                           \
                double x = (double)*(const T *)at;                                                                     \
                out[j] = (TO)(s->scaled ? (x - least) / width : x);                                                    \
            }                                                                                                          \
    }
GATHER(float, float)
GATHER(float, double)
GATHER(double, float)
GATHER(double, double)

INLINE void gather_run(const Field *field, Py_ssize_t cell, Py_ssize_t n, void *out, Py_ssize_t at, int wide,
                       const Scale *s) {
    Py_ssize_t step = field->step[field->dims - 1], follow = 0;
    while (n > 0) {
        const char *from = place(field, cell, &follow);
        Py_ssize_t m = follow < n ? follow : n;
        if (field->wide) {
            if (wide)
                gather_double_double(from, step, m, (double *)out + at, s);
            else
                gather_double_float(from, step, m, (float *)out + at, s);
        } else {
            if (wide)
                gather_float_double(from, step, m, (double *)out + at, s);
            else
                gather_float_float(from, step, m, (float *)out + at, s);
        }
        cell += m;
        at += m;
        n -= m;
    }
}

// ---- one source, a form for each set of instructions

#define FORM(name, attribute)                                                                                          \
    attribute static Py_ssize_t judge_##name(const Field *f, uint8_t *s, uint8_t *c, const Limits *l) {                \
        return judge_all(f, s, c, l);                                                                                  \
    }                                                                                                                  \
    attribute static void gather_##name(const Field *f, Py_ssize_t cell, Py_ssize_t n, void *out, Py_ssize_t at,       \
                                        int wide, const Scale *s) {                                                    \
        gather_run(f, cell, n, out, at, wide, s);                                                                      \
    }
FORM(plain, )
#ifdef SMGRID_X86
FORM(avx2, __attribute__((target("avx2"))))
#endif

// ---- runs

// The run that holds the known cell number `start`; runs are checked where they are used.
static Py_ssize_t find_run(const int64_t *runs, Py_ssize_t count, int64_t start) {
    Py_ssize_t low = 0, high = count;
    while (high - low > 1) {
        Py_ssize_t middle = low + (high - low) / 2;
        if (runs[2 * middle + 1] <= start)
            low = middle;
        else
            high = middle;
    }
    return low;
}

typedef struct {
    const int64_t *runs;
    Py_ssize_t count, cells, run;
    int64_t done, stop;
} Walk;

// The next piece of known cells; 0 when there are no more, -1 where runs do not fit the block.
static int next_piece(Walk *w, Py_ssize_t *cell, Py_ssize_t *n) {
    if (w->done >= w->stop)
        return 0;
    if (w->run >= w->count)
        return -1;
    const int64_t *r = w->runs + 2 * w->run++;
    int64_t skip = w->done - r[1], length = r[3] - w->done;
    if (length > w->stop - w->done)
        length = w->stop - w->done;
    if (skip < 0 || length <= 0 || r[0] < 0 || r[0] > w->cells || skip > w->cells - r[0] ||
        length > w->cells - r[0] - skip)
        return -1;
    *cell = (Py_ssize_t)(r[0] + skip);
    *n = (Py_ssize_t)length;
    w->done += length;
    return 1;
}

static int open_walk(PyObject *object, Py_buffer *view, Walk *w, Py_ssize_t cells, Py_ssize_t start, Py_ssize_t n) {
    if (open_plain(object, view, "lq", 0, "runs"))
        return -1;
    w->runs = view->buf;
    w->count = view->len / 16 - 1;
    if (view->itemsize != 8 || view->len % 16 || w->count < 0 || start < 0 || n < 0) {
        PyBuffer_Release(view);
        PyErr_SetString(PyExc_ValueError, "runs are pairs of int64, one more than there are runs");
        return -1;
    }
    w->cells = cells;
    w->run = w->count ? find_run(w->runs, w->count, start) : 0;
    w->done = start;
    w->stop = (int64_t)start + n;
    return 0;
}

static PyObject *no_fit(void) {
    PyErr_SetString(PyExc_ValueError, "runs do not fit the block");
    return NULL;
}

// ---- functions

static PyObject *judge(PyObject *self, PyObject *args) {
    (void)self;
    PyObject *values, *states, *culprits;
    Limits l;
    if (!PyArg_ParseTuple(args, "OOObddddp", &values, &states, &culprits, &l.number, &l.low, &l.high, &l.from, &l.to,
                          &l.trained))
        return NULL;
    Field field;
    Py_buffer status, culprit;
    if (open_field(values, &field))
        return NULL;
    if (open_plain(states, &status, "B", 1, "status")) {
        PyBuffer_Release(&field.view);
        return NULL;
    }
    PyObject *result = NULL;
    if (open_plain(culprits, &culprit, "B", 1, "culprit"))
        goto done;
    if (status.len == field.cells && culprit.len == field.cells) {
        Py_ssize_t open;
        Py_BEGIN_ALLOW_THREADS
#ifdef SMGRID_X86
            if (smgrid_form != SMGRID_PLAIN) open = judge_avx2(&field, status.buf, culprit.buf, &l);
            else
#endif
                open = judge_plain(&field, status.buf, culprit.buf, &l);
        Py_END_ALLOW_THREADS
        result = PyLong_FromSsize_t(open);
    } else
        PyErr_SetString(PyExc_ValueError, "field, status and culprit are not of one size");
    PyBuffer_Release(&culprit);
done:
    PyBuffer_Release(&status);
    PyBuffer_Release(&field.view);
    return result;
}

static PyObject *runs(PyObject *self, PyObject *args) {
    (void)self;
    PyObject *states, *pairs;
    if (!PyArg_ParseTuple(args, "OO", &states, &pairs))
        return NULL;
    Py_buffer status, out;
    if (open_plain(states, &status, "B", 0, "status"))
        return NULL;
    int wanted = pairs != Py_None;
    if (wanted && open_plain(pairs, &out, "lq", 1, "runs")) {
        PyBuffer_Release(&status);
        return NULL;
    }
    Py_ssize_t room = wanted ? out.len / 16 : 0, count = 0;
    int fits = 1;
    Py_BEGIN_ALLOW_THREADS
    const uint8_t *s = status.buf;
    Py_ssize_t n = status.len;
    if (!wanted) {
        count = n && s[0] < MISSING;
        for (Py_ssize_t j = 1; j < n; j++)
            count += (s[j] < MISSING) & (s[j - 1] >= MISSING);
    } else {
        int64_t *pair = out.buf, known = 0;
        for (Py_ssize_t j = 0; j < n;) {
            uint64_t eight;
            // most cells lie among others of their kind
            while (n - j >= 8 && (memcpy(&eight, s + j, 8), eight == UINT64_C(0x0202020202020202)))
                j += 8;
            while (j < n && s[j] >= MISSING)
                j++;
            if (j == n)
                break;
            Py_ssize_t first = j;
            while (n - j >= 8 && (memcpy(&eight, s + j, 8), eight == 0))
                j += 8;
            while (j < n && s[j] < MISSING) {
                j++;
                while (n - j >= 8 && (memcpy(&eight, s + j, 8), eight == 0))
                    j += 8;
            }
            if (count + 1 >= room) {
                fits = 0;
                break;
            }
            pair[2 * count] = first;
            pair[2 * count + 1] = known;
            known += j - first;
            count++;
        }
        if (fits && count < room) {
            pair[2 * count] = n;
            pair[2 * count + 1] = known;
        } else
            fits = 0;
    }
    Py_END_ALLOW_THREADS
    PyBuffer_Release(&status);
    if (wanted)
        PyBuffer_Release(&out);
    return fits ? PyLong_FromSsize_t(count) : no_fit();
}

// One row of a tile.
static int gather_row(PyObject *values, const Walk *start, Py_ssize_t cells, void *out, int wide, const Scale *s) {
    Field field;
    if (open_field(values, &field))
        return -1;
    Py_ssize_t cell = 0, n = 0, at = 0;
    int more = -1;
    if (field.cells == cells) {
        Walk w = *start;
        Py_BEGIN_ALLOW_THREADS
        while ((more = next_piece(&w, &cell, &n)) > 0) {
#ifdef SMGRID_X86
            if (smgrid_form != SMGRID_PLAIN)
                gather_avx2(&field, cell, n, out, at, wide, s);
            else
#endif
                gather_plain(&field, cell, n, out, at, wide, s);
            at += n;
        }
        Py_END_ALLOW_THREADS
    }
    PyBuffer_Release(&field.view);
    if (more)
        no_fit();
    return more;
}

static PyObject *gather(PyObject *self, PyObject *args) {
    (void)self;
    PyObject *fields, *scales, *pairs, *whole, *result = NULL;
    Py_ssize_t start, cells;
    if (!PyArg_ParseTuple(args, "O!OOnnO", &PyTuple_Type, &fields, &scales, &pairs, &cells, &start, &whole))
        return NULL;
    Py_buffer scale, tile, view;
    Walk w;
    Py_ssize_t rows = PyTuple_Size(fields);
    if (open_plain(scales, &scale, "d", 0, "scales"))
        return NULL;
    if (open_plain(whole, &tile, "fd", 1, "a tile"))
        goto scale;
    if (scale.len != rows * 16 || tile.ndim != 2 || tile.shape[0] != rows || cells < 0) {
        PyErr_SetString(PyExc_ValueError, "fields, scales (least, width) and rows of the tile are not as many");
        goto tile;
    }
    if (open_walk(pairs, &view, &w, cells, start, tile.shape[1]))
        goto tile;
    int bad = 0;
    for (Py_ssize_t k = 0; k < rows && !bad; k++) {
        const double *given = (const double *)scale.buf + 2 * k;
        Scale s = {given[0], given[1], given[1] != 0};
        bad = gather_row(PyTuple_GetItem(fields, k), &w, cells, (char *)tile.buf + k * tile.shape[1] * tile.itemsize,
                         tile.itemsize == 8, &s);
    }
    result = bad ? NULL : Py_NewRef(Py_None);
    PyBuffer_Release(&view);
tile:
    PyBuffer_Release(&tile);
scale:
    PyBuffer_Release(&scale);
    return result;
}

static PyObject *scatter(PyObject *self, PyObject *args) {
    (void)self;
    PyObject *values, *pairs, *whole;
    Py_ssize_t start;
    if (!PyArg_ParseTuple(args, "OOnO", &values, &pairs, &start, &whole))
        return NULL;
    Py_buffer in, out, view;
    Walk w;
    PyObject *result = NULL;
    if (open_plain(values, &in, "fB", 0, "values"))
        return NULL;
    if (open_plain(whole, &out, "fB", 1, "a layer"))
        goto in;
    if (in.itemsize != out.itemsize) {
        PyErr_SetString(PyExc_ValueError, "values and layer are of two types");
        goto out;
    }
    if (open_walk(pairs, &view, &w, out.len / out.itemsize, start, in.len / in.itemsize))
        goto out;
    Py_ssize_t cell = 0, n = 0, size = in.itemsize;
    const char *from = in.buf;
    int more;
    Py_BEGIN_ALLOW_THREADS
    while ((more = next_piece(&w, &cell, &n)) > 0) {
        memcpy((char *)out.buf + cell * size, from, (size_t)(n * size));
        from += n * size;
    }
    Py_END_ALLOW_THREADS
    result = more ? no_fit() : Py_NewRef(Py_None);
    PyBuffer_Release(&view);
out:
    PyBuffer_Release(&out);
in:
    PyBuffer_Release(&in);
    return result;
}

PyMethodDef smgrid_cells[] = {
    {"judge", judge, METH_VARARGS,
     "judge(field, status, culprit, number, low, high, from, to, trained) -> cells that may still be predicted"},
    {"runs", runs, METH_VARARGS, "runs(status, pairs or None) -> number of runs of known cells"},
    {"gather", gather, METH_VARARGS, "gather(fields, scales, runs, cells, start, tile): fill a tile; a width of 0 takes values as they are"},
    {"scatter", scatter, METH_VARARGS, "scatter(values, runs, start, layer): lay predictions down"},
    {NULL, NULL, 0, NULL},
};
