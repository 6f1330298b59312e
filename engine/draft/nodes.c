/* What trees of drafts have in common, wherever they come from. */
#include "draft/draft.h"

void draft_sort(struct draft *d, int16_t *place)
{
    struct draft sorted = *d;
    int16_t order[DRAFT_MAX];
    for (int32_t i = 0; i < d->n; i++) {
        int32_t at = i;
        for (; at > 0 && d->chance[order[at - 1]] < d->chance[i]; at--)
            order[at] = order[at - 1];
        order[at] = (int16_t)i;
    }
    for (int32_t i = 0; i < d->n; i++)
        place[order[i]] = (int16_t)i;
    for (int32_t i = 0; i < d->n; i++) {
        int32_t from = order[i];
        sorted.tok[i] = d->tok[from];
        sorted.chance[i] = d->chance[from];
        sorted.guess[i] = d->guess[from];
        sorted.parent[i] = d->parent[from] < 0 ? -1 : place[d->parent[from]];
    }
    *d = sorted;
}

bool draft_began_right(const struct draft *d, const struct history_text *t)
{
    int32_t came = d->n > 0 && d->n_text < t->n ? draft_child(d, -1, history_tok(t, d->n_text)) : -1;
    return came >= 0 && !(d->guess[came] & GUESS_LATER);
}

void draft_learn(const struct draft *d, const struct history_text *t, struct tree_rates *rates)
{
    for (int32_t node = -1, at = d->n_text; d->n > 0 && at < t->n; at++) {
        int32_t came = draft_child(d, node, history_tok(t, at));
        for (int32_t i = node + 1; i < d->n; i++) {
            struct accept_rates *r = d->guess[i] & GUESS_LATER ? &rates->later : &rates->first;
            if (d->parent[i] == node)
                accept_learn(r, d->guess[i] & ~GUESS_LATER, i == came);
        }
        if (came < 0)
            return;
        node = came;
    }
}
