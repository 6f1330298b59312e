/* vec.h for AVX2, FMA and F16C: a pair of registers. */
#include <immintrin.h>

#define VEC_ISA_NAME "avx2"
#define VEC_TILE 4       /* rows of a product tile */
enum { VEC_CHAINS = 2 }; /* independent sums that hide latency */

typedef struct {
    __m256 lo, hi;
} vf;
typedef struct {
    __m256i lo, hi;
} vi;

VEC vf vf_set1(float x)
{
    return (vf){_mm256_set1_ps(x), _mm256_set1_ps(x)};
}
VEC vf vf_load(const float *p)
{
    return (vf){_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)};
}
/* a in registers: gcc would rather load it again for each multiplication. */
VEC vf vf_keep(vf a)
{
    __asm__("" : "+x"(a.lo), "+x"(a.hi));
    return a;
}
VEC void vf_store(float *p, vf a)
{
    _mm256_storeu_ps(p, a.lo);
    _mm256_storeu_ps(p + 8, a.hi);
}
VEC vf vf_add(vf a, vf b)
{
    return (vf){_mm256_add_ps(a.lo, b.lo), _mm256_add_ps(a.hi, b.hi)};
}
VEC vf vf_sub(vf a, vf b)
{
    return (vf){_mm256_sub_ps(a.lo, b.lo), _mm256_sub_ps(a.hi, b.hi)};
}
VEC vf vf_mul(vf a, vf b)
{
    return (vf){_mm256_mul_ps(a.lo, b.lo), _mm256_mul_ps(a.hi, b.hi)};
}
VEC vf vf_div(vf a, vf b)
{
    return (vf){_mm256_div_ps(a.lo, b.lo), _mm256_div_ps(a.hi, b.hi)};
}
VEC vf vf_fma(vf a, vf b, vf c)
{
    return (vf){_mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi)};
}
/* a > b ? a : b, so b when either is NaN. */
VEC vf vf_max(vf a, vf b)
{
    return (vf){_mm256_max_ps(a.lo, b.lo), _mm256_max_ps(a.hi, b.hi)};
}
VEC vf vf_min(vf a, vf b)
{
    return (vf){_mm256_min_ps(a.lo, b.lo), _mm256_min_ps(a.hi, b.hi)};
}
/* Lanes lo..hi-1 of a, the others of b. */
VEC vf vf_select(int lo, int hi, vf a, vf b)
{
    const __m256i i0 = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7), i1 = _mm256_setr_epi32(8, 9, 10, 11, 12, 13, 14, 15);
    __m256i first = _mm256_set1_epi32(lo - 1), end = _mm256_set1_epi32(hi);
    __m256i m0 = _mm256_and_si256(_mm256_cmpgt_epi32(i0, first), _mm256_cmpgt_epi32(end, i0));
    __m256i m1 = _mm256_and_si256(_mm256_cmpgt_epi32(i1, first), _mm256_cmpgt_epi32(end, i1));
    return (vf){_mm256_blendv_ps(b.lo, a.lo, _mm256_castsi256_ps(m0)),
                _mm256_blendv_ps(b.hi, a.hi, _mm256_castsi256_ps(m1))};
}
VEC vi vf_to_int(vf a) /* to nearest, halves to even */
{
    return (vi){_mm256_cvtps_epi32(a.lo), _mm256_cvtps_epi32(a.hi)};
}
VEC vf vi_to_f(vi a)
{
    return (vf){_mm256_cvtepi32_ps(a.lo), _mm256_cvtepi32_ps(a.hi)};
}
/* a * 2^n for normal results. */
VEC vf vf_scale2(vf a, vi n)
{
    return (vf){_mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(a.lo), _mm256_slli_epi32(n.lo, 23))),
                _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(a.hi), _mm256_slli_epi32(n.hi, 23)))};
}
VEC float vf_sum(vf a)
{
    __m256 b = _mm256_add_ps(a.lo, a.hi);
    __m128 c = _mm_add_ps(_mm256_castps256_ps128(b), _mm256_extractf128_ps(b, 1));
    c = _mm_add_ps(c, _mm_movehl_ps(c, c));
    return _mm_cvtss_f32(_mm_add_ss(c, _mm_shuffle_ps(c, c, 1)));
}
VEC float vf_hmax(vf a)
{
    __m256 b = _mm256_max_ps(a.lo, a.hi);
    __m128 c = _mm_max_ps(_mm256_castps256_ps128(b), _mm256_extractf128_ps(b, 1));
    c = _mm_max_ps(c, _mm_movehl_ps(c, c));
    return _mm_cvtss_f32(_mm_max_ss(c, _mm_shuffle_ps(c, c, 1)));
}
VEC vi vi_zero(void)
{
    return (vi){_mm256_setzero_si256(), _mm256_setzero_si256()};
}
VEC vi vi_set1(int32_t x)
{
    return (vi){_mm256_set1_epi32(x), _mm256_set1_epi32(x)};
}
VEC int32_t vi_sum(vi a)
{
    int32_t v[8], sum = 0;
    _mm256_storeu_si256((__m256i *)v, _mm256_add_epi32(a.lo, a.hi));
    for (int i = 0; i < 8; i++)
        sum += v[i];
    return sum;
}
VEC vi vi_max(vi a, vi b)
{
    return (vi){_mm256_max_epi32(a.lo, b.lo), _mm256_max_epi32(a.hi, b.hi)};
}
VEC int32_t vi_hmax(vi a)
{
    int32_t v[8];
    _mm256_storeu_si256((__m256i *)v, _mm256_max_epi32(a.lo, a.hi));
    for (int i = 1; i < 8; i++)
        v[0] = v[i] > v[0] ? v[i] : v[0];
    return v[0];
}
VEC vi vf_abs_bits(vf a)
{
    const __m256i m = _mm256_set1_epi32(0x7fffffff);
    return (vi){_mm256_and_si256(_mm256_castps_si256(a.lo), m), _mm256_and_si256(_mm256_castps_si256(a.hi), m)};
}
VEC void vi_store_i8(int8_t *p, vi a) /* lanes fit */
{
    __m256i w = _mm256_permute4x64_epi64(_mm256_packs_epi32(a.lo, a.hi), 0xd8);
    _mm_storeu_si128((__m128i *)p, _mm_packs_epi16(_mm256_castsi256_si128(w), _mm256_extracti128_si256(w, 1)));
}
VEC vf vf_load_u8(const uint8_t *p)
{
    return vi_to_f((vi){_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)p)),
                        _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(p + 8)))});
}
/* 2^(e - 128) of 16 bytes, 0 for e < 2: the scales of MXFP4, whose codes are doubled. */
VEC vf vf_load_exponent(const uint8_t *p)
{
    __m128i e = _mm_subs_epu8(_mm_loadu_si128((const __m128i *)p), _mm_set1_epi8(1));
    return (vf){_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu8_epi32(e), 23)),
                _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu8_epi32(_mm_srli_si128(e, 8)), 23))};
}
VEC vf vf_load_i8(const int8_t *p)
{
    return vi_to_f((vi){_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)p)),
                        _mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)(p + 8)))});
}
VEC vf vf_load_f16(const void *p)
{
    const __m128i *h = p;
    return (vf){_mm256_cvtph_ps(_mm_loadu_si128(h)), _mm256_cvtph_ps(_mm_loadu_si128(h + 1))};
}
VEC void vf_store_f16(void *p, vf a)
{
    __m128i *h = p;
    _mm_storeu_si128(h, _mm256_cvtps_ph(a.lo, _MM_FROUND_TO_NEAREST_INT));
    _mm_storeu_si128(h + 1, _mm256_cvtps_ph(a.hi, _MM_FROUND_TO_NEAREST_INT));
}
VEC vf vf_load_bf16(const void *p)
{
    const __m128i *h = p;
    return (vf){_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128(h)), 16)),
                _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128(h + 1)), 16))};
}
VEC __m256i bf16_bits(__m256 a)
{
    __m256i u = _mm256_castps_si256(a), odd = _mm256_and_si256(_mm256_srli_epi32(u, 16), _mm256_set1_epi32(1));
    __m256i r = _mm256_srli_epi32(_mm256_add_epi32(u, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff))), 16);
    __m256 nan = _mm256_cmp_ps(a, a, _CMP_UNORD_Q);
    return _mm256_blendv_epi8(r, _mm256_set1_epi32(0x7fc0), _mm256_castps_si256(nan));
}
/* Sixteen pairs of bf16, the first (0) or the second (1) of each. */
VEC __m256 half_bf16(const __m256i *p, int second)
{
    __m256i pair = _mm256_loadu_si256(p);
    return _mm256_castsi256_ps(second ? _mm256_and_si256(pair, _mm256_set1_epi32((int)0xffff0000))
                                      : _mm256_slli_epi32(pair, 16));
}
VEC vf vf_load_half_bf16(const void *p, int second)
{
    return (vf){half_bf16(p, second), half_bf16((const __m256i *)p + 1, second)};
}
/* Sixteen codes of e4m3, each times 2^-8: they are an f16 without its last mantissa bits. */
VEC vf vf_load_e4m3(const void *p)
{
    __m256i wide = _mm256_slli_epi16(_mm256_cvtepi8_epi16(_mm_loadu_si128(p)), 7);
    wide = _mm256_and_si256(wide, _mm256_set1_epi16((short)0xbf80));
    return (vf){_mm256_cvtph_ps(_mm256_castsi256_si128(wide)), _mm256_cvtph_ps(_mm256_extracti128_si256(wide, 1))};
}
VEC void vf_store_bf16(void *p, vf a)
{
    __m256i w = _mm256_packus_epi32(bf16_bits(a.lo), bf16_bits(a.hi));
    _mm256_storeu_si256((__m256i *)p, _mm256_permute4x64_epi64(w, 0xd8));
}

/* 16 columns of 4 codes each, and their dot products with the 4 activations at p. */
typedef vi vcodes;
enum { VEC_OFFSET_CODES = 0 }; /* Q8_0's codes are made signed when loaded; its sums start at 0 */

VEC vcodes codes_load(const uint8_t *p)
{
    return (vcodes){_mm256_load_si256((const __m256i *)p), _mm256_load_si256((const __m256i *)(p + 32))};
}
VEC vcodes codes_low(vcodes a)
{
    const __m256i m = _mm256_set1_epi8(15);
    return (vcodes){_mm256_and_si256(a.lo, m), _mm256_and_si256(a.hi, m)};
}
VEC vcodes codes_high(vcodes a)
{
    const __m256i m = _mm256_set1_epi8(15);
    return (vcodes){_mm256_and_si256(_mm256_srli_epi16(a.lo, 4), m), _mm256_and_si256(_mm256_srli_epi16(a.hi, 4), m)};
}
VEC vcodes codes_signed(vcodes a)
{
    const __m256i m = _mm256_set1_epi8(-128);
    return (vcodes){_mm256_xor_si256(a.lo, m), _mm256_xor_si256(a.hi, m)};
}
VEC __m256i bits_of(__m256i from, int left, int mask)
{
    typedef uint16_t words __attribute__((vector_size(32)));
    words w = (words)from;
    w = left >= 0 ? w << left : w >> -left;
    return _mm256_and_si256((__m256i)w, _mm256_set1_epi8((char)mask));
}
VEC vcodes codes_with_bits(vcodes a, vcodes from, int left, int mask)
{
    return (vcodes){_mm256_or_si256(a.lo, bits_of(from.lo, left, mask)),
                    _mm256_or_si256(a.hi, bits_of(from.hi, left, mask))};
}
VEC vcodes codes_fp4(vcodes a)
{
    const __m256i value = _mm256_setr_epi8(12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0, 12, 13, 14, 15, 16,
                                           18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0);
    return (vcodes){_mm256_shuffle_epi8(value, a.lo), _mm256_shuffle_epi8(value, a.hi)};
}
VEC __m256i four_codes(const int8_t *p)
{
    int32_t x;
    memcpy(&x, p, 4);
    return _mm256_set1_epi32(x);
}
/* Codes up to `most`: so many sums of two products each fit 16 bits together, and are widened at once. (Codes up to 15
 * would allow 8, which is slower.) */
VEC int dot4_run(int most)
{
    return most < 32 ? 4 : most < 64 ? 2 : 1;
}
VEC __m256i widen_add(__m256i acc, __m256i pairs)
{
    return _mm256_add_epi32(acc, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}
/* n in turn: 1 .. dot4_run. */
VEC vi dot4_u8(vi acc, const vcodes *w, const int8_t *p, int n)
{
    __m256i a = four_codes(p), lo = _mm256_maddubs_epi16(w->lo, a), hi = _mm256_maddubs_epi16(w->hi, a);
    VEC_UNROLL(4)
    for (int i = 1; i < n; i++) {
        a = four_codes(p + 4 * i);
        lo = _mm256_add_epi16(lo, _mm256_maddubs_epi16(w[i].lo, a));
        hi = _mm256_add_epi16(hi, _mm256_maddubs_epi16(w[i].hi, a));
    }
    return (vi){widen_add(acc.lo, lo), widen_add(acc.hi, hi)};
}
/* |w| times a with w's sign: at most 2 * 128 * 127, which fits as well. */
VEC __m256i dot4_s8_half(__m256i acc, __m256i w, __m256i a)
{
    return widen_add(acc, _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(a, w)));
}
VEC vi dot4_s8(vi acc, vcodes w, const int8_t *p)
{
    __m256i a = four_codes(p);
    return (vi){dot4_s8_half(acc.lo, w.lo, a), dot4_s8_half(acc.hi, w.hi, a)};
}

/* row[i] becomes column i: 16 x 16, through memory. */
VEC void vf_transpose(vf r[16])
{
    float in[16][16], out[16][16];
    for (int i = 0; i < 16; i++)
        vf_store(in[i], r[i]);
    for (int i = 0; i < 16; i++)
        for (int j = 0; j < 16; j++)
            out[j][i] = in[i][j];
    for (int i = 0; i < 16; i++)
        r[i] = vf_load(out[i]);
}
