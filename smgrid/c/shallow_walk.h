// The walk of shallow.c in one form of instructions; included once for each, after the form's own vectors:
//   floats, WIDTH of them: load, store, add, pick (x < threshold ? left : right), same
//   bytes, LANES of them:  load_bytes, pick_rank (q <= rank ? left : right), same_byte
//   rank_row: ranks of a row of cells; add_leaves: leaf values by number, added to the sums

// ---- one tree, as it is: the value of the subtree below a split, for a vector of cells

#define SUBTREE(name, below)                                                                                           \
    TARGET INLINE MATCH(floats) MATCH(name)(const float *x, const uint16_t *row, const float *threshold,               \
                                            const float *leaf, int split, int first) {                                 \
        MATCH(floats) left = MATCH(below)(x, row, threshold, leaf, 2 * split + 1, 2 * first);                          \
        MATCH(floats) right = MATCH(below)(x, row, threshold, leaf, 2 * split + 2, 2 * first + 1);                     \
        return MATCH(pick)(MATCH(load)(x + (size_t)row[split] * CELLS), threshold[split], left, right);                \
    }

TARGET INLINE MATCH(floats) MATCH(tree_0)(const float *x, const uint16_t *row, const float *threshold, const float *leaf,
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

// ---- one tree, by rank: the number of the leaf

#define SUBTREE(name, below)                                                                                           \
    TARGET INLINE MATCH(bytes) MATCH(name)(const uint8_t *q, const uint16_t *row, const uint8_t *rank, int split,      \
                                           int first) {                                                                \
        MATCH(bytes) left = MATCH(below)(q, row, rank, 2 * split + 1, 2 * first);                                      \
        MATCH(bytes) right = MATCH(below)(q, row, rank, 2 * split + 2, 2 * first + 1);                                 \
        return MATCH(pick_rank)(MATCH(load_bytes)(q + (size_t)row[split] * CELLS), rank[split], left, right);          \
    }

TARGET INLINE MATCH(bytes) MATCH(leaf_0)(const uint8_t *q, const uint16_t *row, const uint8_t *rank, int split, int first) {
    (void)q, (void)row, (void)rank, (void)split;
    return MATCH(same_byte)((uint8_t)first);
}
SUBTREE(leaf_1, leaf_0)
SUBTREE(leaf_2, leaf_1)
SUBTREE(leaf_3, leaf_2)
SUBTREE(leaf_4, leaf_3)
SUBTREE(leaf_5, leaf_4)
SUBTREE(leaf_6, leaf_5)
#undef SUBTREE

// ---- all trees over one block; the depth is known to the compiler in each case

#define CASE(depth)                                                                                                    \
    case depth:                                                                                                        \
        for (int64_t tree = 0; tree < s->trees; tree++, row += splits, threshold += splits, leaf += splits + 1)        \
            for (int i = 0; i < CELLS; i += MATCH(WIDTH))                                                              \
                MATCH(store)(b->sum + i, MATCH(add)(MATCH(load)(b->sum + i),                                           \
                                                    MATCH(tree_##depth)(b->x + i, row, threshold, leaf, 0, 0)));       \
        break;

TARGET static void MATCH(sum_trees)(const shallow *s, const block *b, const uint16_t *row) {
    const int splits = (1 << s->depth) - 1;
    const float *threshold = s->threshold, *leaf = s->leaf;
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

#define CASE(depth)                                                                                                    \
    case depth:                                                                                                        \
        for (int64_t tree = 0; tree < s->trees; tree++, row += splits, rank += splits, leaf += splits + 1)             \
            for (int i = 0; i < CELLS; i += MATCH(LANES))                                                              \
                MATCH(add_leaves)(b->sum + i, MATCH(leaf_##depth)(b->q + i, row, rank, 0, 0), leaf, depth);            \
        break;

TARGET static void MATCH(sum_ranked)(const shallow *s, const block *b, const uint16_t *row) {
    const int splits = (1 << s->depth) - 1;
    const uint8_t *rank = s->rank;
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
        float *x = s->ranked ? b->x : b->x + (apart ? 2 * f : f) * CELLS;
        memcpy(x, from, (size_t)cells * sizeof *x);
        int gaps = 0;
        for (int i = 0; i < cells; i++)
            gaps |= x[i] != x[i];
        missing |= gaps;
        if (gaps && !apart)
            return 1; // to be laid out again
        uint8_t *q = b->q + (apart ? 2 * f : f) * CELLS;
        if (s->ranked)
            MATCH(rank_row)(s, f, x, q); // what is missing has the rank 0 as yet
        if (!apart)
            continue;
        if (s->ranked) {
            memcpy(q + CELLS, q, CELLS);
            for (int i = 0; gaps && i < cells; i++)
                q[i] = x[i] != x[i] ? 255 : q[i];
        } else { // NaN is never less, and goes right
            for (int i = 0; i < cells; i++)
                x[CELLS + i] = x[i] != x[i] ? -INFINITY : x[i];
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
        (s->ranked ? MATCH(sum_ranked) : MATCH(sum_trees))(s, b, apart ? s->gappy : s->whole);
        memcpy(out + from, b->sum, (size_t)cells * sizeof *out);
    }
}
