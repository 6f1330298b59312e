#include "law.h"

#include <math.h>
#include <string.h>

#include "mem.h"
#include "truncate.h"
#include "vocab.h"

int law_ws_create(struct law_ws *ws, int32_t n_vocab, int32_t max_path, struct err *e)
{
    size_t v = (size_t)n_vocab, n_tile = (v + VOCAB_TILE - 1) / VOCAB_TILE;
    char *mem = mem_alloc((3 * v + n_tile) * sizeof(float) + (2 * v + 1 + (size_t)max_path) * sizeof(int32_t));
    if (!mem)
        return err_set(e, ERR_NOMEM, "out of memory: sampling workspace for %d tokens", n_vocab);
    *ws = (struct law_ws){.n_vocab = n_vocab, .max_path = max_path, .mem = mem};
    ws->score = (float *)mem;
    ws->p = ws->score + v;
    ws->key = ws->p + v;
    ws->tile_max = ws->key + v;
    ws->order = (int32_t *)(ws->tile_max + n_tile);
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

/* ---- The whole law ---- */

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

int32_t law_scores(const struct step_plan *p, const struct span *s, int32_t row, const float *logits, struct law_ws *ws)
{
    const struct law *l = &p->law[s->law];
    adjust(p, s, row, l, logits, ws);
    int32_t best = vocab_argmax(ws->score, ws->n_vocab);
    if (best < 0 || !isfinite(ws->score[best]))
        return -1;
    if (l->temperature == 0)
        return best;
    float top = ws->score[best], inv_t = fminf(1 / l->temperature, 1e30f);
    for (int32_t t = 0; t < ws->n_vocab; t++)
        ws->score[t] = (ws->score[t] - top) * inv_t;
    return best;
}

/* What is not among order[0 .. keep) gets no probability; returns the mass of what is. */
static double drop_others(struct law_ws *ws, int32_t keep)
{
    double mass = 0;
    for (int32_t i = 0; i < keep; i++) {
        ws->key[i] = ws->p[ws->order[i]];
        mass += ws->key[i];
    }
    memset(ws->p, 0, sizeof *ws->p * (size_t)ws->n_vocab);
    for (int32_t i = 0; i < keep; i++)
        ws->p[ws->order[i]] = ws->key[i];
    return mass;
}

void law_apply(const struct step_plan *p, const struct span *s, int32_t row, const float *logits, struct law_ws *ws,
               struct law_dist *out)
{
    const struct law *l = &p->law[s->law];
    *out = (struct law_dist){
        .p = ws->p, .score = ws->score, .support = ws->order, .argmax = law_scores(p, s, row, logits, ws)};
    out->n_vocab = ws->n_vocab;
    if (out->argmax < 0)
        return;
    if (l->temperature == 0) {
        one_hot(ws, out);
        return;
    }
    double mass = vocab_exp(ws->score, ws->p, ws->n_vocab);
    vocab_tiles(ws->score, ws->n_vocab, ws->tile_max);
    if (!law_truncates(l)) {
        out->n = vocab_above(ws->score, ws->tile_max, ws->n_vocab, VOCAB_EXP_LEAST, ws->order);
        vocab_scale(ws->p, ws->n_vocab, 1 / mass);
        return;
    }
    out->n = law_truncate(l, ws, mass);
    mass = drop_others(ws, out->n);
    for (int32_t i = 0; i < out->n; i++)
        ws->p[ws->order[i]] = (float)(ws->p[ws->order[i]] / mass);
}
