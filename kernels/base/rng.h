/* Counter-based random numbers: Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC11).
 * The same key and counter give the same number on any thread, in any batch. Open to all floors. */
#ifndef GALLEY_RNG_H
#define GALLEY_RNG_H

#include <math.h>
#include <stdint.h>

#ifndef RNG_FN /* device code includes this header with a meaning of its own */
#define RNG_FN static inline
#endif

RNG_FN void rng_philox(uint64_t key, const uint32_t ctr[4], uint32_t out[4])
{
    uint32_t c0 = ctr[0], c1 = ctr[1], c2 = ctr[2], c3 = ctr[3], k0 = (uint32_t)key, k1 = (uint32_t)(key >> 32);
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)0xD2511F53u * c0, p1 = (uint64_t)0xCD9E8D57u * c2;
        c0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0;
        c1 = (uint32_t)p1;
        c2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c3 = (uint32_t)p0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    out[0] = c0, out[1] = c1, out[2] = c2, out[3] = c3;
}

/* In the open interval (0, 1): neither 0 nor 1 occurs, so logarithms are finite. 23 bits and the half are exact in f32. */
RNG_FN float rng_unit(uint32_t bits)
{
    return ((float)(bits >> 9) + 0.5f) * 0x1p-23f;
}

/* Standard Gumbel noise from 32 random bits: at most 16.64, at least -2.82. */
RNG_FN float rng_gumbel(uint32_t bits)
{
    return -logf(-logf(rng_unit(bits)));
}
#define RNG_GUMBEL_MAX 16.7f

/* The noise of one token in a draw at `position` (plan.h says which streams there are): a quarter of a Philox block. */
RNG_FN float rng_token_gumbel(uint64_t key, int32_t position, uint32_t stream, int32_t tok)
{
    uint32_t ctr[4] = {(uint32_t)tok >> 2, (uint32_t)position, stream, 0}, noise[4];
    rng_philox(key, ctr, noise);
    return rng_gumbel(noise[tok & 3]);
}

/* A well-mixed 64-bit hash step (the finaliser of splitmix64), for seeds and keys. */
RNG_FN uint64_t rng_mix(uint64_t x)
{
    x += 0x9E3779B97F4A7C15u;
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
    return x ^ (x >> 31);
}

#endif
