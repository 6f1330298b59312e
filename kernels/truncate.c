/* Which tokens the law's truncations leave: top-k, top-p and min-p on the sorted support, then typical-p, then top-h.
 */
#include "truncate.h"

#include <math.h>
#include <stdbool.h>

#include "vocab.h"

/* ---- Sorting as far as needed ---- */

/* Larger key first, lower id among equals: a total order, so every sort gives one result. */
static int before(const float *key, int32_t a, int32_t b)
{
    return key[a] > key[b] || (key[a] == key[b] && a < b);
}

static int32_t partition(const float *key, int32_t *v, int32_t lo, int32_t hi)
{
    int32_t mid = lo + (hi - lo) / 2, pivot = v[mid];
    v[mid] = v[hi - 1];
    int32_t at = lo;
    for (int32_t i = lo; i < hi - 1; i++)
        if (before(key, v[i], pivot)) {
            int32_t t = v[i];
            v[i] = v[at];
            v[at++] = t;
        }
    v[hi - 1] = v[at];
    v[at] = pivot;
    return at;
}

/* Incremental quicksort (Paredes and Navarro, "Optimal incremental sorting", ALENEX 2006): order[i] is right after the
 * i-th call, at O(n + k log k) for the first k of n. */
struct sorter {
    const float *key;
    int32_t *order, *stack, top; /* stack: ascending ends of what is still to sort, nearest on top */
};

static struct sorter sorter_begin(struct law_ws *ws, const float *key, int32_t n)
{
    ws->stack[0] = n;
    return (struct sorter){.key = key, .order = ws->order, .stack = ws->stack, .top = 1};
}

static int32_t sorter_next(struct sorter *s, int32_t i)
{
    while (s->stack[s->top - 1] != i)
        s->stack[s->top] = partition(s->key, s->order, i, s->stack[s->top - 1]), s->top++;
    s->top--;
    return s->order[i];
}

/* How many of the sorted prefix top-k, top-p and min-p leave. */
static int32_t truncate_sorted(const struct law *l, struct law_ws *ws, int32_t n, double mass)
{
    int32_t keep = l->top_k > 0 && l->top_k < n ? l->top_k : n;
    struct sorter st = sorter_begin(ws, ws->score, n);
    if (keep < n) {
        mass = 0;
        for (int32_t i = 0; i < keep; i++)
            mass += ws->p[sorter_next(&st, i)];
        st = sorter_begin(ws, ws->score, keep);
    }
    double need = l->top_p < 1 ? (double)l->top_p * mass : INFINITY, sum = 0;
    float floor_p = 0;
    for (int32_t i = 0; i < keep; i++) {
        float p = ws->p[sorter_next(&st, i)];
        if (i == 0)
            floor_p = l->min_p * p;
        else if (p < floor_p)
            return i;
        sum += p;
        if (sum >= need)
            return i + 1;
    }
    return keep;
}

/* Keeps the tokens whose surprise is nearest the entropy, until they hold typical_p of the mass. */
static int32_t truncate_typical(const struct law *l, struct law_ws *ws, int32_t n)
{
    double mass = 0, entropy = 0, sum = 0;
    for (int32_t i = 0; i < n; i++)
        mass += ws->p[ws->order[i]];
    for (int32_t i = 0; i < n; i++) {
        double q = ws->p[ws->order[i]] / mass;
        entropy -= q * log(q);
    }
    for (int32_t i = 0; i < n; i++) {
        int32_t t = ws->order[i];
        ws->key[t] = (float)-fabs(-log(ws->p[t] / mass) - entropy);
    }
    struct sorter st = sorter_begin(ws, ws->key, n);
    for (int32_t i = 0; i < n; i++) {
        sum += ws->p[sorter_next(&st, i)];
        if (sum >= (double)l->typical_p * mass)
            return i + 1;
    }
    return n;
}

/* Top-H (arXiv:2509.02510). PARTIAL: the released rule, partial sums of -p ln p over the top n. ENTROPY: the paper's
 * constraint, entropy of the renormalised prefix at most alpha times the whole entropy. The likeliest always stays. */
static int32_t truncate_top_h(const struct law *l, struct law_ws *ws, int32_t n)
{
    int32_t span = l->top_h_mode == TOP_H_PARTIAL && l->top_h_n < n ? l->top_h_n : n;
    struct sorter st = sorter_begin(ws, ws->score, n);
    double mass = 0, whole = 0, a = 0, b = 0;
    for (int32_t i = 0; i < span; i++)
        mass += ws->p[sorter_next(&st, i)];
    for (int32_t i = 0; i < span; i++) {
        double q = ws->p[ws->order[i]] / mass;
        whole -= q * log(q);
    }
    double limit = (double)l->top_h * whole + 1e-12; /* alpha 1 keeps all, whatever the rounding */
    for (int32_t i = 0; i < span; i++) {
        double q = ws->p[ws->order[i]] / mass;
        a += q;
        b += q * log(q);
        double entropy = l->top_h_mode == TOP_H_PARTIAL ? -b : log(a) - b / a;
        if (i > 0 && entropy > limit)
            return i;
    }
    return span;
}

/* ---- What need not be looked at ---- */

static bool cuts_sorted(const struct law *l)
{
    return l->top_k > 0 || l->top_p < 1 || l->min_p > 0;
}

bool law_truncates(const struct law *l)
{
    return l->temperature > 0 && (cuts_sorted(l) || l->typical_p < 1 || l->top_h > 0);
}

/* Whether top-k, top-p or min-p cuts among n tokens of mass `sum`, which are all those above `floor`. */
static bool decided(const struct law *l, int32_t n, double sum, float floor, double mass)
{
    if (l->top_k > 0 && n > l->top_k)
        return true;
    if (l->top_k > 0 && l->top_p < 1) /* top-p is of the mass of the top k */
        return false;
    return (l->top_p < 1 && sum >= (double)l->top_p * mass) || expf(floor) < 0.999f * l->min_p;
}

/* Lists in `order` the tokens above a floor, which is lowered until those below cannot matter. */
static int32_t candidates(const struct law *l, struct law_ws *ws, double mass)
{
    static const float floors[] = {-8, -16, -32};
    for (int f = 0; f < 3 && cuts_sorted(l); f++) {
        int32_t n = vocab_above(ws->score, ws->tile_max, ws->n_vocab, floors[f], ws->order);
        double sum = 0;
        for (int32_t i = 0; i < n; i++)
            sum += ws->p[ws->order[i]];
        if (decided(l, n, sum, floors[f], mass))
            return n;
    }
    return vocab_above(ws->score, ws->tile_max, ws->n_vocab, VOCAB_EXP_LEAST, ws->order);
}

int32_t law_truncate(const struct law *l, struct law_ws *ws, double mass)
{
    int32_t keep = candidates(l, ws, mass);
    if (cuts_sorted(l))
        keep = truncate_sorted(l, ws, keep, mass);
    if (l->typical_p < 1)
        keep = truncate_typical(l, ws, keep);
    if (l->top_h > 0)
        keep = truncate_top_h(l, ws, keep);
    return keep;
}
