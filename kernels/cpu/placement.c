#include "placement.h"

struct deck {
    const struct topology *t;
    int16_t level[MAX_CPU]; /* of each processor: how many of its core stand before it */
    int16_t load[MAX_CPU];  /* workers it has been dealt */
    int32_t n_node, node_id[MAX_NODE];
};

static void deck_make(struct deck *d, const struct topology *t)
{
    d->t = t;
    d->n_node = 0;
    for (int32_t i = 0; i < t->n_cpu; i++) {
        d->level[i] = d->load[i] = 0;
        for (int32_t j = 0; j < i; j++)
            d->level[i] = (int16_t)(d->level[i] + (t->cpu[j].core == t->cpu[i].core));
    }
    for (int32_t node = 0; node < MAX_NODE; node++)
        for (int32_t i = 0; i < t->n_cpu; i++)
            if (t->cpu[i].node == node) {
                d->node_id[d->n_node++] = node;
                break;
            }
}

/* Processors of a level, on one node or (-1) on all. */
static int32_t level_size(const struct deck *d, int32_t level, int32_t node_id)
{
    int32_t n = 0;
    for (int32_t i = 0; i < d->t->n_cpu; i++)
        n += d->level[i] == level && (node_id < 0 || d->t->cpu[i].node == node_id);
    return n;
}

static void load_cpus(struct deck *d, int32_t level, int32_t node_id, int32_t n)
{
    for (int32_t i = 0; i < d->t->n_cpu && n > 0; i++)
        if (d->level[i] == level && d->t->cpu[i].node == node_id) {
            d->load[i]++;
            n--;
        }
}

/* How many of n go to the first `to` of `of`, when the odd ones go to the first. */
static int32_t portion(int32_t n, int32_t to, int32_t of)
{
    return (int32_t)(((int64_t)n * to + of - 1) / of);
}

/* n, at most all = the level's size, in proportion to what the nodes have of it. */
static void deal_level(struct deck *d, int32_t level, int32_t n, int32_t all)
{
    for (int32_t k = 0, before = 0, after; k < d->n_node; k++, before = after) {
        after = before + level_size(d, level, d->node_id[k]);
        load_cpus(d, level, d->node_id[k], portion(n, after, all) - portion(n, before, all));
    }
}

static void deal(struct deck *d, int32_t n)
{
    for (int32_t level = 0, size; n > 0; level++) {
        size = level_size(d, level, -1);
        if (!size) { /* all have been dealt: once more */
            level = -1;
            continue;
        }
        int32_t now = n < size ? n : size;
        deal_level(d, level, now, size);
        n -= now;
    }
}

/* A node's workers in the order in which its processors were dealt. */
static int32_t seat_workers(const struct deck *d, int32_t node_id, int32_t at, int32_t end, int32_t *cpu)
{
    for (int32_t round = 0; at < end; round++) {
        int32_t before = at;
        for (int32_t level = 0; level_size(d, level, -1); level++)
            for (int32_t i = 0; i < d->t->n_cpu; i++)
                if (d->level[i] == level && d->t->cpu[i].node == node_id && d->load[i] > round)
                    cpu[at++] = d->t->cpu[i].cpu;
        if (at == before)
            break;
    }
    return at;
}

void placement_make(struct placement *p, const struct topology *t, int32_t n_worker)
{
    struct deck d;
    deck_make(&d, t);
    deal(&d, n_worker);
    p->n_worker = n_worker;
    p->n_node = 0;
    p->first[0] = 0;
    for (int32_t k = 0, at = 0; k < d.n_node; k++) {
        at = seat_workers(&d, d.node_id[k], at, n_worker, p->cpu);
        if (at > p->first[p->n_node]) {
            p->node_id[p->n_node++] = d.node_id[k];
            p->first[p->n_node] = at;
        }
    }
}

void placement_ignore_nodes(struct placement *p)
{
    p->n_node = 1;
    p->first[1] = p->n_worker;
}

int32_t placement_node(const struct placement *p, int32_t worker)
{
    int32_t k = 0;
    while (worker >= p->first[k + 1])
        k++;
    return k;
}

static int32_t share_begin(const struct placement *p, int32_t n, int32_t unit, int32_t k)
{
    if (k == p->n_node)
        return n;
    return (int32_t)((int64_t)n * p->first[k] / p->n_worker / unit * unit);
}

void placement_share(const struct placement *p, int32_t n, int32_t unit, int32_t k, int32_t *first, int32_t *end)
{
    *first = share_begin(p, n, unit, k);
    *end = share_begin(p, n, unit, k + 1);
}
