#include "draft_heap.h"

#include <string.h>

#include "draft_tree.h"
#include "strategy/verified.h"

void draft_heap_reset(struct draft_heap *h)
{
    h->heap = (struct dyspec){.item = h->item, .cap = ALLOT_MAX_BID + ALLOT_MAX_ROW};
    h->n_seq = h->left = 0;
}

void draft_heap_join(struct draft_heap *h, struct seq *s)
{
    int32_t share = s->req->p.decoding.tree.nodes;
    dyspec_push(&h->heap, (struct dyspec_item){.value = 1, .tree = h->n_seq, .node = -1});
    h->seq[h->n_seq++] = s;
    h->left = h->left + share < ALLOT_MAX_ROW ? h->left + share : ALLOT_MAX_ROW;
    s->verified->node[0].asked = true;
}

static struct drawn_node *node_of(const struct draft_heap *h, const struct dyspec_item *it)
{
    return &h->seq[it->tree]->verified->node[it->node + 1];
}

/* Nothing more can be drawn there: the draft model could not be asked, or there is no room. */
static bool is_closed(const struct draft_heap *h, const struct dyspec_item *it)
{
    const struct drawn_node *d = node_of(h, it);
    return (d->asked && d->n == 0) || d->n_drawn == VERIFIED_WIDTH || !tree_may_grow(h->seq[it->tree], it->node);
}

/* The top item's draw. */
static float draw_top(struct draft_heap *h, const struct dyspec_item *it)
{
    struct seq *s = h->seq[it->tree];
    struct drawn_node *d = node_of(h, it);
    struct dyspec_row row = {.q = d->q, .n_list = d->n, .drawn = d->drawn, .n_drawn = d->n_drawn};
    bool is_deepest = tree_depth(s, it->node) + 1 >= tree_shape(s).depth;
    int32_t node = it->node,
            edge = dyspec_draw(&h->heap, &row, is_deepest ? -1 : s->modelled.n, &s->verified->chance.chance);
    d->n_drawn = row.n_drawn;
    return edge < 0 ? -1 : tree_grow_drawn(s, node, edge);
}

int32_t draft_heap_spend(struct draft_heap *h, int32_t room, double *chance)
{
    int32_t n = 0;
    for (const struct dyspec_item *top; n < room && h->left > 0 && (top = dyspec_top(&h->heap));) {
        struct dyspec_item it = *top;
        if (is_closed(h, &it)) {
            dyspec_drop(&h->heap);
            continue;
        }
        if (!node_of(h, &it)->asked)
            break;
        float got = draw_top(h, &it);
        if (got < 0)
            continue;
        *chance += got;
        h->left--;
        n++;
    }
    return n;
}

int32_t draft_heap_wants(struct draft_heap *h, int32_t i, int32_t *node, int32_t cap)
{
    struct dyspec ahead = {.item = h->ahead, .n = h->heap.n, .cap = h->heap.cap};
    int32_t n = 0;
    memcpy(h->ahead, h->item, sizeof *h->item * (size_t)h->heap.n);
    for (int32_t k = 0; k < h->left && ahead.n > 0 && n < cap; k++) {
        struct dyspec_item it = *dyspec_top(&ahead);
        dyspec_drop(&ahead);
        if (it.tree != i || node_of(h, &it)->asked || is_closed(h, &it))
            continue;
        node_of(h, &it)->asked = true;
        node[n++] = it.node;
    }
    return n;
}
