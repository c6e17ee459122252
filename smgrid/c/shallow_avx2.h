// Vectors of 32 bytes.
enum { WIDTH_avx2 = 8, LANES_avx2 = 32 };
typedef __m256 floats_avx2;
typedef __m256i bytes_avx2;

TARGET INLINE __m256 load_avx2(const float *x) { return _mm256_loadu_ps(x); }
TARGET INLINE void store_avx2(float *x, __m256 v) { _mm256_storeu_ps(x, v); }
TARGET INLINE __m256 add_avx2(__m256 a, __m256 b) { return _mm256_add_ps(a, b); }
TARGET INLINE __m256 same_avx2(float x) { return _mm256_set1_ps(x); }
TARGET INLINE __m256 pick_avx2(__m256 x, float threshold, __m256 left, __m256 right) {
    return _mm256_blendv_ps(right, left, _mm256_cmp_ps(_mm256_set1_ps(threshold), x, _CMP_GT_OQ));
}

TARGET INLINE __m256i load_bytes_avx2(const uint8_t *q) { return _mm256_loadu_si256((const __m256i *)q); }
TARGET INLINE __m256i same_byte_avx2(uint8_t q) { return _mm256_set1_epi8((char)q); }
TARGET INLINE __m256i pick_rank_avx2(__m256i q, __m256i rank, __m256i left, __m256i right) {
    const __m256i up_to = _mm256_cmpeq_epi8(_mm256_min_epu8(q, rank), q);
    return _mm256_blendv_epi8(right, left, up_to);
}

// The leaves with the numbers given, eight at once: permutations of eight leaves each, chosen by bit 3 and those above.
#define DOUBLE(name, half, leaves, bit)                                                                                \
    TARGET INLINE __m256 name(__m256i number, const float *leaf) {                                                     \
        const __m256 low = half(number, leaf), high = half(number, leaf + (leaves));                                   \
        return _mm256_blendv_ps(low, high, _mm256_castsi256_ps(_mm256_slli_epi32(number, 31 - (bit))));                \
    }
TARGET INLINE __m256 of_8(__m256i number, const float *leaf) {
    return _mm256_permutevar8x32_ps(_mm256_loadu_ps(leaf), number);
}
DOUBLE(of_16, of_8, 8, 3)
DOUBLE(of_32, of_16, 16, 4)
DOUBLE(of_64, of_32, 32, 5)
#undef DOUBLE

TARGET INLINE void add_leaves_avx2(float *sum, __m256i number, const float *leaf, int depth) {
    uint8_t numbers[32];
    _mm256_storeu_si256((__m256i *)numbers, number);
    for (int i = 0; i < 32; i += 8) {
        const __m256i eight = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(numbers + i)));
        const __m256 value = depth <= 3   ? of_8(eight, leaf)
                             : depth == 4 ? of_16(eight, leaf)
                             : depth == 5 ? of_32(eight, leaf)
                                          : of_64(eight, leaf);
        store_avx2(sum + i, add_avx2(load_avx2(sum + i), value));
    }
}

TARGET INLINE void rank_row_avx2(const shallow *s, int64_t f, const float *x, uint8_t *q) {
    const float *cuts = s->cuts + f * 256;
    const int *start = (const int *)(const void *)(s->start + f * (TABLE + 4));
    const __m256 low = _mm256_set1_ps(s->low[f]), scale = _mm256_set1_ps(s->scale[f]);
    const __m256 last = _mm256_set1_ps(TABLE - 1);
    for (int i = 0; i < CELLS; i += 8) {
        const __m256 v = _mm256_loadu_ps(x + i);
        __m256 place = _mm256_mul_ps(_mm256_sub_ps(v, low), scale);
        place = _mm256_min_ps(_mm256_max_ps(place, _mm256_setzero_ps()), last); // NaN becomes 0, as in place_of
        __m256i rank = _mm256_i32gather_epi32(start, _mm256_cvttps_epi32(place), 1);
        rank = _mm256_and_si256(rank, _mm256_set1_epi32(255));
        for (;;) {
            const __m256 more = _mm256_cmp_ps(_mm256_i32gather_ps(cuts, rank, 4), v, _CMP_LE_OQ);
            if (!_mm256_movemask_ps(more))
                break;
            rank = _mm256_sub_epi32(rank, _mm256_castps_si256(more));
        }
        const __m128i words = _mm_packus_epi32(_mm256_castsi256_si128(rank), _mm256_extracti128_si256(rank, 1));
        _mm_storel_epi64((__m128i *)(q + i), _mm_packus_epi16(words, words));
    }
}
