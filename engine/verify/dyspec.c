#include "dyspec.h"

#include "err.h"

static bool before(const struct dyspec_item *a, const struct dyspec_item *b)
{
    if (a->value != b->value)
        return a->value > b->value;
    return a->tree != b->tree ? a->tree < b->tree : a->node < b->node;
}

static void swap(struct dyspec_item *a, struct dyspec_item *b)
{
    struct dyspec_item t = *a;
    *a = *b;
    *b = t;
}

void dyspec_push(struct dyspec *d, struct dyspec_item it)
{
    BUG_ON(d->n >= d->cap);
    int32_t i = d->n++;
    d->item[i] = it;
    for (; i > 0 && before(&d->item[i], &d->item[(i - 1) / 2]); i = (i - 1) / 2)
        swap(&d->item[i], &d->item[(i - 1) / 2]);
}

const struct dyspec_item *dyspec_top(const struct dyspec *d)
{
    return d->n > 0 ? &d->item[0] : NULL;
}

static struct dyspec_item pop(struct dyspec *d)
{
    BUG_ON(d->n < 1);
    struct dyspec_item top = d->item[0];
    d->item[0] = d->item[--d->n];
    for (int32_t i = 0;;) {
        int32_t best = i;
        for (int32_t child = 2 * i + 1; child <= 2 * i + 2; child++)
            if (child < d->n && before(&d->item[child], &d->item[best]))
                best = child;
        if (best == i)
            return top;
        swap(&d->item[i], &d->item[best]);
        i = best;
    }
}

void dyspec_drop(struct dyspec *d)
{
    pop(d);
}

int32_t dyspec_draw(struct dyspec *d, struct dyspec_row *row, int32_t child, const struct chance *c)
{
    struct draft_share share;
    struct dyspec_item it = pop(d);
    if (!draft_next(row->q, row->n_list, c, row->drawn, row->n_drawn, &share))
        return -1;
    int32_t edge = row->drawn[row->n_drawn++];
    if (share.left > 0)
        dyspec_push(d, (struct dyspec_item){.value = it.value * share.left, .tree = it.tree, .node = it.node});
    if (child >= 0)
        dyspec_push(d, (struct dyspec_item){.value = it.value * share.taken, .tree = it.tree, .node = child});
    return edge;
}

int32_t dyspec_fill(double value, double least, struct dyspec_row *row, int32_t room, double *child_value,
                    const struct chance *c)
{
    struct draft_share share;
    int32_t n = 0;
    while (value >= least && n < room && draft_next(row->q, row->n_list, c, row->drawn, row->n_drawn, &share)) {
        row->n_drawn++;
        child_value[n++] = value * share.taken;
        value *= share.left;
    }
    return n;
}
