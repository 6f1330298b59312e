#include "draft/draft.h"

static void add_row(const struct draft *d, int32_t node, int16_t *row_of, struct draft_rows *rows)
{
    int32_t r = rows->n++;
    int16_t parent = d->parent[node] < 0 ? -1 : row_of[d->parent[node]];
    row_of[node] = (int16_t)r;
    rows->tok[r] = d->tok[node];
    rows->node[r] = (int16_t)node;
    rows->parent[r] = parent;
    rows->depth[r] = (int16_t)(parent < 0 ? 0 : rows->depth[parent] + 1);
    rows->sees[r] = (parent < 0 ? 0 : rows->sees[parent]) | (uint64_t)1 << r;
    rows->is_chain &= parent == r - 1;
}

void draft_lay_out(const struct draft *d, int32_t n, struct draft_rows *rows)
{
    int16_t row_of[DRAFT_MAX];
    bool laid[DRAFT_MAX] = {false};
    rows->n = 0;
    rows->is_chain = true;
    for (int32_t i = 0, parent = -1; i < n; i++) /* the first child is the likeliest: nodes stand in order of chance */
        if (d->parent[i] == parent) {
            add_row(d, i, row_of, rows);
            laid[i] = true;
            parent = i;
        }
    for (int32_t i = 0; i < n; i++)
        if (!laid[i])
            add_row(d, i, row_of, rows);
}

int32_t draft_next_row(const struct draft_rows *rows, int32_t parent, int32_t tok)
{
    for (int32_t i = parent + 1; i < rows->n; i++)
        if (rows->parent[i] == parent && rows->tok[i] == tok)
            return i;
    return -1;
}
