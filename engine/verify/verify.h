/* Verification of drafts: which drafted tokens does the target keep, and what follows them? Pure functions in f64 over
 * what PROBE readouts return. Private to engine/: strategies that draft call verify_tree once a step. Narrow, because
 * here alone it is decided whether the text follows the target's law. Sections quoted are those of
 * papers/autoregressive.md.
 *
 * Rules for whoever drafts; break one and the law is wrong though every text still looks well.
 *
 * 1. A node's q is the law that its tokens were drawn from, after the draft's temperature, truncation and masks.
 *
 * 2. What is drawn stays drawn. Whether to draw once more may depend on anything drawn before, never on that draw. Rows
 * may be left out by token (a drawn token without a node ends the step where it is accepted); draws may not.
 *
 * 3. One tree, one answer: a node has one `draw`, whichever drafts pass through it.
 *
 * 4. `draw` or `draw_off` of the node where the step ends may be its last token, once, and nothing before has looked at
 * either. The exception is NSS, which walks by `draw`: once at each node of its path. Both come from noise streams of
 * their own, not those of acceptance and drafting. */
#ifndef GALLEY_VERIFY_H
#define GALLEY_VERIFY_H

#include <stdbool.h>
#include <stdint.h>

#include "chance.h"
#include "plan.h"

enum { VERIFY_MAX_NODE = PLAN_MAX_TREE + 1 };

/* How a tree's tokens were drafted. */
enum draft_law {
    DRAFT_FIXED,  /* any way at all: n-grams, top-k, even with the noise that will make `draw`; q is not needed */
    DRAFT_IID,    /* a node's tokens are independent draws from q, duplicates kept. For k drafted sequences: a node that
                     m of them reach has m draws, so `drawn` carries the multiplicity of section 4 */
    DRAFT_WOR,    /* without replacement: each from q less the tokens before it (RSD-C, RSD-S, DySpec; sections 6, 7);
                     independent draws less their duplicates are such draws too */
    DRAFT_GREEDY, /* the likeliest of q, and last one draw from the rest (section 5). `q` is the whole of it */
    DRAFT_CHAIN,  /* at most one draw at a node */
    N_DRAFT_LAW,
};

enum verify_kind {
    VERIFY_NSS,       /* draws the target's token and looks whether it was drafted. At temperature 0: exact match */
    VERIFY_NAIVE,     /* one speculative step with the first draw; the correction may be another draft */
    VERIFY_RRS,       /* recursive rejection sampling, with or without replacement as the draft law says (section 6) */
    VERIFY_KSEQ,      /* SpecTr (section 4) */
    VERIFY_GREEDY,    /* MDSD's verifier of greedy drafts (section 5) */
    VERIFY_BLOCK,     /* block verification of a chain (section 17) */
    VERIFY_TRAVERSAL, /* of a tree, from the leaves up (section 17) */
    N_VERIFY_KIND,
};

struct verify_node {     /* owner: the caller; of the token tree of one step */
    int32_t parent;      /* an earlier node; -1: the root, node 0, which stands for the committed context */
    int32_t edge;        /* index of this node's token in the parent's list. Drafted twice, a token is still one node */
    int32_t n_list;      /* 0 .. PLAN_MAX_LIST, as PROBE was asked */
    const int32_t *list; /* [n_list] distinct token ids; holds at least every token that q can draw */
    const float *p;      /* [n_list] the target's processed probability; with p_off it sums to 1, nearly */
    float p_off;         /* mass off the list */
    int32_t draw;        /* PROBE's draw from p over the whole vocabulary; -1: p allows nothing */
    int32_t draw_off;    /* PROBE's draw from p off the list; -1: no mass there */
    const double *q;     /* [n_list] the draft's law, 0 off the list, sums to 1, nearly; NULL: none (DRAFT_FIXED) */
    int32_t n_drawn;     /* 0: a leaf */
    const int16_t *drawn; /* [n_drawn] list indices in the order of drawing */
};

struct verify_tree {                /* owner: the caller */
    const struct verify_node *node; /* [n_node] parents first */
    int32_t n_node;                 /* 1 .. VERIFY_MAX_NODE */
    enum draft_law law;
};

struct verify_result {
    int32_t n_path, path[PLAN_MAX_TREE]; /* accepted nodes, from the root's child down */
    int32_t token; /* what follows them: correction or bonus. -1: there p allows nothing, as for SAMPLE */
};

/* The text that `kind` makes has the target's law for drafts of `law`. Section 17's table, and besides: naive is also
 * exact on drafts without replacement (its first draw comes from q, the others only decide where to go on), and every
 * verifier on a chain. */
bool verify_valid(enum verify_kind kind, enum draft_law law);

/* Names in requests: "nss" (or "exact"), "naive", "rrs" (or "rrsw"), "kseq", "greedy", "block", "traversal"; and
 * "fixed" (or "topk"), "iid", "wor", "greedy", "chain". -1: unknown. */
const char *verify_name(enum verify_kind kind);
int verify_kind_of(const char *name);
const char *draft_law_name(enum draft_law law);
int draft_law_of(const char *name);

/* The best verifier for drafts that exist (section 17). */
enum verify_kind verify_for(enum draft_law law);

struct verify_choice {
    enum draft_law law;
    enum verify_kind kind;
};

/* Section 17's recommended default. has_q: the drafter gives probabilities. max_branch: most children of a node. */
struct verify_choice verify_auto(float temperature, int32_t top_k, bool has_q, int32_t max_branch);

/* Parents first, indices in range, every child among its parent's draws and once, draws as the law has them. */
bool verify_well_formed(const struct verify_tree *t);

/* Settles one step. `kind` must be valid for t->law. p and q are renormalised here; values that are not finite count as
 * 0; where everything underflows, the token is `draw`. */
void verify_tree(enum verify_kind kind, const struct verify_tree *t, const struct chance *c, struct verify_result *out);

/* The greatest probability that any exact verifier can give to "the next token is one of the node's drafts", for
 * n_drawn drafts of the law: alpha* of section 5. For telemetry, spec_gap = alpha* - accepted; about 0.2 ms for three
 * or more draws without replacement from 128 tokens, far less otherwise. The mean over drafts, not given what was
 * drawn, except for DRAFT_FIXED and the fixed part of DRAFT_GREEDY. */
double verify_optimum(const struct verify_node *u, enum draft_law law);

#endif
