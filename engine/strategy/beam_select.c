#include "beam_select.h"

#include <math.h>

static bool better(const struct beam_pick *a, const struct beam_pick *b)
{
    if (a->score != b->score)
        return a->score > b->score;
    return a->beam != b->beam ? a->beam < b->beam : a->tok < b->tok;
}

/* Keeps out[] sorted; returns how many it holds then. */
static int32_t insert(struct beam_pick *out, int32_t n, int32_t n_want, const struct beam_pick *p)
{
    int32_t at = n < n_want ? n : n_want - 1;
    if (n == n_want && !better(p, &out[at]))
        return n;
    for (; at > 0 && better(p, &out[at - 1]); at--)
        out[at] = out[at - 1];
    out[at] = *p;
    return n < n_want ? n + 1 : n;
}

int32_t beam_best(const struct beam_list *beam, int32_t n_beam, const int32_t *used, int32_t n_used, double diversity,
                  int32_t n_want, struct beam_pick *out)
{
    int32_t n = 0;
    for (int32_t b = 0; b < n_beam; b++)
        for (int32_t i = 0; i < beam[b].n; i++) {
            int32_t times = 0;
            for (int32_t u = 0; u < n_used; u++)
                times += used[u] == beam[b].tok[i];
            struct beam_pick p = {.beam = b,
                                  .tok = beam[b].tok[i],
                                  .score = beam[b].score + beam[b].logprob[i] - diversity * times,
                                  .logprob = beam[b].logprob[i],
                                  .rank = i};
            n = insert(out, n, n_want, &p);
        }
    return n;
}

double beam_final_score(double score, int32_t n_tok, float length_penalty)
{
    return score / pow(n_tok, length_penalty);
}
