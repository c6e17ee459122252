// The walk of shallow.c in one form of instructions; included once for each, after the form's own vectors:
//   floats, WIDTH of them: load, store, add, pick (x < threshold ? left : right), same
//   bytes, LANES of them: load_bytes, pick_rank (q <= rank ? left : right), same_byte
//   rank_row: ranks of a row of cells; add_leaves: leaf values by number, added to the sums

// ---- one tree, as it is: the value of the subtree below a split, for a vector of cells

#define SUBTREE(name, below)                                                                                           \
    TARGET INLINE MATCH(floats) MATCH(name)(const float *x, const uint32_t *restrict row, const float *threshold,               \
                                            const float *leaf, int split, int first) {                                 \
        MATCH(floats) left = MATCH(below)(x, row, threshold, leaf, 2 * split + 1, 2 * first);                          \
        MATCH(floats) right = MATCH(below)(x, row, threshold, leaf, 2 * split + 2, 2 * first + 1);                     \
        return MATCH(pick)(MATCH(load)(x + row[split]), threshold[split], left, right);                \
    }

TARGET INLINE MATCH(floats) MATCH(tree_0)(const float *x, const uint32_t *restrict row, const float *threshold, const float *leaf,
                                          int split, int first) {
    (void)x, (void)row, (void)threshold, (void)split;
    return MATCH(same)(leaf[first]);
}
SUBTREE(tree_1, tree_0)
SUBTREE(tree_2, tree_1)
SUBTREE(tree_3, tree_2)
SUBTREE(tree_4, tree_3)
SUBTREE(tree_5, tree_4)
SUBTREE(tree_6, tree_5)
#undef SUBTREE

// ---- one tree, by rank: the number of the leaf, for two vectors of cells, so that ranks are spread out half as often

typedef struct {
    MATCH(bytes) a, b;
} MATCH(pair);

#define SUBTREE(name, below)                                                                                           \
    TARGET INLINE MATCH(pair) MATCH(name)(const uint8_t *q, const uint32_t *row, const uint8_t *rank, int split,       \
                                          int first) {                                                                 \
        const MATCH(pair) left = MATCH(below)(q, row, rank, 2 * split + 1, 2 * first);                                 \
        const MATCH(pair) right = MATCH(below)(q, row, rank, 2 * split + 2, 2 * first + 1);                            \
        const MATCH(bytes) last = MATCH(same_byte)(rank[split]);                                                       \
        q += row[split];                                                                                               \
        return (MATCH(pair)){MATCH(pick_rank)(MATCH(load_bytes)(q), last, left.a, right.a),                            \
                             MATCH(pick_rank)(MATCH(load_bytes)(q + MATCH(LANES)), last, left.b, right.b)};            \
    }

TARGET INLINE MATCH(pair) MATCH(leaf_0)(const uint8_t *q, const uint32_t *row, const uint8_t *rank, int split, int first) {
    (void)q, (void)row, (void)rank, (void)split;
    return (MATCH(pair)){MATCH(same_byte)((uint8_t)first), MATCH(same_byte)((uint8_t)first)};
}
SUBTREE(leaf_1, leaf_0)
SUBTREE(leaf_2, leaf_1)
SUBTREE(leaf_3, leaf_2)
SUBTREE(leaf_4, leaf_3)
SUBTREE(leaf_5, leaf_4)
SUBTREE(leaf_6, leaf_5)
#undef SUBTREE

// ---- one tree over one block

// Few thresholds stay in registers: the compiler keeps them there where it is promised that sums are not thresholds, and
// remembers the promise in functions apart. Many ranks do not, and are better read again: no promise there.
#define CASE(depth)                                                                                                    \
    TARGET APART void MATCH(add_tree_##depth)(float *restrict sum, const float *restrict x, const uint32_t *restrict row, \
                                              const float *restrict threshold, const float *restrict leaf) {           \
        for (int i = 0; i < CELLS; i += MATCH(WIDTH)) {                                                                \
            const MATCH(floats) value = MATCH(tree_##depth)(x + i, row, threshold, leaf, 0, 0);                        \
            MATCH(store)(sum + i, MATCH(add)(MATCH(load)(sum + i), value));                                            \
        }                                                                                                              \
    }                                                                                                                  \
    TARGET APART void MATCH(add_ranked_##depth)(float *sum, const uint8_t *q, const uint32_t *row, const uint8_t *rank, \
                                                const float *leaf) {                                                   \
        for (int i = 0; i < CELLS; i += 2 * MATCH(LANES)) {                                                            \
            const MATCH(pair) number = MATCH(leaf_##depth)(q + i, row, rank, 0, 0);                                    \
            MATCH(add_leaves)(sum + i, number.a, leaf, depth);                                                         \
            MATCH(add_leaves)(sum + i + MATCH(LANES), number.b, leaf, depth);                                          \
        }                                                                                                              \
    }
CASE(1)
CASE(2)
CASE(3)
CASE(4)
CASE(5)
CASE(6)
#undef CASE

#define CASE(depth)                                                                                                    \
    case depth:                                                                                                        \
        for (int64_t tree = 0; tree < s->trees; tree++, row += splits, leaf += splits + 1)                             \
            if (s->ranked)                                                                                             \
                MATCH(add_ranked_##depth)(b->sum, b->q, row, s->rank + tree * splits, leaf);                           \
            else                                                                                                       \
                MATCH(add_tree_##depth)(b->sum, b->x, row, s->threshold + tree * splits, leaf);                        \
        break;

TARGET static void MATCH(add_trees)(const shallow *s, const block *b, const uint32_t *row) {
    const int splits = (1 << s->depth) - 1;
    const float *leaf = s->leaf;
    switch (s->depth) {
        CASE(1)
        CASE(2)
        CASE(3)
        CASE(4)
        CASE(5)
        CASE(6)
    }
}
#undef CASE

// ---- blocks: `apart` leaves two rows an input, for what is missing

// Rows of a block; says whether a value is missing.
TARGET static int MATCH(lay_out)(const shallow *s, const block *b, const float *tile, int64_t n, int cells, int apart) {
    int missing = 0;
    for (int64_t f = 0; f < s->used; f++) {
        const float *from = tile + s->input[f] * n;
        float *x = s->ranked ? b->x : b->x + (apart ? 2 * f : f) * STRIDE;
        memcpy(x, from, (size_t)cells * sizeof *x);
        int gaps = 0;
        for (int i = 0; i < cells; i++)
            gaps |= x[i] != x[i];
        missing |= gaps;
        if (gaps && !apart)
            return 1; // to be laid out again
        uint8_t *q = b->q + (apart ? 2 * f : f) * STRIDE;
        if (s->ranked)
            MATCH(rank_row)(s, f, x, q); // what is missing has the rank 0 as yet
        if (!apart)
            continue;
        if (s->ranked) {
            memcpy(q + STRIDE, q, CELLS);
            for (int i = 0; gaps && i < cells; i++)
                q[i] = x[i] != x[i] ? 255 : q[i];
        } else { // NaN is never less, and goes right
            for (int i = 0; i < cells; i++)
                x[STRIDE + i] = x[i] != x[i] ? -INFINITY : x[i];
        }
    }
    return missing;
}

TARGET static void MATCH(run)(const shallow *s, const block *b, const float *tile, int64_t n, float *out) {
    for (int64_t from = 0; from < n; from += CELLS) {
        const int cells = n - from < CELLS ? (int)(n - from) : CELLS;
        const int apart = MATCH(lay_out)(s, b, tile + from, n, cells, 0);
        if (apart)
            MATCH(lay_out)(s, b, tile + from, n, cells, 1);
        for (int i = 0; i < CELLS; i++)
            b->sum[i] = s->base;
        MATCH(add_trees)(s, b, apart ? s->gappy : s->whole);
        memcpy(out + from, b->sum, (size_t)cells * sizeof *out);
    }
}
