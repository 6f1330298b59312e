#include "readout.h"

#include <math.h>
#include <string.h>

#include "mem.h"
#include "vocab.h"

int readout_ws_create(struct readout_ws *ws, int32_t n_vocab, int32_t max_path, struct err *e)
{
    *ws = (struct readout_ws){.law_row = -1, .lse_row = -1};
    int rc = law_ws_create(&ws->law, n_vocab, max_path, e);
    if (rc)
        return rc;
    ws->skip = mem_calloc((size_t)mask_words(n_vocab), sizeof *ws->skip);
    if (ws->skip)
        return 0;
    readout_ws_free(ws);
    return err_set(e, ERR_NOMEM, "out of memory: readout workspace");
}

void readout_ws_free(struct readout_ws *ws)
{
    law_ws_free(&ws->law);
    mem_free(ws->skip);
    ws->skip = NULL;
}

void readout_begin(struct readout_ws *ws)
{
    ws->law_row = ws->lse_row = -1;
}

const struct span *plan_span_of(const struct step_plan *p, int32_t row)
{
    int lo = 0, hi = p->n.n_span - 1;
    while (lo < hi) {
        int mid = (lo + hi + 1) / 2;
        if (p->span[mid].row0 <= row)
            lo = mid;
        else
            hi = mid - 1;
    }
    return &p->span[lo];
}

static double raw_lse(struct readout_ws *ws, int32_t row, const float *logits)
{
    if (ws->lse_row != row) {
        float top = vocab_max(logits, ws->law.n_vocab);
        struct vocab_moments m = vocab_moments(logits, top, ws->law.n_vocab);
        ws->lse = top > -INFINITY ? top + log(m.sum) : -INFINITY;
        ws->entropy = log(m.sum) - m.dot / m.sum;
        ws->lse_row = row;
    }
    return ws->lse;
}

static const struct law_dist *processed(const struct step_plan *p, const struct span *s, int32_t row,
                                        const float *logits, struct readout_ws *ws)
{
    if (ws->law_row != row) {
        law_apply(p, s, row, logits, &ws->law, &ws->dist);
        ws->law_row = row;
    }
    return &ws->dist;
}

static void read_sample(const struct step_plan *p, const struct span *s, const struct readout *r, const float *logits,
                        struct readout_ws *ws, float *f, int32_t *i)
{
    f[0] = f[1] = 0;
    i[1] = 0;
    if (r->n == 0 && ws->law_row != r->row) { /* the token alone: p need not be known */
        i[0] = law_sample(p, s, r->row, logits, &ws->law);
        ws->law_row = -1;
        return;
    }
    const struct law_dist *d = processed(p, s, r->row, logits, ws);
    i[0] = law_draw(d, &p->law[s->law], p->pos[r->row] + 1, NOISE_TARGET, NULL);
    if (i[0] >= 0 && r->n == 1) {
        f[0] = logf(d->p[i[0]]);
        f[1] = (float)(logits[i[0]] - raw_lse(ws, r->row, logits));
        i[1] = vocab_count_above(logits, ws->law.n_vocab, logits[i[0]]);
    }
}

/* The k largest of x, by insertion into a sorted list: k is small, and most tiles have nothing above the last. */
static int32_t top_k(const float *x, int32_t n, int32_t k, int32_t *out)
{
    int32_t got = 0;
    for (int32_t at = 0; at < n; at += VOCAB_TILE) {
        int32_t end = at + VOCAB_TILE < n ? at + VOCAB_TILE : n;
        if (got == k && !(vocab_max(x + at, end - at) > x[out[k - 1]]))
            continue;
        for (int32_t t = at; t < end; t++) {
            if (!(x[t] > -INFINITY) || (got == k && !(x[t] > x[out[k - 1]])))
                continue;
            int32_t to = got < k ? got++ : k - 1;
            for (; to > 0 && x[t] > x[out[to - 1]]; to--)
                out[to] = out[to - 1];
            out[to] = t;
        }
    }
    return got;
}

static void read_topk(const struct step_plan *p, const struct span *s, const struct readout *r, const float *logits,
                      struct readout_ws *ws, float *f, int32_t *i)
{
    int32_t n_vocab = ws->law.n_vocab, got;
    if (r->raw) {
        double lse = raw_lse(ws, r->row, logits);
        got = top_k(logits, n_vocab, r->n, i);
        for (int32_t j = 0; j < got; j++)
            f[j] = (float)(logits[i[j]] - lse);
        f[r->n] = (float)lse;
        f[r->n + 1] = (float)ws->entropy;
    } else {
        const struct law_dist *d = processed(p, s, r->row, logits, ws);
        double entropy = 0;
        got = d->n ? top_k(d->p, n_vocab, r->n, i) : 0;
        while (got > 0 && d->p[i[got - 1]] <= 0)
            got--;
        for (int32_t j = 0; j < got; j++)
            f[j] = logf(d->p[i[j]]);
        for (int32_t j = 0; j < d->n; j++)
            entropy -= (double)d->p[d->support[j]] * log(d->p[d->support[j]]);
        f[r->n] = 0;
        f[r->n + 1] = (float)entropy;
    }
    for (int32_t j = got; j < r->n; j++) {
        i[j] = -1;
        f[j] = -INFINITY;
    }
}

static void read_logprob(const struct step_plan *p, const struct span *s, const struct readout *r, const float *logits,
                         struct readout_ws *ws, float *f, int32_t *i)
{
    const int32_t *list = p->list + r->list0;
    const struct law_dist *d = r->raw ? NULL : processed(p, s, r->row, logits, ws);
    for (int32_t j = 0; j < r->n; j++) {
        if (d && !d->n) {
            f[j] = -INFINITY;
            i[j] = 0;
            continue;
        }
        const float *x = d ? d->p : logits;
        f[j] = d ? logf(x[list[j]]) : (float)(logits[list[j]] - raw_lse(ws, r->row, logits));
        i[j] = vocab_count_above(x, ws->law.n_vocab, x[list[j]]);
    }
}

/* Summed over the tokens themselves: 1 - (mass on the list) would cancel. listed[i] is p of list[i]. */
static double mass_off_list(struct readout_ws *ws, const float *listed, const int32_t *list, int32_t n)
{
    float *p = ws->law.p;
    if (!ws->dist.n)
        return 0;
    for (int32_t i = 0; i < n; i++)
        p[list[i]] = 0;
    double mass = vocab_sum(p, ws->law.n_vocab);
    for (int32_t i = 0; i < n; i++)
        p[list[i]] = listed[i];
    return mass;
}

static void read_probe(const struct step_plan *p, const struct span *s, const struct readout *r, const float *logits,
                       struct readout_ws *ws, float *f, int32_t *i)
{
    const struct law_dist *d = processed(p, s, r->row, logits, ws);
    const struct law *l = &p->law[s->law];
    const int32_t *list = p->list + r->list0;
    int32_t position = p->pos[r->row] + 1;
    for (int32_t j = 0; j < r->n; j++) {
        f[j] = d->n ? d->p[list[j]] : 0;
        ws->skip[list[j] >> 5] |= 1u << (list[j] & 31);
    }
    f[r->n] = (float)mass_off_list(ws, f, list, r->n);
    i[0] = law_draw(d, l, position, NOISE_TARGET, NULL);
    i[1] = law_draw(d, l, position, NOISE_OFF_LIST, ws->skip);
    for (int32_t j = 0; j < r->n; j++)
        ws->skip[list[j] >> 5] = 0;
    for (int32_t j = 0; r->raw && j < r->n + 2; j++) {
        int32_t tok = j < r->n ? list[j] : i[j - r->n];
        f[r->n + 1 + j] = tok < 0 ? 0 : (float)(logits[tok] - raw_lse(ws, r->row, logits));
        i[2 + j] = tok < 0 ? 0 : vocab_count_above(logits, ws->law.n_vocab, logits[tok]);
    }
}

void readout_logits(const struct step_plan *p, const struct span *s, const struct readout *r, const float *logits,
                    struct readout_ws *ws, struct step_result *out)
{
    float *f = out->f + r->f0;
    int32_t *i = out->i + r->i0;
    switch ((enum readout_kind)r->kind) {
    case READ_SAMPLE:
        read_sample(p, s, r, logits, ws, f, i);
        return;
    case READ_TOPK:
        read_topk(p, s, r, logits, ws, f, i);
        return;
    case READ_LOGPROB:
        read_logprob(p, s, r, logits, ws, f, i);
        return;
    case READ_PROBE:
        read_probe(p, s, r, logits, ws, f, i);
        return;
    case READ_CONTRAST:
    case READ_HIDDEN:
        break;
    }
    BUG_ON("a readout that needs no logits");
}
