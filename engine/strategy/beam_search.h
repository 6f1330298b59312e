/* Beam search and Diverse Beam Search for a request: all its choices come from one search, which is a gang. The leader
 * computes the prompt; members are the beams. Private to engine/. */
#ifndef GALLEY_BEAM_SEARCH_H
#define GALLEY_BEAM_SEARCH_H

#include "beam_select.h"
#include "gang.h"

struct beam_node {       /* a token of the tree of all beams that ever were */
    int32_t parent, tok; /* parent -1: the prompt */
    float logprob;       /* of the law */
    int32_t rank, n_top;
};

struct beam_end { /* a text that has ended */
    double final, score, logprob;
    int32_t node, n_tok;
};

struct beam_search { /* owner: its request's arena */
    struct gang gang;
    int32_t width, n_group, list_len;
    int32_t n_beam[BEAM_MAX]; /* alive in each group; its beams are members group * (width / n_group) + i */
    int32_t node[BEAM_MAX];   /* a beam's last */
    double score[BEAM_MAX], logprob[BEAM_MAX]; /* with and without penalties */
    int32_t read_at[BEAM_MAX];                 /* this step's readout of a beam, -1: none; [0] the leader's at first */
    bool begun;
    struct seq *spare;       /* [width] what beams become, before they change places; [width]: a text
                                that may end */
    struct beam_node *tree;  /* [beam_tree_size] */
    struct top_logprob *top; /* [beam_tree_size][n_logprobs] */
    int32_t n_tree;
    struct beam_end end[BEAM_MAX]; /* a group's best, best first, at its members' places */
    int32_t n_end[BEAM_MAX];       /* of a group */
    bool over;                     /* only the choices are left to be said: */
    struct beam_end chosen[BEAM_MAX];
    int32_t n_chosen;
    int32_t *said; /* [max_tokens] tree nodes of the choice that is being said */
};

/* Nodes that a search can make: in each step as many as beams go on or end. */
static inline int32_t beam_tree_size(int32_t width, int32_t max_tokens)
{
    return 2 * width * max_tokens;
}

enum gang_news beam_gather(struct engine *eng, struct gang *g);
bool beam_token(const struct gang *g, int32_t text, int32_t i, struct sampled *out);

#endif
