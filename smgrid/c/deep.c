// Trees of any depth and shape, walked node by node.
//
// A walk waits for memory and for its own last step, so eight cells are walked at once, without a branch but "has any of
// them moved". Nodes are 8 bytes, children stand side by side (the next node is `left + (x > key)`), and a leaf leads to
// itself. Trees are taken in groups that stay in the second cache while all cells of the tile pass by.
//
// Values are compared as integers: the bits of a float32, turned so that their order is that of the numbers. A missing
// value has two keys, one for the splits that send it left and one for those that send it right: a block of cells is laid
// out with one key an input where nothing is missing, and with both where something is; the node names the second kind of
// place, and half of it is the first.
#include "trees.h"

#include <math.h>

enum {
    FLIGHT = 8,           // cells walked at once
    STEPS = 4,            // of each, before it is asked whether all have arrived
    BLOCK = 4096,         // keys of a block: 16 kB, half of a small first cache
    CELLS = 128,          // of a block, at most
    GROUP = 700 * 1024,   // bytes of nodes that stay in the second cache
    MOST_INPUTS = 127,    // of the narrow node: 8 bits hold twice the input, and the place of leaves
    MOST_NODES = 1 << 24, // of a tree of narrow nodes
};

typedef struct {
    int32_t key;    // a split: the largest key that goes left; a leaf: its number, or the bits of its float32
    uint32_t where; // place of the cell's key (upper 8 bits), left child (lower 24)
} narrow;

typedef struct { // for many inputs, or huge trees
    int32_t key;
    uint32_t place, left;
} wide;

typedef struct {
    int64_t trees, inputs, used;
    int is_wide, routes, floats; // floats: sums in float32, leaves within the nodes
    int64_t *input;              // used: the tile's row of each input in use
    int64_t *root;               // trees + 1: first node
    int64_t *first;              // trees: first of the leaf values
    narrow *nodes;
    wide *wide_nodes;
    double *value;
} deep;

INLINE int32_t key_of(float x) {
    int32_t bits;
    x += 0.0f; // the two zeros are equal
    memcpy(&bits, &x, 4);
    return bits ^ ((bits >> 31) & INT32_MAX);
}

// ---- packing

typedef struct { // what a model brings, all trees in a row, children counted within their tree
    const int64_t *left, *right, *feature, *start;
    const double *threshold, *value;
    const uint8_t *missing_left;
    int strict; // x < threshold goes left, as against x <= threshold
} columns;

static void forget(deep *d) {
    drop(d->input);
    drop(d->root);
    drop(d->first);
    drop(d->nodes);
    drop(d->wide_nodes);
    drop(d->value);
    drop(d);
}

static void forget_capsule(PyObject *capsule) { forget(PyCapsule_GetPointer(capsule, "smgrid.deep")); }

// Largest key that goes left: float32 x <= t holds just when x <= the largest float32 that is not above t.
static int32_t split_key(double threshold, int strict) {
    float rounded = (float)threshold;
    return key_of(rounded) - (strict || (double)rounded > threshold);
}

static void put(deep *d, int64_t node, int32_t key, uint32_t place, uint32_t left) {
    if (d->is_wide)
        d->wide_nodes[node] = (wide){key, place, left};
    else
        d->nodes[node] = (narrow){key, place << 24 | left};
}

// Pack one tree of `size` nodes; returns how many its root leads to, or -1: a node that leads out of the tree, to one that
// was met before (a circle, or two parents), or to an unknown input.
static int64_t pack_tree(deep *d, const columns *c, int64_t tree, int64_t *number, int64_t *stack) {
    const int64_t from = c->start[tree], size = c->start[tree + 1] - from, root = d->root[tree];
    const int64_t *left = c->left + from, *right = c->right + from, *feature = c->feature + from;
    int64_t count = 1, waiting = 1, leaves = 0;
    memset(number, 0xff, (size_t)size * sizeof *number);
    number[0] = stack[0] = 0;
    while (waiting) {
        const int64_t i = stack[--waiting], l = left[i], r = right[i];
        if (l == -1 && r == -1) {
            int32_t key = (int32_t)leaves;
            if (d->floats) {
                const float value = (float)c->value[from + i];
                memcpy(&key, &value, 4);
            } else {
                d->value[d->first[tree] + leaves] = c->value[from + i];
            }
            put(d, root + number[i], key, (uint32_t)(2 * d->used), (uint32_t)number[i]);
            leaves++;
            continue;
        }
        const double threshold = c->threshold[from + i];
        if (l < 0 || r < 0 || l >= size || r >= size || l == r || number[l] != -1 || number[r] != -1 ||
            feature[i] < 0 || feature[i] >= d->used || threshold != threshold)
            return -1;
        put(d, root + number[i], split_key(threshold, c->strict),
            (uint32_t)(2 * feature[i] + (c->missing_left[from + i] != 0)), (uint32_t)count);
        number[l] = count++;
        number[r] = count++;
        stack[waiting++] = r; // the left child comes next: both lie near
        stack[waiting++] = l;
    }
    if (tree + 1 < d->trees)
        d->first[tree + 1] = d->first[tree] + leaves;
    return count;
}

static int pack_all(deep *d, const columns *c, int64_t largest) {
    int64_t *number = room((size_t)largest, sizeof *number), *stack = room((size_t)largest + 1, sizeof *stack);
    int done = number && stack;
    for (int64_t tree = 0; done && tree < d->trees; tree++) {
        const int64_t count = pack_tree(d, c, tree, number, stack);
        if (count < 0) {
            PyErr_Format(PyExc_ValueError, "tree %lld points outside itself, to an unknown input or in a circle",
                         (long long)tree);
            done = 0;
        }
        d->root[tree + 1] = d->root[tree] + count;
    }
    drop(number);
    drop(stack);
    return done;
}

// Sizes, before anything is read through them; the largest tree, or -1.
static int64_t check_sizes(const arrays *a, const columns *c, const int64_t *input, int64_t inputs) {
    const int64_t nodes = length(a, 0, 0), trees = length(a, 6, 0) - 1;
    int right = trees >= 1 && c->start[0] == 0 && c->start[trees] == nodes && inputs >= 1;
    for (int which = 1; which < 6; which++)
        right = right && length(a, which, 0) == nodes;
    int64_t largest = 0;
    for (int64_t tree = 0; right && tree < trees; tree++) {
        const int64_t start = c->start[tree], end = c->start[tree + 1];
        right = start >= 0 && start < end && end <= nodes && end - start <= INT32_MAX;
        largest = right && end - start > largest ? end - start : largest;
    }
    right = right && length(a, 7, 0) <= INT32_MAX / 4;
    for (int64_t i = 0; right && i < length(a, 7, 0); i++)
        right = input[i] >= 0 && input[i] < inputs;
    if (!right)
        PyErr_SetString(PyExc_ValueError, "the columns of the trees differ in length, or trees or inputs do not add up");
    return right ? largest : -1;
}

PyObject *deep_pack(PyObject *self, PyObject *args) {
    (void)self;
    static const char *const names[] = {"left", "right", "feature", "threshold", "missing_left", "value", "start", "input"};
    static const char kinds[] = "qqqdBdqq";
    PyObject *object[8], *capsule = NULL;
    long long inputs;
    int strict, routes, floats;
    if (!PyArg_ParseTuple(args, "OOOOOOOOLppp", object, object + 1, object + 2, object + 3, object + 4, object + 5,
                          object + 6, object + 7, &inputs, &strict, &routes, &floats))
        return NULL;
    arrays a = {.count = 0};
    void *data[8];
    deep *d = NULL;
    for (int i = 0; i < 8; i++)
        if (!(data[i] = take(&a, object[i], names[i], kinds[i], 1, 0)))
            goto end;
    const columns c = {data[0], data[1], data[2], data[6], data[3], data[5], data[4], strict};
    const int64_t largest = length(&a, 6, 0) ? check_sizes(&a, &c, data[7], inputs) : -1, nodes = length(&a, 0, 0);
    if (largest < 0) {
        if (!PyErr_Occurred())
            PyErr_SetString(PyExc_ValueError, "there is no tree");
        goto end;
    }
    if (!(d = room(1, sizeof *d)))
        goto end;
    *d = (deep){.trees = length(&a, 6, 0) - 1, .inputs = inputs, .used = length(&a, 7, 0), .routes = routes, .floats = floats};
    d->is_wide = d->used > MOST_INPUTS || largest >= MOST_NODES;
    d->input = room((size_t)d->used, sizeof *d->input);
    d->root = room((size_t)d->trees + 1, sizeof *d->root);
    d->first = room((size_t)d->trees, sizeof *d->first);
    d->value = room(floats ? 0 : (size_t)nodes, sizeof *d->value);
    if (d->is_wide)
        d->wide_nodes = room((size_t)nodes, sizeof *d->wide_nodes);
    else
        d->nodes = room((size_t)nodes, sizeof *d->nodes);
    if (!d->input || !d->root || !d->first || !d->value || !(d->nodes || d->wide_nodes))
        goto end;
    memcpy(d->input, data[7], (size_t)d->used * sizeof *d->input);
    if (pack_all(d, &c, largest))
        capsule = PyCapsule_New(d, "smgrid.deep", forget_capsule);
end:
    if (d && !capsule)
        forget(d);
    release(&a);
    return capsule;
}

// ---- walking

INLINE uint32_t step(const narrow *restrict tree, uint32_t at, const int32_t *restrict x, int half) {
    uint64_t node; // one load
    memcpy(&node, tree + at, 8);
    const uint32_t where = (uint32_t)(node >> 32);
    return (where & 0xffffff) + (x[where >> (24 + half)] > (int32_t)node);
}

// The walks of one block through one tree: where each cell ends. `half` is 1 where each input has one key, 0 where two.
INLINE void walk(const narrow *restrict tree, const int32_t *restrict x, int cells, int stride, int half,
                 int32_t *restrict leaf) {
    for (int i = 0; i < cells; i += FLIGHT, x += FLIGHT * stride) {
        uint32_t at[FLIGHT] = {0}, moved;
        do {
            moved = 0;
            for (int blind = 1; blind < STEPS; blind++)
#pragma GCC unroll 16
                for (int j = 0; j < FLIGHT; j++)
                    at[j] = step(tree, at[j], x + j * stride, half);
#pragma GCC unroll 16
            for (int j = 0; j < FLIGHT; j++) {
                const uint32_t next = step(tree, at[j], x + j * stride, half);
                moved |= next ^ at[j];
                at[j] = next;
            }
        } while (moved);
        for (int j = 0; j < FLIGHT; j++)
            leaf[i + j] = tree[at[j]].key;
    }
}

static void walk_wide(const wide *restrict tree, const int32_t *restrict x, int cells, int64_t stride,
                      int32_t *restrict leaf) {
    for (int i = 0; i < cells; i += FLIGHT, x += FLIGHT * stride) {
        uint32_t at[FLIGHT] = {0}, moved;
        do {
            moved = 0;
            for (int j = 0; j < FLIGHT; j++) {
                const wide *node = tree + at[j];
                const uint32_t next = node->left + (x[j * stride + (int64_t)node->place] > node->key);
                moved |= next ^ at[j];
                at[j] = next;
            }
        } while (moved);
        for (int j = 0; j < FLIGHT; j++)
            leaf[i + j] = tree[at[j]].key;
    }
}

// How a block of cells lies in memory: [cell][place of a key].
typedef struct {
    int64_t stride;
    int cells, twice; // twice: two keys an input
    int32_t *x;
} block;

// Strides of the narrow walks are powers of two known to the compiler, so that places are plain offsets.
static block shape_of(const deep *d, int twice) {
    const int64_t places = (d->used + 1) * (twice ? 2 : 1);
    block b = {.stride = twice ? 64 : 32, .twice = twice};
    if (d->is_wide)
        b.stride = places;
    else if (places > b.stride)
        b.stride = twice ? 256 : 128;
    b.cells = b.stride > BLOCK / FLIGHT ? FLIGHT : b.stride < BLOCK / CELLS ? CELLS : (int)(BLOCK / b.stride) / FLIGHT * FLIGHT;
    return b;
}

// Lay `cells` cells of the tile out as keys; says whether any of them misses a value.
static int fill(const deep *d, const block *b, const float *tile, int64_t n, int cells) {
    int missing = 0;
    for (int64_t s = 0; s < d->used; s++) {
        const float *row = tile + d->input[s] * n;
        int32_t *x = b->x + (b->twice ? 2 * s : s), right[CELLS], left[CELLS];
        int gaps = 0;
        for (int i = 0; i < cells; i++) {
            right[i] = key_of(row[i]);
            gaps |= row[i] != row[i];
        }
        missing |= gaps;
        if (b->twice) {
            for (int i = 0; i < cells; i++) {
                const int gap = row[i] != row[i];
                left[i] = gap ? INT32_MIN : right[i];
                right[i] = gap ? INT32_MAX : right[i];
            }
            for (int i = 0; i < cells; i++)
                x[i * b->stride + 1] = left[i];
        }
        for (int i = 0; i < cells; i++)
            x[i * b->stride] = right[i];
    }
    return missing;
}

static void walk_block(const deep *d, const block *b, int64_t tree, int32_t *leaf) {
    const int64_t root = d->root[tree];
    if (d->is_wide)
        walk_wide(d->wide_nodes + root, b->x, b->cells, b->stride, leaf);
    else if (b->stride == 32)
        walk(d->nodes + root, b->x, CELLS, 32, 1, leaf);
    else if (b->stride == 64)
        walk(d->nodes + root, b->x, 64, 64, 0, leaf);
    else if (b->stride == 128)
        walk(d->nodes + root, b->x, 32, 128, 1, leaf);
    else
        walk(d->nodes + root, b->x, 16, 256, 0, leaf);
}

// What is summed up for each cell of a tile; trees are added in their own order, as the libraries do.
typedef struct {
    double *total, *mean, *squares; // the last two for the spread
    float *sum;                     // of trees with float32 leaves
} sums;

static void add(const deep *d, int64_t tree, const int32_t *leaf, int cells, const sums *s, int64_t from) {
    if (d->floats) {
        for (int i = 0; i < cells; i++) {
            float value;
            memcpy(&value, leaf + i, 4);
            s->sum[from + i] += value;
        }
        return;
    }
    const double *value = d->value + d->first[tree];
    double *total = s->total + from;
    if (!s->mean) {
        for (int i = 0; i < cells; i++)
            total[i] += value[leaf[i]];
        return;
    }
    double *mean = s->mean + from, *squares = s->squares + from;
    const double count = (double)(tree + 1);
    for (int i = 0; i < cells; i++) { // Welford's sums
        const double v = value[leaf[i]], step = v - mean[i];
        total[i] += v;
        mean[i] += step / count;
        squares[i] += step * (v - mean[i]);
    }
}

// All trees over all cells; 0 where a value is missing that these trees do not route.
static int run(const deep *d, const float *tile, int64_t n, const sums *s, int32_t *keys) {
    block whole = shape_of(d, d->is_wide), twice = shape_of(d, 1);
    const int step = twice.cells < whole.cells ? twice.cells : whole.cells; // a block of either kind holds so many
    int32_t leaf[CELLS];
    const size_t bytes = d->is_wide ? sizeof(wide) : sizeof(narrow);
    for (int64_t first = 0, last; first < d->trees; first = last) {
        for (last = first + 1; last < d->trees; last++)
            if ((size_t)(d->root[last + 1] - d->root[first]) * bytes > GROUP)
                break;
        for (int64_t from = 0; from < n; from += whole.cells) {
            const int64_t end = from + whole.cells < n ? from + whole.cells : n;
            whole.x = twice.x = keys;
            int missing = d->is_wide;
            if (!missing) {
                for (int64_t i = 0; i < whole.cells; i++)
                    keys[i * whole.stride + d->used] = INT32_MIN;
                missing = fill(d, &whole, tile + from, n, (int)(end - from));
            }
            if (!missing) {
                for (int64_t tree = first; tree < last; tree++) {
                    walk_block(d, &whole, tree, leaf);
                    add(d, tree, leaf, (int)(end - from), s, from);
                }
                continue;
            }
            if (!d->routes && !d->is_wide)
                return 0;
            for (int64_t part = from; part < end; part += step) {
                const int cells = end - part < step ? (int)(end - part) : step;
                for (int64_t i = 0; i < twice.cells; i++)
                    keys[i * twice.stride + 2 * d->used] = INT32_MIN;
                if (fill(d, &twice, tile + part, n, cells) && !d->routes)
                    return 0;
                for (int64_t tree = first; tree < last; tree++) {
                    walk_block(d, &twice, tree, leaf);
                    add(d, tree, leaf, cells, s, part);
                }
            }
        }
    }
    return 1;
}

// The tile and the walk, without the interpreter's lock.
static int run_freely(const deep *d, const float *tile, int64_t n, const sums *s) {
    const block whole = shape_of(d, d->is_wide), twice = shape_of(d, 1);
    const int64_t one = whole.stride * whole.cells, two = twice.stride * twice.cells;
    int32_t *keys = room((size_t)(one > two ? one : two), sizeof *keys);
    if (!keys)
        return 0;
    int done;
    Py_BEGIN_ALLOW_THREADS
    done = run(d, tile, n, s, keys);
    Py_END_ALLOW_THREADS
    drop(keys);
    if (!done)
        PyErr_SetString(PyExc_ValueError, "the tile misses values, and these trees do not say where missing values go");
    return done;
}

static const float *tile_of(arrays *a, PyObject *object, const deep *d) {
    const float *tile = take(a, object, "tile", 'f', 2, 0);
    if (tile && length(a, 0, 0) == d->inputs)
        return tile;
    if (tile)
        PyErr_Format(PyExc_ValueError, "the tile has %zd inputs, the trees have %lld", length(a, 0, 0), (long long)d->inputs);
    return NULL;
}

static float *result_of(arrays *a, PyObject *object, int64_t n) {
    float *out = take(a, object, "the result", 'f', 1, 1);
    if (out && length(a, a->count - 1, 0) == n)
        return out;
    if (out)
        PyErr_Format(PyExc_ValueError, "the result holds %zd cells, the tile %lld", length(a, a->count - 1, 0), (long long)n);
    return NULL;
}

PyObject *deep_predict(PyObject *self, PyObject *args) {
    (void)self;
    PyObject *capsule, *tile_object, *out_object;
    double base;
    if (!PyArg_ParseTuple(args, "OOOd", &capsule, &tile_object, &out_object, &base))
        return NULL;
    const deep *d = PyCapsule_GetPointer(capsule, "smgrid.deep");
    if (!d)
        return NULL;
    arrays a = {.count = 0};
    sums s = {NULL, NULL, NULL, NULL};
    int done = 0;
    const float *tile = tile_of(&a, tile_object, d);
    const int64_t n = tile ? length(&a, 0, 1) : 0;
    float *out = tile ? result_of(&a, out_object, n) : NULL;
    if (!out)
        goto end;
    if (d->floats) {
        s.sum = out;
        for (int64_t i = 0; i < n; i++)
            out[i] = (float)base;
        done = run_freely(d, tile, n, &s);
        goto end;
    }
    if (!(s.total = room((size_t)n, sizeof(double))))
        goto end;
    for (int64_t i = 0; i < n; i++)
        s.total[i] = base;
    done = run_freely(d, tile, n, &s);
    for (int64_t i = 0; done && i < n; i++)
        out[i] = (float)(s.total[i] / (double)d->trees);
end:
    drop(s.total);
    release(&a);
    if (!done)
        return NULL;
    Py_RETURN_NONE;
}

PyObject *deep_spread(PyObject *self, PyObject *args) {
    (void)self;
    PyObject *capsule, *tile_object, *mean_object, *spread_object;
    if (!PyArg_ParseTuple(args, "OOOO", &capsule, &tile_object, &mean_object, &spread_object))
        return NULL;
    const deep *d = PyCapsule_GetPointer(capsule, "smgrid.deep");
    if (!d)
        return NULL;
    if (d->floats)
        return PyErr_Format(PyExc_ValueError, "boosted trees have no spread: each corrects those before it");
    arrays a = {.count = 0};
    sums s = {NULL, NULL, NULL, NULL};
    int done = 0;
    const float *tile = tile_of(&a, tile_object, d);
    const int64_t n = tile ? length(&a, 0, 1) : 0;
    float *mean = tile ? result_of(&a, mean_object, n) : NULL, *spread = mean ? result_of(&a, spread_object, n) : NULL;
    if (!spread)
        goto end;
    s = (sums){room((size_t)n, sizeof(double)), room((size_t)n, sizeof(double)), room((size_t)n, sizeof(double)), NULL};
    if (!s.total || !s.mean || !s.squares)
        goto end;
    done = run_freely(d, tile, n, &s);
    for (int64_t i = 0; done && i < n; i++) {
        mean[i] = (float)(s.total[i] / (double)d->trees);
        spread[i] = (float)sqrt(s.squares[i] / (double)d->trees);
    }
end:
    drop(s.total);
    drop(s.mean);
    drop(s.squares);
    release(&a);
    if (!done)
        return NULL;
    Py_RETURN_NONE;
}
