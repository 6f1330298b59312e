/* A wave of drafting, between waves.c, which decides whom to ask and takes what they say, and wave_plan.c, which plans
 * the pass that asks them. Private to these two. */
#ifndef GALLEY_WAVE_H
#define GALLEY_WAVE_H

#include "draft_heap.h"
#include "draft_tree.h"

enum { MAX_UNIT = 1024 };

struct unit { /* a node to be expanded: the draft model reads its token and says what may follow */
    struct seq *seq;
    int32_t node;    /* of seq->modelled; -1: the sequence's last token */
    int32_t readout; /* in the wave's plan; -1: none */
    int32_t exit;    /* of the request's exits, the one that is asked */
};

struct wave { /* one step's drafting; owner: the engine thread */
    struct engine *eng;
    struct drafter *by;
    struct unit unit[MAX_UNIT]; /* a sequence's units stand together */
    struct unit next[MAX_UNIT];
    int32_t n;
    int32_t n_row, spare;     /* rows the target has, rows it can still take */
    double seconds, n_token;  /* what the step costs, but for prompts, and yields so far */
    int32_t n_asking, n_auto; /* sequences that would ask, and of them `auto`'s */
    const struct seq *trial;  /* is asked for though it is not expected to pay; NULL: none */
    uint32_t n_trial;         /* so far: all sequences have their turn */
    struct draft_heap heap;   /* the trees of DySpec */
};

/* Layers that are run to ask a unit. */
static inline int32_t unit_layers(const struct unit *u)
{
    const struct decoding_params *d = &u->seq->req->p.decoding;
    return u->seq->drafter->is_exit && d->exits.n ? d->exits.layer[u->exit] : u->seq->drafter->n_layer;
}

/* Units of one sequence from i on. */
static inline int32_t wave_run_length(const struct wave *w, int32_t i)
{
    int32_t n = 1;
    while (i + n < w->n && w->unit[i + n].seq == w->unit[i].seq)
        n++;
    return n;
}

/* Plans all that fit; those that find no place keep no readout. */
void wave_plan(struct wave *w);

#endif
