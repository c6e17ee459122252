// Boosted trees of at most six levels, each filled up to the same depth.
//
// No cell walks: every split of a tree is decided for a whole vector of cells, and the winners are carried up from the
// leaves to the root, all in registers. Two ways to compare:
// - as they are, float32 against thresholds, for trees of up to three levels;
// - by rank: a model compares each input with at most 254 thresholds, so that a value may be replaced, once and without
//   loss, by the number of thresholds at or below it. A vector then holds four times as many cells. Rank 255, or 0, stands
//   for a missing value that goes right, or left.
// The walk itself is in shallow_walk.h, compiled once for each form of instructions.
#include "trees.h"

#include <math.h>

enum {
    CELLS = 512,    // of a block
    STRIDE = CELLS + 16, // of its rows: no power of two, lest rows and sums fall upon the same places of the cache
    TABLE = 1024,   // steps of the table in which the search for a rank begins
    MOST_CUTS = 254,
    MOST_DEPTH = 6,
};

typedef struct {
    int64_t trees, inputs, used;
    int depth, ranked;
    float base;
    int64_t *input;     // used: the tile's row of each input in use
    uint32_t *whole;    // trees x splits: start of the block's row to look at, where no value is missing ...
    uint32_t *gappy;    // ... and where some are: rows 2 f and 2 f + 1 send what is missing right and left
    float *threshold;   // trees x splits: less goes left
    uint8_t *rank;      // trees x splits: up to it goes left
    float *leaf;        // trees x leaves
    float *cuts;        // used x 256: thresholds of an input, rising; NaN behind the last
    uint8_t *start;     // used x (TABLE + 4): where the search begins
    float *low, *scale; // used: from value to place in the table
} shallow;

// ---- walking, in each form

typedef struct { // a block of cells and what is summed up there
    float *x;    // rows of CELLS floats ...
    uint8_t *q;  // ... or ranks
    float *sum;
    int gaps;    // of the row just laid out
} block;

#define MATCH(name) PASTE(name, FORM)
#define PASTE(name, form) PASTE_(name, form)
#define PASTE_(name, form) name##_##form

INLINE int place_of(const shallow *s, int64_t f, float x) {
    float place = (x - s->low[f]) * s->scale[f];
    place = place > 0 ? place : 0;
    return (int)(place < TABLE - 1 ? place : TABLE - 1);
}

#if defined(__GNUC__)
#define FORM plain
#define TARGET
#include "shallow_plain.h"
#include "shallow_walk.h"
#undef FORM
#undef TARGET
#else
#error "the forms of these kernels need vectors as GCC and Clang have them; without them the libraries predict"
#endif

#ifdef SMGRID_X86
#include <immintrin.h>
#define FORM avx2
#define TARGET __attribute__((target("avx2")))
#include "shallow_avx2.h"
#include "shallow_walk.h"
#undef FORM
#undef TARGET
#define FORM avx512
#define TARGET __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl")))
#include "shallow_avx512.h"
#include "shallow_walk.h"
#undef FORM
#undef TARGET
#endif

static void run(const shallow *s, block *b, const float *tile, int64_t n, float *out) {
#ifdef SMGRID_X86
    if (smgrid_form == SMGRID_AVX512)
        return run_avx512(s, b, tile, n, out);
    if (smgrid_form == SMGRID_AVX2)
        return run_avx2(s, b, tile, n, out);
#endif
    run_plain(s, b, tile, n, out);
}

// ---- packing

static void forget(shallow *s) {
    drop(s->input);
    drop(s->whole);
    drop(s->gappy);
    drop(s->threshold);
    drop(s->rank);
    drop(s->leaf);
    drop(s->cuts);
    drop(s->start);
    drop(s->low);
    drop(s->scale);
    drop(s);
}

static void forget_capsule(PyObject *capsule) { forget(PyCapsule_GetPointer(capsule, "smgrid.shallow")); }

// Where the search for a rank begins: at the first threshold that lies at or behind the value's place in a table of even
// steps. Places rise with values, whatever is lost in rounding, so that no threshold above a value is ever passed.
static void table_of(shallow *s, int64_t f, int64_t count) {
    const float *cuts = s->cuts + f * 256;
    uint8_t *start = s->start + f * (TABLE + 4);
    const float scale = count ? (TABLE - 2) / (cuts[count - 1] - cuts[0]) : 0;
    if (scale > 0 && scale <= 3e38f) {
        s->low[f] = cuts[0];
        s->scale[f] = scale;
    }
    int64_t next = 0;
    for (int place = 0; place < TABLE; place++) {
        while (next < count && place_of(s, f, cuts[next]) < place)
            next++;
        start[place] = (uint8_t)next;
    }
}

typedef struct { // what a model brings
    const int64_t *feature, *input, *count;
    const uint8_t *missing_left, *rank;
    const float *threshold, *leaf, *cuts;
} columns;

static int fill(shallow *s, const columns *c, int64_t splits) {
    for (int64_t i = 0; i < splits; i++) {
        if (c->feature[i] < 0 || c->feature[i] >= s->used)
            return 0;
        s->whole[i] = (uint32_t)c->feature[i] * STRIDE;
        s->gappy[i] = (uint32_t)(2 * c->feature[i] + (c->missing_left[i] != 0)) * STRIDE;
    }
    for (int64_t f = 0; f < s->used; f++) {
        if (c->input[f] < 0 || c->input[f] >= s->inputs || c->count[f] < 0 || (s->ranked && c->count[f] > MOST_CUTS))
            return 0;
        s->input[f] = c->input[f];
        if (!s->ranked)
            continue;
        for (int64_t k = 0; k < 256; k++)
            s->cuts[f * 256 + k] = k < c->count[f] ? c->cuts[f * 256 + k] : NAN;
        table_of(s, f, c->count[f]);
    }
    return 1;
}

PyObject *shallow_pack(PyObject *self, PyObject *args) {
    (void)self;
    static const char *const names[] = {"feature", "threshold", "missing_left", "rank", "leaf", "input", "count", "cuts"};
    static const char kinds[] = "qfBBfqqf";
    static const int dimensions[] = {2, 2, 2, 2, 2, 1, 1, 2};
    PyObject *object[8], *capsule = NULL;
    long long inputs;
    int ranked;
    double base;
    if (!PyArg_ParseTuple(args, "OOOOOOOOLdp", object, object + 1, object + 2, object + 3, object + 4, object + 5,
                          object + 6, object + 7, &inputs, &base, &ranked))
        return NULL;
    arrays a = {.count = 0};
    void *data[8];
    shallow *s = NULL;
    for (int i = 0; i < 8; i++)
        if (!(data[i] = take(&a, object[i], names[i], kinds[i], dimensions[i], 0)))
            goto end;
    const int64_t trees = length(&a, 0, 0), splits = length(&a, 0, 1), used = length(&a, 5, 0);
    int depth = 1;
    while (depth < MOST_DEPTH && ((int64_t)1 << depth) - 1 < splits)
        depth++;
    int right = splits == ((int64_t)1 << depth) - 1 && length(&a, 4, 0) == trees && length(&a, 4, 1) == splits + 1;
    for (int which = 1; which < 4; which++)
        right = right && length(&a, which, 0) == trees && length(&a, which, 1) == splits;
    right = right && used >= 1 && used <= 32767 && inputs >= 1;
    right = right && length(&a, 6, 0) == used && length(&a, 7, 0) == used && length(&a, 7, 1) == 256;
    if (right) {
        if (!(s = room(1, sizeof *s)))
            goto end;
        *s = (shallow){.trees = trees, .inputs = inputs, .used = used, .depth = depth, .ranked = ranked, .base = (float)base};
        const size_t all = (size_t)(trees * splits), rows = ranked ? (size_t)used : 0;
        s->input = room((size_t)used, sizeof *s->input);
        s->whole = room(all, sizeof *s->whole);
        s->gappy = room(all, sizeof *s->gappy);
        s->threshold = room(all, sizeof *s->threshold);
        s->rank = room(all, sizeof *s->rank);
        s->leaf = room((size_t)(trees * (splits + 1)), sizeof *s->leaf);
        s->cuts = room(rows * 256, sizeof *s->cuts);
        s->start = room(rows * (TABLE + 4), sizeof *s->start);
        s->low = room(rows, sizeof *s->low);
        s->scale = room(rows, sizeof *s->scale);
        if (!s->input || !s->whole || !s->gappy || !s->threshold || !s->rank || !s->leaf || !s->cuts || !s->start ||
            !s->low || !s->scale)
            goto end;
        memcpy(s->threshold, data[1], all * sizeof *s->threshold);
        memcpy(s->rank, data[3], all * sizeof *s->rank);
        memcpy(s->leaf, data[4], (size_t)(trees * (splits + 1)) * sizeof *s->leaf);
        const columns c = {data[0], data[5], data[6], data[2], data[3], data[1], data[4], data[7]};
        right = fill(s, &c, trees * splits);
    }
    if (right)
        capsule = PyCapsule_New(s, "smgrid.shallow", forget_capsule);
    else
        PyErr_SetString(PyExc_ValueError, "the trees differ in shape, look at unknown inputs or at too many thresholds");
end:
    if (s && !capsule)
        forget(s);
    release(&a);
    return capsule;
}

PyObject *shallow_predict(PyObject *self, PyObject *args) {
    (void)self;
    PyObject *capsule, *tile_object, *out_object;
    if (!PyArg_ParseTuple(args, "OOO", &capsule, &tile_object, &out_object))
        return NULL;
    const shallow *s = PyCapsule_GetPointer(capsule, "smgrid.shallow");
    if (!s)
        return NULL;
    arrays a = {.count = 0};
    block b = {NULL, NULL, NULL, 0};
    int done = 0;
    const float *tile = take(&a, tile_object, "tile", 'f', 2, 0);
    float *out = tile ? take(&a, out_object, "the result", 'f', 1, 1) : NULL;
    if (!out)
        goto end;
    const int64_t n = length(&a, 0, 1);
    if (length(&a, 0, 0) != s->inputs || length(&a, 1, 0) != n) {
        PyErr_Format(PyExc_ValueError, "the tile is %zd x %zd, the result %zd; the trees have %lld inputs",
                     length(&a, 0, 0), length(&a, 0, 1), length(&a, 1, 0), (long long)s->inputs);
        goto end;
    }
    b.x = room((size_t)(s->ranked ? 1 : 2 * s->used) * STRIDE, sizeof(float));
    b.q = room(s->ranked ? (size_t)(2 * s->used) * STRIDE : 1, 1);
    b.sum = room(CELLS, sizeof(float));
    if (!b.x || !b.q || !b.sum)
        goto end;
    Py_BEGIN_ALLOW_THREADS
    run(s, &b, tile, n, out);
    Py_END_ALLOW_THREADS
    done = 1;
end:
    drop(b.x);
    drop(b.q);
    drop(b.sum);
    release(&a);
    if (!done)
        return NULL;
    Py_RETURN_NONE;
}
