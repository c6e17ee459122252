// Vectors of 16 bytes, as every processor has them, in the compiler's own notation.
enum { WIDTH_plain = 4, LANES_plain = 16 };
typedef float floats_plain __attribute__((vector_size(16)));
typedef int32_t signs_plain __attribute__((vector_size(16)));
typedef uint8_t bytes_plain __attribute__((vector_size(16)));

INLINE floats_plain load_plain(const float *x) {
    floats_plain v;
    memcpy(&v, x, 16);
    return v;
}
INLINE void store_plain(float *x, floats_plain v) { memcpy(x, &v, 16); }
INLINE floats_plain add_plain(floats_plain a, floats_plain b) { return a + b; }
INLINE floats_plain same_plain(float x) { return (floats_plain){x, x, x, x}; }
INLINE floats_plain pick_plain(floats_plain x, float threshold, floats_plain left, floats_plain right) {
    const signs_plain less = x < same_plain(threshold);
    return (floats_plain)((less & (signs_plain)left) | (~less & (signs_plain)right));
}

INLINE bytes_plain load_bytes_plain(const uint8_t *q) {
    bytes_plain v;
    memcpy(&v, q, 16);
    return v;
}
INLINE bytes_plain same_byte_plain(uint8_t q) { return (bytes_plain){q, q, q, q, q, q, q, q, q, q, q, q, q, q, q, q}; }
INLINE bytes_plain pick_rank_plain(bytes_plain q, bytes_plain rank, bytes_plain left, bytes_plain right) {
    const bytes_plain less = (bytes_plain)(q <= rank);
    return (less & left) | (~less & right);
}
INLINE void add_leaves_plain(float *sum, bytes_plain number, const float *leaf, int depth) {
    (void)depth;
    for (int i = 0; i < LANES_plain; i++)
        sum[i] += leaf[number[i]];
}
INLINE void rank_row_plain(const shallow *s, int64_t f, const float *x, uint8_t *q) {
    const float *cuts = s->cuts + f * 256;
    const uint8_t *start = s->start + f * (TABLE + 4);
    for (int i = 0; i < CELLS; i++) {
        int rank = start[place_of(s, f, x[i])];
        while (cuts[rank] <= x[i]) // the NaN behind the last ends it
            rank++;
        q[i] = (uint8_t)rank;
    }
}
