/* Readouts on the device: logits never leave it. The host looks at a plan and lists which rows need logits, which of
 * those a law applies to, and what is read (readouts_work.c); kernels then run over the lists:
 *
 *   readouts_raw   logsumexp and entropy of rows of logits, where something is asked of them RAW       (law.cu)
 *   readouts_law   logits to scores: biased, masked, penalised, shifted, divided by the temperature, truncated (law.cu)
 *   readouts_read  SAMPLE, TOPK, LOGPROB, PROBE                                                     (readouts.cu)
 *   readouts_contrast                                                                               (contrast.cu)
 *
 * READ_HIDDEN is rows_norm or rows_save. Sums over the vocabulary are of integers (2^-44 is the unit), so they depend
 * on nothing but the row. Draws use base/rng.h's noise, keyed by law, position and token: the token that ref draws, but
 * for the rounding of logits. A row is one block's work. */
#ifndef GALLEY_CUDA_READOUTS_H
#define GALLEY_CUDA_READOUTS_H

#include "attention.h"
#include "plan.h"

struct CUstream_st;
struct f16;

#ifdef __cplusplus
extern "C" {
#endif

struct law_row {             /* a row of logits that a law applies to */
    int32_t logit;           /* row of logits */
    int32_t law, mask;       /* of the plan; mask -1: none */
    int32_t position;        /* that a draw from it is for */
    int32_t chain0, n_chain; /* plan rows whose tokens the law's counts lack, */
    uint64_t vis; /* then tree rows: bits below n_held are plan->held[held0 ..], the others plan rows tree0 .. */
    int32_t n_held, held0, tree0;
};

struct law_state {  /* what k_law leaves behind for a law row, beside its scores */
    int32_t argmax; /* -1: no token is allowed, or the logits are not finite */
    float mass;     /* p of a token is exp(score) / mass; scores outside the support are -inf */
};

struct raw_state { /* of a row of logits */
    float lse, entropy;
};

struct read_job {
    int32_t kind, raw, n; /* as struct readout */
    int32_t list0, f0, i0;
    int32_t logit, law_row; /* law_row -1: nothing PROCESSED is asked */
};

struct contrast_job {
    int32_t row, f0;          /* plan row, and where the result goes */
    int32_t bt_off, own_slot; /* its span's block table; the sequence slot that it writes */
};

struct readout_work {   /* owner: the caller, arrays included: [readouts of the plan] each; made for each step */
    int32_t *logit_row; /* plan rows whose logits are wanted, in order of first use */
    int32_t *raw_logit; /* rows of logits of which something is asked RAW */
    struct law_row *law_row;
    struct read_job *job;
    struct contrast_job *contrast;
    int32_t *hidden_row, *hidden_at; /* READ_HIDDEN to the host: as norm_args.row and out_at */
    int32_t *save_row, *save_to;     /* to the bank: as rows_save's from and to */
    int32_t n_logit, n_raw, n_law_row, n_job, n_contrast, n_hidden, n_save;
};

/* `map`: [2 * plan rows] scratch. */
void readout_work_make(const struct step_plan *p, int32_t *map, struct readout_work *w);
/* Where several ranks share the work: keeps what rank's it is. Every rank needs its part of the vocabulary of all
 * logit_row; rows readout_own_begin(n_logit, rank, n_rank) .. of them then become whole on the rank, which alone reads
 * them: `logit` counts from there. The `map` is any [n_law_row]. */
void readout_work_share(int32_t *map, int32_t rank, int32_t n_rank, struct readout_work *w);
int32_t readout_own_begin(int32_t n_logit, int32_t rank, int32_t n_rank); /* of rank n_rank: n_logit */

struct readout_args { /* the lists on the device, the plan's arrays there, and what is worked on */
    const int32_t *raw_logit;
    const struct law_row *law_row;
    const struct read_job *job;
    int32_t n_raw, n_law_row, n_job, n_vocab;
    const int32_t *tok, *ban, *list;
    const struct held_row *held;
    const struct law *law;
    const struct law_tok *law_tok;
    const uint32_t *mask;
    const float *logits;     /* [n_logit][n_vocab] */
    float *score;            /* [n_law_row][n_vocab] */
    struct law_state *state; /* [n_law_row] */
    struct raw_state *raw;   /* [n_logit] */
    float *f;                /* results, as struct step_result */
    int32_t *i;
};
void readouts_raw(const struct readout_args *a, struct CUstream_st *stream);
void readouts_law(const struct readout_args *a, struct CUstream_st *stream);
void readouts_read(const struct readout_args *a, struct CUstream_st *stream); /* after the two */

struct contrast_args {
    const struct contrast_job *job;
    const struct attn_row *row; /* of attn_work_make; a sliding window does not count */
    const int32_t *bt;
    const struct f16 *plane; /* [n_slot][n] unit vectors, rows_plane's */
    float *part;             /* [n_job][CONTRAST_PARTS] scratch */
    float *f;
    int32_t n_job, n, block_shift;
};
enum { CONTRAST_PARTS = 32 }; /* blocks of a job */
void readouts_contrast(const struct contrast_args *a, struct CUstream_st *stream);

#ifdef __cplusplus
}
#endif
#endif
