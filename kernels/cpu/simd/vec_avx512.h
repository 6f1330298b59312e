/* vec.h for AVX-512 F, BW, DQ and VL, with VNNI or without. */
#include <immintrin.h>

#if defined(__AMX_BF16__)
#define VEC_ISA_NAME "amx"
#elif defined(__AVX512VNNI__)
#define VEC_ISA_NAME "avx512-vnni"
#else
#define VEC_ISA_NAME "avx512"
#endif
#define VEC_TILE 16      /* rows of a product tile */
enum { VEC_CHAINS = 4 }; /* independent sums that hide latency */

typedef __m512 vf;
typedef __m512i vi;

VEC vf vf_set1(float x)
{
    return _mm512_set1_ps(x);
}
VEC vf vf_load(const float *p)
{
    return _mm512_loadu_ps(p);
}
/* a in a register: gcc would rather load it again for each multiplication. */
VEC vf vf_keep(vf a)
{
    __asm__("" : "+v"(a));
    return a;
}
VEC void vf_store(float *p, vf a)
{
    _mm512_storeu_ps(p, a);
}
VEC vf vf_add(vf a, vf b)
{
    return _mm512_add_ps(a, b);
}
VEC vf vf_sub(vf a, vf b)
{
    return _mm512_sub_ps(a, b);
}
VEC vf vf_mul(vf a, vf b)
{
    return _mm512_mul_ps(a, b);
}
VEC vf vf_div(vf a, vf b)
{
    return _mm512_div_ps(a, b);
}
VEC vf vf_fma(vf a, vf b, vf c)
{
    return _mm512_fmadd_ps(a, b, c);
}
/* a > b ? a : b, so b when either is NaN. */
VEC vf vf_max(vf a, vf b)
{
    return _mm512_max_ps(a, b);
}
VEC vf vf_min(vf a, vf b)
{
    return _mm512_min_ps(a, b);
}
/* Lanes lo..hi-1 of a, the others of b. */
VEC vf vf_select(int lo, int hi, vf a, vf b)
{
    return _mm512_mask_mov_ps(b, (__mmask16)(((1u << hi) - 1) & ~((1u << lo) - 1)), a);
}
VEC vi vf_to_int(vf a) /* to nearest, halves to even */
{
    return _mm512_cvtps_epi32(a);
}
VEC vf vi_to_f(vi a)
{
    return _mm512_cvtepi32_ps(a);
}
/* a * 2^n for normal results. */
VEC vf vf_scale2(vf a, vi n)
{
    return _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(a), _mm512_slli_epi32(n, 23)));
}
VEC float vf_sum(vf a)
{
    __m256 b = _mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1));
    __m128 c = _mm_add_ps(_mm256_castps256_ps128(b), _mm256_extractf128_ps(b, 1));
    c = _mm_add_ps(c, _mm_movehl_ps(c, c));
    return _mm_cvtss_f32(_mm_add_ss(c, _mm_shuffle_ps(c, c, 1)));
}
VEC float vf_hmax(vf a)
{
    return _mm512_reduce_max_ps(a);
}
VEC vi vi_zero(void)
{
    return _mm512_setzero_si512();
}
VEC vi vi_set1(int32_t x)
{
    return _mm512_set1_epi32(x);
}
VEC int32_t vi_sum(vi a)
{
    return _mm512_reduce_add_epi32(a);
}
VEC vi vi_max(vi a, vi b)
{
    return _mm512_max_epi32(a, b);
}
VEC int32_t vi_hmax(vi a)
{
    return _mm512_reduce_max_epi32(a);
}
VEC vi vf_abs_bits(vf a)
{
    return _mm512_and_si512(_mm512_castps_si512(a), _mm512_set1_epi32(0x7fffffff));
}
VEC void vi_store_i8(int8_t *p, vi a) /* lanes fit */
{
    _mm_storeu_si128((__m128i *)p, _mm512_cvtepi32_epi8(a));
}
VEC vf vf_load_u8(const uint8_t *p)
{
    return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)p)));
}
VEC vf vf_load_i8(const int8_t *p)
{
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)p)));
}
/* 2^(e - 128) of 16 bytes, 0 for e < 2: the scales of MXFP4, whose codes are doubled. */
VEC vf vf_load_exponent(const uint8_t *p)
{
    __m128i e = _mm_subs_epu8(_mm_loadu_si128((const __m128i *)p), _mm_set1_epi8(1));
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu8_epi32(e), 23));
}
VEC vf vf_load_f16(const void *p)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p));
}
VEC void vf_store_f16(void *p, vf a)
{
    _mm256_storeu_si256((__m256i *)p, _mm512_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT));
}
VEC vf vf_load_bf16(const void *p)
{
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p)), 16));
}
/* Sixteen pairs of bf16, the first (0) or the second (1) of each. */
VEC vf vf_load_half_bf16(const void *p, int second)
{
    vi pair = _mm512_loadu_si512(p);
    return _mm512_castsi512_ps(second ? _mm512_and_si512(pair, _mm512_set1_epi32((int)0xffff0000))
                                      : _mm512_slli_epi32(pair, 16));
}
/* Sixteen codes of e4m3, each times 2^-8: they are an f16 without its last mantissa bits. */
VEC vf vf_load_e4m3(const void *p)
{
    __m256i wide = _mm256_slli_epi16(_mm256_cvtepi8_epi16(_mm_loadu_si128(p)), 7);
    return _mm512_cvtph_ps(_mm256_and_si256(wide, _mm256_set1_epi16((short)0xbf80)));
}
VEC void vf_store_bf16(void *p, vf a)
{
    vi u = _mm512_castps_si512(a), odd = _mm512_and_si512(_mm512_srli_epi32(u, 16), _mm512_set1_epi32(1));
    vi r = _mm512_srli_epi32(_mm512_add_epi32(u, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff))), 16);
    __mmask16 nan = _mm512_cmp_ps_mask(a, a, _CMP_UNORD_Q);
    r = _mm512_mask_mov_epi32(r, nan, _mm512_set1_epi32(0x7fc0));
    _mm256_storeu_si256((__m256i *)p, _mm512_cvtepi32_epi16(r));
}

/* 16 columns of 4 codes each, and their dot products with the 4 activations at p. */
typedef __m512i vcodes;

VEC vcodes codes_load(const uint8_t *p)
{
    return _mm512_load_si512(p);
}
VEC vcodes codes_low(vcodes a)
{
    return _mm512_and_si512(a, _mm512_set1_epi8(15));
}
VEC vcodes codes_high(vcodes a)
{
    return _mm512_and_si512(_mm512_srli_epi16(a, 4), _mm512_set1_epi8(15));
}
/* Beside them, the bits of `from`, moved left or (below 0) right, that the mask keeps of each byte. */
VEC vcodes codes_with_bits(vcodes a, vcodes from, int left, int mask)
{
    typedef uint16_t words __attribute__((vector_size(64)));
    words w = (words)from;
    w = left >= 0 ? w << left : w >> -left;
    return _mm512_or_si512(a, _mm512_and_si512((__m512i)w, _mm512_set1_epi8((char)mask)));
}
/* Nibbles to twice the 4-bit float they stand for, plus 12. */
VEC vcodes codes_fp4(vcodes a)
{
    return _mm512_shuffle_epi8(
        _mm512_broadcast_i32x4(_mm_setr_epi8(12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0)), a);
}
#if defined(__AVX512VNNI__)
enum { VEC_OFFSET_CODES = 1 }; /* codes are u8 as stored; sums start at minus the offset */

VEC int dot4_run(int most) /* in 32 bits at once: rows may take turns */
{
    (void)most;
    return 1;
}
/* gcc 12 splits the broadcast from vpdpbusd; kept together they need no register. */
VEC vi dot4_u8(vi acc, const vcodes *w, const int8_t *p, int n)
{
    (void)n;
    __asm__("vpdpbusd %2%{1to16%}, %1, %0" : "+v"(acc) : "v"(*w), "m"(*(const int32_t *)(const void *)p));
    return acc;
}
VEC vi dot4_s8(vi acc, vcodes w, const int8_t *p) /* codes stored with offset 128; the sum starts at -128 sum */
{
    return dot4_u8(acc, &w, p, 1);
}
VEC vcodes codes_signed(vcodes a)
{
    return a;
}
#else
enum { VEC_OFFSET_CODES = 0 }; /* Q8_0's codes are made signed when loaded; its sums start at 0 */

VEC __m512i four_codes(const int8_t *p)
{
    int32_t four;
    memcpy(&four, p, sizeof four);
    return _mm512_set1_epi32(four);
}
/* Codes up to `most`: so many sums of two products each fit 16 bits together, and are widened at once. (Codes up to 15
 * would allow 8, which is slower.) */
VEC int dot4_run(int most)
{
    return most < 32 ? 4 : most < 64 ? 2 : 1;
}
VEC vi widen_add(vi acc, __m512i pairs)
{
    return _mm512_add_epi32(acc, _mm512_madd_epi16(pairs, _mm512_set1_epi16(1)));
}
/* n in turn: 1 .. dot4_run. */
VEC vi dot4_u8(vi acc, const vcodes *w, const int8_t *p, int n)
{
    __m512i pairs = _mm512_maddubs_epi16(*w, four_codes(p));
    VEC_UNROLL(4)
    for (int i = 1; i < n; i++)
        pairs = _mm512_add_epi16(pairs, _mm512_maddubs_epi16(w[i], four_codes(p + 4 * i)));
    return widen_add(acc, pairs);
}
/* |w| times a with w's sign: at most 2 * 128 * 127, which fits as well. */
VEC vi dot4_s8(vi acc, vcodes w, const int8_t *p)
{
    __m512i a = four_codes(p);
    a = _mm512_mask_sub_epi8(a, _mm512_movepi8_mask(w), vi_zero(), a);
    return widen_add(acc, _mm512_maddubs_epi16(_mm512_abs_epi8(w), a));
}
VEC vcodes codes_signed(vcodes a)
{
    return _mm512_xor_si512(a, _mm512_set1_epi8(-128));
}
#endif

/* row[i] becomes column i: 16 x 16. */
VEC void vf_transpose(vf r[16])
{
    vf t[16];
    for (int i = 0; i < 16; i += 2) {
        t[i] = _mm512_unpacklo_ps(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_ps(r[i], r[i + 1]);
    }
    for (int i = 0; i < 16; i += 4) {
        r[i] = _mm512_shuffle_ps(t[i], t[i + 2], 0x44);
        r[i + 1] = _mm512_shuffle_ps(t[i], t[i + 2], 0xee);
        r[i + 2] = _mm512_shuffle_ps(t[i + 1], t[i + 3], 0x44);
        r[i + 3] = _mm512_shuffle_ps(t[i + 1], t[i + 3], 0xee);
    }
    for (int i = 0; i < 4; i++) { /* 4 x 4 blocks are done; now the blocks change places */
        vf a = _mm512_shuffle_f32x4(r[i], r[i + 4], 0x88), b = _mm512_shuffle_f32x4(r[i], r[i + 4], 0xdd);
        vf c = _mm512_shuffle_f32x4(r[i + 8], r[i + 12], 0x88), d = _mm512_shuffle_f32x4(r[i + 8], r[i + 12], 0xdd);
        t[i] = _mm512_shuffle_f32x4(a, c, 0x88);
        t[i + 8] = _mm512_shuffle_f32x4(a, c, 0xdd);
        t[i + 4] = _mm512_shuffle_f32x4(b, d, 0x88);
        t[i + 12] = _mm512_shuffle_f32x4(b, d, 0xdd);
    }
    for (int i = 0; i < 16; i++)
        r[i] = t[i];
}
