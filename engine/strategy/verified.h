/* Speculation with a verifier asked for by name: drafts are drawn from the draft model's law and settled against the
 * target's. The law is kept, the seed's text is not: it depends on what was drafted. Private to engine/. */
#ifndef GALLEY_VERIFIED_H
#define GALLEY_VERIFIED_H

#include "draft/draft.h"
#include "engine.h"
#include "plan.h"
#include "verify/chance.h"
#include "verify/verify.h"

struct engine;
struct seq;

enum {
    VERIFIED_LIST = 16,
    VERIFIED_WIDTH = 8
}; /* the support of q: the draft model's likeliest tokens, renormalised */

struct drawn_node { /* what the draft model says after a node, and what was drawn from it */
    bool asked;     /* DySpec: it said so, or was to */
    int32_t n, tok[VERIFIED_LIST];
    double q[VERIFIED_LIST];
    int32_t n_drawn;
    int16_t drawn[VERIFIED_WIDTH];
};

struct verified { /* owner: its sequence, when the request names a verifier */
    enum verify_kind kind;
    enum draft_law law;
    enum decode_sampling sampling;
    double threshold; /* DySpec: draws worth less are not made; 0: one budget for all (draft_heap.h) */
    struct chance_philox chance;           /* of this step's drafts */
    struct drawn_node node[DRAFT_MAX + 1]; /* the root, then the nodes of the sequence's tree */
    struct path_value {
        double phi, psi; /* SBS: ln q of the path, and the same perturbed */
        double value;    /* DySpec by threshold: the draft's estimate that the node is reached */
    } path[DRAFT_MAX + 1];
};

struct drawn_child {
    int32_t node, tok; /* the node it hangs on */
    double p;          /* of the draft model's law */
    struct path_value path;
};

/* A new tree begins. */
void verified_restart(struct seq *s);
/* Draws the children of a node (-1: the root) of seq->modelled, at most `width`, from its likeliest tokens. drawn[]
 * receives the distinct ones, in order; returns how many. */
int32_t verified_draw(struct seq *s, int32_t node, const int32_t *tok, const float *logprob, int32_t width,
                      int32_t *drawn);

/* DySpec without a threshold: trees that grow from one heap with all others. */
static inline bool verified_shares(const struct verified *v)
{
    return v && v->sampling == DECODE_SAMPLING_DYSPEC && v->threshold == 0;
}

/* SBS, and DySpec by threshold, draw a depth of the tree at once, from what verified_read was told of its n nodes (in
 * order): at most `room` tokens. Returns how many, in the order of their nodes and draws. */
static inline bool verified_is_joint(const struct verified *v)
{
    return v && v->sampling >= DECODE_SAMPLING_SBS && !verified_shares(v);
}
void verified_read(struct seq *s, int32_t node, const int32_t *tok, const float *logprob);
int32_t verified_draw_depth(struct seq *s, const int32_t *node, int32_t n, int32_t width, int32_t room,
                            struct drawn_child *out);

/* Readouts for the last decided token and every drafted row, which are plan rows row0, row0 + 1, ... */
int verified_plan(struct seq *s, struct step_plan *p, int32_t row0);
/* Settles the step from those readouts, at0 and on; accepts tokens, may finish the sequence. */
void verified_settle(struct engine *eng, struct seq *s, const struct step_plan *p, const struct step_result *r,
                     int32_t at0);

#endif
