/* A toy language model whose laws are known, token trees over it grown by the real draft laws, and a source of chance
 * that goes through every answer, so that the law of whole steps is computed, not estimated. */
#ifndef GALLEY_TEST_VERIFY_RIG_H
#define GALLEY_TEST_VERIFY_RIG_H

#include "verify/beam.h"
#include "verify/dyspec.h"
#include "verify/verify_impl.h"

enum { RIG_MAX_V = 50, RIG_MAX_CTX = 160, RIG_MAX_DRAWN = 8, RIG_MAX_SEQ = 256 };

/* ---- Random numbers of the tests themselves ---- */

struct rig_rand {
    uint64_t state;
};
struct rig_rand rig_rand_begin(const char *what, uint64_t fallback); /* GALLEY_SEED, else fallback; prints it */
double rig_unit(struct rig_rand *r);
int rig_int(struct rig_rand *r, int n); /* 0 .. n-1 */

/* ---- The model ---- */

struct rig_law {
    float p_all[RIG_MAX_V]; /* the target, multiples of 2^-16 that sum to exactly 1 */
    int32_t n_list, list[RIG_MAX_V];
    float p[RIG_MAX_V], p_off; /* what PROBE returns for the list */
    double q[RIG_MAX_V];       /* by list index */
};

struct rig_model {
    int n_vocab, n_ctx;
    struct rig_law law[RIG_MAX_CTX]; /* 0 is the empty context; c followed by token t is c * n_vocab + 1 + t */
};

/* Contexts beyond those that have laws of their own borrow one. */
static inline int rig_after(const struct rig_model *m, int ctx, int32_t token)
{
    return (ctx * m->n_vocab + 1 + token) % m->n_ctx;
}

/* Random p, and q halfway to it, over a list of n_list tokens in random order, for contexts of up to n_deep tokens.
 * Now and then p or q is 0 for a token. */
void rig_random(struct rig_model *m, struct rig_rand *r, int n_vocab, int n_list, int n_deep);
/* Sets p by token and q by token over the whole vocabulary. */
void rig_set(struct rig_model *m, int ctx, const double *p, const double *q);
/* Temperature 0. */
void rig_one_hot(struct rig_model *m, struct rig_rand *r, int n_deep);

/* ---- Trees ---- */

struct rig_growth {
    enum draft_law law;
    int n_level, branch[4]; /* draws at a node of depth 0 .. n_level - 1 */
    bool sequences;         /* IID: branch[0] sequences; a node has as many draws as sequences reach it */
    bool gumbel;            /* WOR: by Gumbel-top-k instead of one at a time */
    int n_dyspec, n_beam;   /* WOR: that many draws by value; or a stochastic beam of that width and depth n_level */
    bool real_draws;        /* `draw` is drawn from p at every node that has drafts, as NSS needs */
};

/* Two levels of two draws, a chain of three. */
struct rig_growth rig_tree_of(enum draft_law law);

struct rig_tree {
    struct verify_tree t;
    struct verify_node node[VERIFY_MAX_NODE];
    int16_t drawn[VERIFY_MAX_NODE][RIG_MAX_DRAWN];
    int ctx[VERIFY_MAX_NODE], depth[VERIFY_MAX_NODE];
};

void rig_grow(struct rig_tree *tree, const struct rig_model *m, int ctx, const struct rig_growth *g,
              const struct chance *c);

/* Draws that nothing may look at are these placeholders; where one comes out as the token, its whole law is known. */
enum { RIG_DRAW = 1000000, RIG_DRAW_OFF = 2000000 };
/* The law of the result's token, by token id: [n_vocab]. Fails the test when a placeholder is another node's. */
void rig_token_law(const struct rig_tree *tree, const struct rig_model *m, const struct verify_result *r, double *law);

/* ---- All answers of chance ---- */

enum { SCRIPT_MAX = 80 };
struct script {
    struct chance chance;
    double prob; /* of the run so far */
    int n, at;
    bool started;
    int32_t pick[SCRIPT_MAX], last[SCRIPT_MAX]; /* the answer given, the last possible answer */
    uint64_t possible[SCRIPT_MAX];
};
void script_begin(struct script *s);
/* Makes ready for the next run; false: all runs were made. */
bool script_next(struct script *s);

/* ---- Statistics ---- */

/* The value that chi-square with so many degrees of freedom exceeds with probability alpha (Wilson and Hilferty). */
double rig_chi_limit(int n_free, double alpha);
/* Sum of (count - n p)^2 / (n p); cells of p = 0 must be empty. n_free: cells with mass, less 1. */
double rig_chi_square(const long *count, const double *p, int n_cell, int *n_free);

/* ---- Whole steps ---- */

struct rig_sum {
    double mass, tokens, accepted; /* total probability; expected tokens and Pr(at least one draft kept) of a step */
    double error;                  /* largest |law - p| over sequences of the asked length */
    long n_run;
};

/* Grows, bends (may be NULL: for controls), verifies; the rest up to n_token tokens is drawn from p. */
struct rig_sum rig_enumerate(const struct rig_model *m, enum verify_kind kind, const struct rig_growth *g, int n_token,
                             void (*bend)(struct rig_tree *tree));
/* The same by real steps, one after another, until n_token tokens are there. */
struct rig_sum rig_enumerate_steps(const struct rig_model *m, enum verify_kind kind, const struct rig_growth *g,
                                   int n_token);

/* The whole probability is there, and the law is off by no more than 1e-12. */
void rig_expect(const struct rig_sum *s, enum verify_kind kind, enum draft_law law, const char *what);

/* A control: q at another temperature than was drawn from. */
void rig_wrong_q(struct rig_tree *tree);

#endif
