/* A mixture of experts (Mixtral, arXiv:2401.04088) on the device: which experts a row goes through, and what comes of
 * them. Their products are gemm.h's, of a group of weights: a row has a place for each expert it goes through, and the
 * places of an expert lie together, in order of rows. Where they lie is known to the device alone, so nothing that is
 * launched depends on it. A row's choice, shares and sum are its own, whoever else goes through its experts. See rows.h
 * for what holds of all calls. */
#ifndef GALLEY_CUDA_EXPERTS_H
#define GALLEY_CUDA_EXPERTS_H

#include <stdint.h>

struct CUstream_st; /* what cudaStream_t and CUstream point to */

#ifdef __cplusplus
extern "C" {
#endif

struct expert_routes {               /* of the rows of a step through a layer; the arrays are the pool's */
    int32_t n_row, n_expert, n_used; /* n_used: experts that a row goes through */
    float *logit;                    /* [n_row][n_expert] of the router */
    int32_t *expert;                 /* [n_row][n_used] likeliest first; -1: the row is padding */
    float *share;                    /* [n_row][n_used] of the expert's result in the row's */
    int32_t *place;                  /* [n_row][n_used] where the row stands among all places; of padding unset */
    int32_t *first;                  /* [n_expert + 1] expert x has places first[x] .. first[x + 1] - 1 */
    int32_t *row;                    /* [n_row * n_used] whose a place is, as far as there are any */
};

/* From logits to all the rest. Of equal logits the first expert's counts as larger. sum_1: a row's shares add up to 1;
 * else they are those of a distribution over all experts. slot: [n_row], -1 of rows that are padding and go nowhere. */
void experts_route(const struct expert_routes *r, const int32_t *slot, int32_t sum_1, struct CUstream_st *stream);

/* What becomes of a row: the sum of share * y over its experts, likeliest first; of padding 0. */
struct combine_args {
    struct expert_routes routes;
    const float *y; /* [place][n] */
    float *out;     /* [n_row][n] */
    int32_t add;    /* 1: added to out; 0: written */
    int32_t n;
};
void experts_combine(const struct combine_args *a, struct CUstream_st *stream);

#ifdef __cplusplus
}
#endif
#endif
