// Vectors of 64 bytes.
enum { WIDTH_avx512 = 16, LANES_avx512 = 64 };
typedef __m512 floats_avx512;
typedef __m512i bytes_avx512;

TARGET INLINE __m512 load_avx512(const float *x) { return _mm512_loadu_ps(x); }
TARGET INLINE void store_avx512(float *x, __m512 v) { _mm512_storeu_ps(x, v); }
TARGET INLINE __m512 add_avx512(__m512 a, __m512 b) { return _mm512_add_ps(a, b); }
TARGET INLINE __m512 same_avx512(float x) { return _mm512_set1_ps(x); }
TARGET INLINE __m512 pick_avx512(__m512 x, float threshold, __m512 left, __m512 right) {
    return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(_mm512_set1_ps(threshold), x, _CMP_GT_OQ), right, left);
}

TARGET INLINE __m512i load_bytes_avx512(const uint8_t *q) { return _mm512_loadu_si512(q); }
TARGET INLINE __m512i same_byte_avx512(uint8_t q) { return _mm512_set1_epi8((char)q); }
TARGET INLINE __m512i pick_rank_avx512(__m512i q, __m512i rank, __m512i left, __m512i right) {
    return _mm512_mask_blend_epi8(_mm512_cmple_epu8_mask(q, rank), right, left);
}

// The leaves with the numbers given, sixteen at once: permutations of one register, two, or twice two.
TARGET INLINE __m512 leaves_avx512(__m512i number, const float *leaf, int depth) {
    const __m512 first = _mm512_loadu_ps(leaf);
    if (depth <= 4)
        return _mm512_permutexvar_ps(number, first);
    const __m512 low = _mm512_permutex2var_ps(first, number, _mm512_loadu_ps(leaf + 16));
    if (depth == 5)
        return low;
    const __m512 high = _mm512_permutex2var_ps(_mm512_loadu_ps(leaf + 32), number, _mm512_loadu_ps(leaf + 48));
    return _mm512_mask_blend_ps(_mm512_test_epi32_mask(number, _mm512_set1_epi32(32)), low, high);
}

TARGET INLINE void add_sixteen_avx512(float *sum, __m128i number, const float *leaf, int depth) {
    const __m512 value = leaves_avx512(_mm512_cvtepu8_epi32(number), leaf, depth);
    store_avx512(sum, add_avx512(load_avx512(sum), value));
}

TARGET INLINE void add_leaves_avx512(float *sum, __m512i number, const float *leaf, int depth) {
    add_sixteen_avx512(sum, _mm512_extracti32x4_epi32(number, 0), leaf, depth);
    add_sixteen_avx512(sum + 16, _mm512_extracti32x4_epi32(number, 1), leaf, depth);
    add_sixteen_avx512(sum + 32, _mm512_extracti32x4_epi32(number, 2), leaf, depth);
    add_sixteen_avx512(sum + 48, _mm512_extracti32x4_epi32(number, 3), leaf, depth);
}

TARGET INLINE void rank_row_avx512(const shallow *s, int64_t f, const float *x, uint8_t *q) {
    const float *cuts = s->cuts + f * 256;
    const uint8_t *start = s->start + f * (TABLE + 4);
    const __m512 low = _mm512_set1_ps(s->low[f]), scale = _mm512_set1_ps(s->scale[f]);
    const __m512 last = _mm512_set1_ps(TABLE - 1);
    for (int i = 0; i < CELLS; i += 16) {
        const __m512 v = _mm512_loadu_ps(x + i);
        __m512 place = _mm512_mul_ps(_mm512_sub_ps(v, low), scale);
        place = _mm512_min_ps(_mm512_max_ps(place, _mm512_setzero_ps()), last); // NaN becomes 0, as in place_of
        __m512i rank = _mm512_i32gather_epi32(_mm512_cvttps_epi32(place), start, 1);
        rank = _mm512_and_si512(rank, _mm512_set1_epi32(255));
        for (;;) {
            const __mmask16 more = _mm512_cmp_ps_mask(_mm512_i32gather_ps(rank, cuts, 4), v, _CMP_LE_OQ);
            if (!more)
                break;
            rank = _mm512_mask_add_epi32(rank, more, rank, _mm512_set1_epi32(1));
        }
        _mm_storeu_si128((__m128i *)(q + i), _mm512_cvtepi32_epi8(rank));
    }
}
