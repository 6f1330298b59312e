/* Shared by the verifiers of this folder and their tests, nobody else. */
#ifndef GALLEY_VERIFY_IMPL_H
#define GALLEY_VERIFY_IMPL_H

#include "verify.h"

/* What is left of one node's p and q after some of its drafts were rejected. Every verifier but NSS is made of these
 * few steps. All mass off the list is one more cell, on which q is 0: (a p - q)+ is then exact over the whole
 * vocabulary, and a token drawn from that cell is draw_off, whose law is p off the list. */
struct residual {
    const struct verify_node *node;
    double p[PLAN_MAX_LIST + 1]; /* [n_list + 1], the last for all tokens off the list; sums to 1, or all 0 */
    double q[PLAN_MAX_LIST + 1];
    double a;     /* the probability that a draft leading here is still to be accepted; 1 in verifiers from the top */
    bool touched; /* p is no longer the target's */
};

void residual_begin(struct residual *r, const struct verify_node *u, double a);
/* min(1, a p(x) / q(x)); 0 where q(x) is 0: such an x was not drawn from q. */
double residual_accept(const struct residual *r, int32_t x);
/* Draft x was rejected: p <- norm((a p - q)+), a <- s / (s + 1 - a) where s is what norm divides by; and q loses x if
 * drafts are drawn without replacement. */
void residual_reject(struct residual *r, int32_t x, bool without_replacement);
/* q <- norm(q but for x). */
void residual_exclude(struct residual *r, int32_t x);
/* A token id by what is left of p. */
int32_t residual_token(const struct residual *r, const struct chance *c);

/* The child of u with this token, -1: none. */
int32_t verify_child(const struct verify_tree *t, int32_t u, int32_t token);
/* Ends the step at node u: the path to it, and the token. */
void verify_end(const struct verify_tree *t, int32_t u, int32_t token, struct verify_result *out);

/* rho* of section 4 for k draws: the smallest divisor in [1, k] that leaves no residual negative. p, q: [n]. */
double kseq_rho(const double *p, const double *q, int32_t n, int32_t k);

void verify_topdown(enum verify_kind kind, const struct verify_tree *t, const struct chance *c,
                    struct verify_result *out);
void verify_block(const struct verify_tree *t, const struct chance *c, struct verify_result *out);
void verify_traversal(const struct verify_tree *t, const struct chance *c, struct verify_result *out);

#endif
