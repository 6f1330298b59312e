/* Proof that a plan is well formed. Everything a back end would otherwise have to distrust is decided here, once. */
#include "plan.h"

#include <math.h>

#define FAIL(...) return err_set(e, ERR_INVALID, __VA_ARGS__)

static int in_range(int64_t at, int64_t n, int64_t size)
{
    return at >= 0 && n >= 0 && at + n <= size;
}

static int check_mix(const struct step_plan *p, const struct plan_env *env, int32_t i, struct err *e)
{
    if (i < 0 || i >= p->n.n_mix)
        FAIL("mix %d is not in the plan", i);
    const struct mix *m = &p->mix[i];
    if (m->n_part < 1 || !in_range(m->part0, m->n_part, p->n.n_part))
        FAIL("mix %d: parts out of range", i);
    int32_t n_src = m->from_bank ? env->n_bank : env->n_vocab;
    for (int j = m->part0; j < m->part0 + m->n_part; j++)
        if (p->part[j].src < 0 || p->part[j].src >= n_src || !isfinite(p->part[j].weight))
            FAIL("mix %d: source %d is not below %d, or its weight is not finite", i, p->part[j].src, n_src);
    return 0;
}

/* Visibility and depth of every held row, from their parents. */
static int check_held(const struct step_plan *p, const struct plan_env *env, const struct span *s, int si,
                      uint64_t *vis, int32_t *pos, struct err *e)
{
    for (int j = 0; j < s->n_held; j++) {
        const struct held_row *h = &p->held[s->held0 + j];
        int up = PARENT_HELD(h->parent);
        if (h->tok < 0 || h->tok >= env->n_vocab)
            FAIL("span %d: held row %d: token %d out of range", si, j, h->tok);
        if (h->parent != PARENT_CTX && (up < 0 || up >= j))
            FAIL("span %d: held row %d: parent %d is no earlier held row", si, j, h->parent);
        vis[j] = (h->parent == PARENT_CTX ? 0 : vis[up]) | (uint64_t)1 << j;
        pos[j] = h->parent == PARENT_CTX ? s->ctx_len : pos[up] + 1;
    }
    return 0;
}

static int check_row(const struct step_plan *p, const struct plan_env *env, const struct span *s, int si, int i,
                     const uint64_t *held_vis, const int32_t *held_pos, struct err *e)
{
    int r = s->row0 + i;
    int16_t parent = p->parent[r];
    if (p->tok[r] >= env->n_vocab)
        FAIL("span %d row %d: token %d is not below %d", si, i, p->tok[r], env->n_vocab);
    if (p->tok[r] < 0) {
        int rc = check_mix(p, env, ROW_MIX(p->tok[r]), e);
        if (rc)
            return rc;
    }
    if (s->layer0 > 0 && (p->tok[r] >= 0 || !p->mix[ROW_MIX(p->tok[r])].from_bank))
        FAIL("span %d row %d: a span that begins at layer %d takes its inputs from the bank", si, i, s->layer0);
    if (p->row_mask[r] < -1 || p->row_mask[r] >= p->n.n_mask)
        FAIL("span %d row %d: mask %d is not in the plan", si, i, p->row_mask[r]);

    if (i < s->n_chain) {
        if (parent != i - 1) /* PARENT_CTX for the first */
            FAIL("span %d row %d: a chain row's parent is the row before it, not %d", si, i, parent);
        if (p->pos[r] != s->ctx_len + i || p->vis[r])
            FAIL("span %d row %d: chain row at position %d with vis %#llx", si, i, p->pos[r],
                 (unsigned long long)p->vis[r]);
        return 0;
    }
    uint64_t own = (uint64_t)1 << (s->n_held + i - s->n_chain), above;
    int32_t pos;
    if (parent == s->n_chain - 1) /* also PARENT_CTX of a span without a chain */
        above = 0, pos = s->ctx_len + s->n_chain;
    else if (parent >= s->n_chain && parent < i)
        above = p->vis[s->row0 + parent], pos = p->pos[s->row0 + parent] + 1;
    else if (parent < PARENT_CTX && PARENT_HELD(parent) < s->n_held)
        above = held_vis[PARENT_HELD(parent)], pos = held_pos[PARENT_HELD(parent)] + 1;
    else
        FAIL("span %d row %d: parent %d is neither the end of the chain nor an earlier tree row", si, i, parent);
    if (p->vis[r] != (above | own) || p->pos[r] != pos)
        FAIL("span %d row %d: sees %#llx at position %d, its parent gives %#llx at %d", si, i,
             (unsigned long long)p->vis[r], p->pos[r], (unsigned long long)(above | own), pos);
    return 0;
}

static int check_span(const struct step_plan *p, const struct plan_env *env, int si, struct err *e)
{
    const struct span *s = &p->span[si];
    if (!in_range(s->row0, s->n_row, p->n.n_row) || !in_range(s->held0, s->n_held, p->n.n_held) ||
        !in_range(s->bt_off, s->bt_len, p->n.n_bt) || s->n_row < 1)
        FAIL("span %d: rows, held rows or blocks out of range", si);
    if (s->n_row > INT16_MAX)
        FAIL("span %d: %d rows, at most %d", si, s->n_row, INT16_MAX);
    if (s->ctx_len < 0 || s->n_chain < 0 || s->n_chain > s->n_row || s->n_counted < 0 || s->n_counted > s->n_chain)
        FAIL("span %d: ctx_len %d, n_chain %d of %d rows, n_counted %d", si, s->ctx_len, s->n_chain, s->n_row,
             s->n_counted);
    int n_tree = s->n_row - s->n_chain;
    if (s->n_held + n_tree > PLAN_MAX_TREE)
        FAIL("span %d: %d tree rows, at most %d", si, s->n_held + n_tree, PLAN_MAX_TREE);
    if (s->n_held && s->n_chain)
        FAIL("span %d: held rows and a chain", si);
    if (s->attn > ATTN_FULL || (s->attn == ATTN_FULL && (n_tree || s->n_held)))
        FAIL("span %d: attention kind %d with %d tree rows", si, s->attn, n_tree);
    if (s->layer0 < 0 || s->layer1 > env->n_layer || s->layer0 > s->layer1)
        FAIL("span %d: layers %d..%d of %d", si, s->layer0, s->layer1, env->n_layer);
    if (s->law < -1 || s->law >= p->n.n_law)
        FAIL("span %d: law %d is not in the plan", si, s->law);
    if ((int64_t)s->bt_len * env->block_len < (int64_t)s->ctx_len + s->n_held + s->n_row)
        FAIL("span %d: %d blocks do not cover %d slots", si, s->bt_len, s->ctx_len + s->n_held + s->n_row);
    for (int b = s->bt_off; b < s->bt_off + s->bt_len; b++)
        if (p->bt[b] < 0 || p->bt[b] >= env->n_block)
            FAIL("span %d: block %d is not below %d", si, p->bt[b], env->n_block);

    uint64_t held_vis[PLAN_MAX_TREE];
    int32_t held_pos[PLAN_MAX_TREE];
    int rc = check_held(p, env, s, si, held_vis, held_pos, e);
    for (int i = 0; !rc && i < s->n_row; i++)
        rc = check_row(p, env, s, si, i, held_vis, held_pos, e);
    return rc;
}

static int32_t first_written(const struct span *s, const struct plan_env *env)
{
    return (s->ctx_len + s->n_held) / env->block_len;
}

static int32_t last_written(const struct span *s, const struct plan_env *env)
{
    return (s->ctx_len + s->n_held + s->n_row - 1) / env->block_len;
}

/* No two spans write into one block: a shared block would have needed a copy first. */
static int check_writes(const struct step_plan *p, const struct plan_env *env, struct err *e)
{
    for (int a = 0; a < p->n.n_span; a++)
        for (int b = 0; b < a; b++) {
            const struct span *sa = &p->span[a], *sb = &p->span[b];
            for (int i = first_written(sa, env); i <= last_written(sa, env); i++)
                for (int j = first_written(sb, env); j <= last_written(sb, env); j++)
                    if (p->bt[sa->bt_off + i] == p->bt[sb->bt_off + j])
                        FAIL("spans %d and %d both write block %d", b, a, p->bt[sa->bt_off + i]);
        }
    return 0;
}

static int check_law(const struct step_plan *p, const struct plan_env *env, int i, struct err *e)
{
    const struct law *l = &p->law[i];
    if (!in_range(l->tok0, l->n_tok, p->n.n_law_tok) || !in_range(l->ban0, l->n_ban, p->n.n_ban))
        FAIL("law %d: token list out of range", i);
    if (!(l->temperature >= 0) || !(l->top_p > 0 && l->top_p <= 1) || !(l->min_p >= 0 && l->min_p <= 1) ||
        !(l->typical_p > 0 && l->typical_p <= 1) || !(l->top_h >= 0 && l->top_h <= 1) || l->top_k < 0 ||
        l->top_h_n < 1 || l->top_h_mode > TOP_H_ENTROPY || !(l->repetition > 0) || !isfinite(l->frequency) ||
        !isfinite(l->presence))
        FAIL("law %d: a parameter is out of its range", i);
    for (int j = l->tok0; j < l->tok0 + l->n_tok; j++)
        if (p->law_tok[j].tok < 0 || p->law_tok[j].tok >= env->n_vocab ||
            (j > l->tok0 && p->law_tok[j].tok <= p->law_tok[j - 1].tok))
            FAIL("law %d: token %d out of range or out of order", i, p->law_tok[j].tok);
    for (int j = l->ban0; j < l->ban0 + l->n_ban; j++)
        if (p->ban[j] < 0 || p->ban[j] >= env->n_vocab)
            FAIL("law %d: banned token %d out of range", i, p->ban[j]);
    return 0;
}

static int check_readout(const struct step_plan *p, const struct plan_env *env, int i, struct err *e)
{
    const struct readout *r = &p->readout[i];
    int32_t n_f, n_i;
    if (r->kind > READ_HIDDEN || r->row < 0 || r->row >= p->n.n_row)
        FAIL("readout %d: kind %d of row %d", i, r->kind, r->row);
    readout_size(r, &n_f, &n_i);
    if (!in_range(r->f0, n_f, p->n.n_out_f) || !in_range(r->i0, n_i, p->n.n_out_i))
        FAIL("readout %d: results out of range", i);
    int listed = r->kind == READ_LOGPROB || r->kind == READ_PROBE;
    if (listed && (r->n < 0 || r->n > PLAN_MAX_LIST || !in_range(r->list0, r->n, p->n.n_list)))
        FAIL("readout %d: list of %d tokens", i, r->n);
    for (int j = 0; listed && j < r->n; j++)
        if (p->list[r->list0 + j] < 0 || p->list[r->list0 + j] >= env->n_vocab)
            FAIL("readout %d: listed token %d out of range", i, p->list[r->list0 + j]);
    if (r->kind == READ_TOPK && (r->n < 1 || r->n > PLAN_MAX_TOPK))
        FAIL("readout %d: top %d", i, r->n);
    if (r->kind == READ_HIDDEN && (r->n != env->n_embd || r->bank >= env->n_bank))
        FAIL("readout %d: hidden state of %d to bank %d", i, r->n, r->bank);
    if (r->kind == READ_CONTRAST && !env->hidden_plane)
        FAIL("readout %d: the pool has no hidden plane", i);
    int processed = r->kind == READ_SAMPLE || r->kind == READ_PROBE || ((listed || r->kind == READ_TOPK) && !r->raw);
    if (!processed)
        return 0;
    for (int si = 0; si < p->n.n_span; si++)
        if (r->row >= p->span[si].row0 && r->row < p->span[si].row0 + p->span[si].n_row)
            return p->span[si].law >= 0 ? 0 : err_set(e, ERR_INVALID, "readout %d: span %d has no law", i, si);
    FAIL("readout %d: row %d belongs to no span", i, r->row);
}

int plan_check(const struct step_plan *p, const struct plan_env *env, struct err *e)
{
    int rc = 0, rows = 0;
    for (int i = 0; !rc && i < p->n.n_span; i++) {
        if (p->span[i].row0 != rows)
            FAIL("span %d: begins at row %d, not %d", i, p->span[i].row0, rows);
        rc = check_span(p, env, i, e);
        rows += p->span[i].n_row;
    }
    if (!rc && rows != p->n.n_row)
        FAIL("%d rows in spans, %d in the plan", rows, p->n.n_row);
    if (!rc)
        rc = check_writes(p, env, e);
    int64_t n_slot = (int64_t)env->n_block * env->block_len;
    for (int i = 0; !rc && i < p->n.n_kvop; i++)
        if (p->kvop[i].n > env->block_len || !in_range(p->kvop[i].src, p->kvop[i].n, n_slot) ||
            !in_range(p->kvop[i].dst, p->kvop[i].n, n_slot))
            FAIL("kvop %d: slots %d -> %d, %d of them", i, p->kvop[i].src, p->kvop[i].dst, p->kvop[i].n);
    for (int i = 0; !rc && i < p->n.n_law; i++)
        rc = check_law(p, env, i, e);
    for (int i = 0; !rc && i < p->n.n_readout; i++)
        rc = check_readout(p, env, i, e);
    return rc;
}
