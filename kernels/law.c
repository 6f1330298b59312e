#include "law.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "mem.h"
#include "rng.h"

#define UNDERFLOW -104.0f /* expf is 0 from here down */

int law_ws_create(struct law_ws *ws, int32_t n_vocab, int32_t max_path, struct err *e)
{
    size_t v = (size_t)n_vocab;
    char *mem = mem_alloc(v * (3 * sizeof(float) + sizeof(int32_t)) + (v + 1 + (size_t)max_path) * sizeof(int32_t));
    if (!mem)
        return err_set(e, ERR_NOMEM, "out of memory: sampling workspace for %d tokens", n_vocab);
    *ws = (struct law_ws){.n_vocab = n_vocab, .max_path = max_path, .mem = mem};
    ws->score = (float *)mem;
    ws->p = ws->score + v;
    ws->key = ws->p + v;
    ws->order = (int32_t *)(ws->key + v);
    ws->stack = ws->order + v;
    ws->path = ws->stack + v + 1;
    return 0;
}

void law_ws_free(struct law_ws *ws)
{
    mem_free(ws->mem);
    *ws = (struct law_ws){0};
}

/* ---- Logits, biased, masked and penalised ---- */

/* Tokens that stand between what the law has counted and the row, the row's own included. */
static int32_t path_tokens(const struct step_plan *p, const struct span *s, int32_t row, int32_t *out, int32_t cap)
{
    int32_t n = 0, last = row - s->row0 < s->n_chain ? row - s->row0 : s->n_chain - 1;
    for (int32_t i = s->n_counted; i <= last && n < cap; i++)
        out[n++] = p->tok[s->row0 + i];
    for (uint64_t bits = p->vis[row]; bits && n < cap; bits &= bits - 1) {
        int b = __builtin_ctzll(bits);
        out[n++] = b < s->n_held ? p->held[s->held0 + b].tok : p->tok[s->row0 + s->n_chain + b - s->n_held];
    }
    return n;
}

static int32_t count_in(const int32_t *list, int32_t n, int32_t tok)
{
    int32_t count = 0;
    for (int32_t i = 0; i < n; i++)
        count += list[i] == tok;
    return count;
}

static float penalise(const struct law *l, float x, int32_t n_prompt, int32_t n_output)
{
    if (n_prompt + n_output > 0)
        x = x > 0 ? x / l->repetition : x * l->repetition;
    if (n_output > 0)
        x -= l->frequency * (float)n_output + l->presence;
    return x;
}

static const struct law_tok *find_tok(const struct law_tok *list, int32_t n, int32_t tok)
{
    int32_t lo = 0, hi = n;
    while (lo < hi) {
        int32_t mid = (lo + hi) / 2;
        if (list[mid].tok < tok)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo < n && list[lo].tok == tok ? &list[lo] : NULL;
}

static void apply_penalties(const struct step_plan *p, const struct span *s, int32_t row, const struct law *l,
                            struct law_ws *ws)
{
    if (l->repetition == 1 && l->frequency == 0 && l->presence == 0)
        return;
    const struct law_tok *list = p->law_tok + l->tok0;
    int32_t n_path = path_tokens(p, s, row, ws->path, ws->max_path);
    for (int32_t i = 0; i < l->n_tok; i++) {
        float *x = &ws->score[list[i].tok];
        *x = penalise(l, *x, list[i].n_prompt, list[i].n_output + count_in(ws->path, n_path, list[i].tok));
    }
    for (int32_t i = 0; i < n_path; i++) {
        int32_t tok = ws->path[i];
        if (tok >= 0 && !count_in(ws->path, i, tok) && !find_tok(list, l->n_tok, tok))
            ws->score[tok] = penalise(l, ws->score[tok], 0, count_in(ws->path, n_path, tok));
    }
}

static void apply_mask(const struct step_plan *p, int32_t mask, struct law_ws *ws)
{
    const uint32_t *bits = p->mask + (size_t)mask * (size_t)mask_words(ws->n_vocab);
    for (int32_t t = 0; t < ws->n_vocab; t++)
        if (!(bits[t >> 5] >> (t & 31) & 1))
            ws->score[t] = -INFINITY;
}

static void adjust(const struct step_plan *p, const struct span *s, int32_t row, const struct law *l,
                   const float *logits, struct law_ws *ws)
{
    memcpy(ws->score, logits, sizeof *logits * (size_t)ws->n_vocab);
    for (int32_t i = l->tok0; i < l->tok0 + l->n_tok; i++)
        ws->score[p->law_tok[i].tok] += p->law_tok[i].bias;
    if (p->row_mask[row] >= 0)
        apply_mask(p, p->row_mask[row], ws);
    for (int32_t i = l->ban0; i < l->ban0 + l->n_ban; i++)
        ws->score[p->ban[i]] = -INFINITY;
    apply_penalties(p, s, row, l, ws);
}

/* ---- Truncation ---- */

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

/* ---- The whole law ---- */

enum { LANES = 16, TILE = 64 };

/* The largest of n elements, NaN ignored; lanes that the compiler turns into vector registers. */
static float max_of(const float *x, int32_t n)
{
    float lane[LANES], top = -INFINITY;
    for (int k = 0; k < LANES; k++)
        lane[k] = -INFINITY;
    int32_t t = 0;
    for (; t + LANES <= n; t += LANES)
        for (int k = 0; k < LANES; k++)
            lane[k] = x[t + k] > lane[k] ? x[t + k] : lane[k];
    for (int k = 0; k < LANES; k++)
        top = lane[k] > top ? lane[k] : top;
    for (; t < n; t++)
        top = x[t] > top ? x[t] : top;
    return top;
}

/* The lowest id of the largest logit, -1 when none is above -inf. */
static int32_t argmax(const float *x, int32_t n)
{
    float top = max_of(x, n);
    for (int32_t t = 0; t < n && top > -INFINITY; t++)
        if (x[t] == top)
            return t;
    return -1;
}

static void one_hot(struct law_ws *ws, struct law_dist *out)
{
    for (int32_t t = 0; t < ws->n_vocab; t++)
        ws->score[t] = -INFINITY;
    memset(ws->p, 0, sizeof *ws->p * (size_t)ws->n_vocab);
    ws->score[out->argmax] = 0;
    ws->p[out->argmax] = 1;
    ws->order[0] = out->argmax;
    out->n = 1;
}

/* Scores: processed logits, shifted so that the largest is 0, and divided by the temperature. Returns the argmax, -1
 * when no token is allowed or the logits are not finite. */
static int32_t scores(const struct step_plan *p, const struct span *s, int32_t row, const struct law *l,
                      const float *logits, struct law_ws *ws)
{
    adjust(p, s, row, l, logits, ws);
    int32_t best = argmax(ws->score, ws->n_vocab);
    if (best < 0 || !isfinite(ws->score[best]))
        return -1;
    if (l->temperature == 0)
        return best;
    float top = ws->score[best], inv_t = fminf(1 / l->temperature, 1e30f);
    for (int32_t t = 0; t < ws->n_vocab; t++)
        ws->score[t] = (ws->score[t] - top) * inv_t;
    return best;
}

void law_apply(const struct step_plan *p, const struct span *s, int32_t row, const float *logits, struct law_ws *ws,
               struct law_dist *out)
{
    const struct law *l = &p->law[s->law];
    *out = (struct law_dist){
        .p = ws->p, .score = ws->score, .support = ws->order, .argmax = scores(p, s, row, l, logits, ws)};
    if (out->argmax < 0)
        return;
    if (l->temperature == 0) {
        one_hot(ws, out);
        return;
    }

    int32_t n = 0;
    double mass = 0;
    for (int32_t t = 0; t < ws->n_vocab; t++) {
        ws->p[t] = ws->score[t] > UNDERFLOW ? expf(ws->score[t]) : 0; /* NaN compares false */
        if (ws->p[t] > 0) {
            ws->order[n++] = t;
            mass += ws->p[t];
        }
    }
    int32_t keep = n;
    if (l->top_k > 0 || l->top_p < 1 || l->min_p > 0)
        keep = truncate_sorted(l, ws, n, mass);
    if (l->typical_p < 1)
        keep = truncate_typical(l, ws, keep);
    if (l->top_h > 0)
        keep = truncate_top_h(l, ws, keep);

    if (keep < n) {
        for (int32_t i = keep; i < n; i++)
            ws->p[ws->order[i]] = 0;
        mass = 0;
        for (int32_t i = 0; i < keep; i++)
            mass += ws->p[ws->order[i]];
    }
    for (int32_t i = 0; i < keep; i++)
        ws->p[ws->order[i]] = (float)(ws->p[ws->order[i]] / mass);
    out->n = keep;
}

/* ---- Draws ---- */

struct draw { /* the running argmax of score + noise */
    const struct law *law;
    uint32_t position, stream;
    uint32_t group, noise[4]; /* noise of tokens 4 * group .. + 3 */
    int32_t best;
    float value;
};

static struct draw draw_begin(const struct law *l, int32_t position, enum noise_stream stream)
{
    return (struct draw){.law = l,
                         .position = (uint32_t)position,
                         .stream = (uint32_t)stream,
                         .group = UINT32_MAX,
                         .best = -1,
                         .value = -INFINITY};
}

static void draw_offer(struct draw *d, int32_t t, float score)
{
    if (score + RNG_GUMBEL_MAX < d->value)
        return; /* no noise can lift it */
    if ((uint32_t)t >> 2 != d->group) {
        d->group = (uint32_t)t >> 2;
        rng_philox(d->law->noise_key, (uint32_t[4]){d->group, d->position, d->stream, 0}, d->noise);
    }
    float value = score + rng_gumbel(d->noise[t & 3]);
    if (value > d->value || (value == d->value && t < d->best)) {
        d->best = t;
        d->value = value;
    }
}

static bool is_skipped(const uint32_t *skip, int32_t t)
{
    return skip && (skip[t >> 5] >> (t & 31) & 1);
}

int32_t law_draw(const struct law_dist *d, const struct law *l, int32_t position, enum noise_stream stream,
                 const uint32_t *skip)
{
    struct draw draw = draw_begin(l, position, stream);
    if (d->n > 0 && d->p[d->argmax] > 0 && !is_skipped(skip, d->argmax))
        draw_offer(&draw, d->argmax, d->score[d->argmax]); /* first: it rules most others out */
    for (int32_t i = 0; i < d->n; i++)
        if (!is_skipped(skip, d->support[i]) && d->support[i] != d->argmax)
            draw_offer(&draw, d->support[i], d->score[d->support[i]]);
    return draw.best;
}

int32_t law_sample(const struct step_plan *p, const struct span *s, int32_t row, const float *logits, struct law_ws *ws)
{
    const struct law *l = &p->law[s->law];
    int32_t position = p->pos[row] + 1;
    bool truncates = l->top_k > 0 || l->top_p < 1 || l->min_p > 0 || l->typical_p < 1 || l->top_h > 0;
    if (truncates && l->temperature > 0) {
        struct law_dist d;
        law_apply(p, s, row, logits, ws, &d);
        return law_draw(&d, l, position, NOISE_TARGET, NULL);
    }
    int32_t best = scores(p, s, row, l, logits, ws);
    if (best < 0 || l->temperature == 0)
        return best;
    struct draw draw = draw_begin(l, position, NOISE_TARGET);
    draw_offer(&draw, best, ws->score[best]);
    for (int32_t at = 0; at < ws->n_vocab; at += TILE) {
        int32_t end = at + TILE < ws->n_vocab ? at + TILE : ws->n_vocab;
        if (max_of(ws->score + at, end - at) + RNG_GUMBEL_MAX < draw.value)
            continue;
        for (int32_t t = at; t < end; t++)
            if (t != best && ws->score[t] > UNDERFLOW)
                draw_offer(&draw, t, ws->score[t]);
    }
    return draw.best;
}

double law_logsumexp(const float *logits, int32_t n_vocab)
{
    int32_t at = argmax(logits, n_vocab);
    if (at < 0)
        return -INFINITY;
    double sum = 0;
    for (int32_t t = 0; t < n_vocab; t++)
        if (logits[t] > logits[at] + UNDERFLOW)
            sum += expf(logits[t] - logits[at]);
    return logits[at] + log(sum);
}
