/* Random steps of every kind on two back ends at once, of which one is proven by the other: what the tests of the cuda
 * back end on the fake runtime share. */
#ifndef GALLEY_CUDA_CASE_H
#define GALLEY_CUDA_CASE_H

#include "../unit/kernels/random_plan.h"

enum { CASE_VOCAB = 152, CASE_BLOCK = 16, CASE_BLOCKS = 40, CASE_SEQS = 3, CASE_SEQ_BLOCKS = 8, CASE_LAYERS = 3 };

struct case_config {
    int n_head, n_head_kv, head_dim, n_embd, n_ff, window, kv_type, type;
    uint32_t flags;
    int biases, tied;
    double tolerance;                     /* largest difference of a log-probability, as a share of the largest one */
    const struct tiny_features *features; /* NULL: none */
};

/* Mixtures of experts whose routes rounding does not change. */
extern const struct tiny_features case_mixtral, case_qwen;
/* The same with experts of several formats in a layer; of case_mixed_up, gate and up of some experts differ as well. */
extern const struct tiny_features case_mixed, case_mixed_up;

/* The same plans on both: the builders below add to two rigs what is drawn once. */
struct pair {
    struct rig got, want;
    struct tiny_model tiny;
};

/* Makes a random model and opens both rigs on it. */
void pair_open(struct pair *g, const struct case_config *c, struct rnd *rnd, const struct backend_ops *got,
               struct backend_options got_opt, const struct backend_ops *want);
void pair_close(struct pair *g);

/* ---- Plans ---- */

struct case_seq {
    int32_t bt[CASE_SEQ_BLOCKS], ctx_len, law;
};
void case_seqs(struct case_seq *seq); /* [CASE_SEQS] */

struct case_tree {
    int32_t tok[PLAN_MAX_TREE];
    int parent[PLAN_MAX_TREE], depth[PLAN_MAX_TREE]; /* tree bits; parent -1: what the tree hangs from */
    uint64_t vis[PLAN_MAX_TREE];
};
void case_tree_make(struct case_tree *t, struct rnd *r, int n);

enum { CASE_STEPS = 5 };
/* Step 0 .. CASE_STEPS - 1: chunks of prompts, a tree that is held and grows, decoding, a full span, moves. */
void case_step(struct rig *g, struct rnd *r, struct case_seq *seq, const struct case_tree *t, int step);
/* Step 0 .. CASE_LAYERS - 1: spans that run some of the layers, by way of the bank. */
void case_layers(struct rig *g, struct rnd *r, struct case_seq *seq, int step);

/* Builds the same on both rigs of a pair: `BODY` sees g, r and seq. */
#define ON_BOTH(pair, rnd, seqs, BODY)                                                                                 \
    do {                                                                                                               \
        struct case_seq both_seq[CASE_SEQS];                                                                           \
        struct rnd both_rnd = rnd, *r = &rnd;                                                                          \
        memcpy(both_seq, seqs, sizeof both_seq);                                                                       \
        struct rig *g = &(pair)->got;                                                                                  \
        struct case_seq *seq = seqs;                                                                                   \
        BODY;                                                                                                          \
        g = &(pair)->want;                                                                                             \
        r = &both_rnd;                                                                                                 \
        seq = both_seq;                                                                                                \
        BODY;                                                                                                          \
    } while (0)

/* ---- Comparing ---- */

struct worst {
    double by_kind[READ_HIDDEN + 1], top[READ_HIDDEN + 1];
    int n_draw, n_same;
};
/* Runs what both rigs have, and takes note of how far apart they are. No step may allocate. */
void pair_step(struct pair *g, struct worst *w);
/* Prints them, and fails where they are further than the tolerance. */
void check_worst(const struct worst *w, const struct case_config *c);

#endif
