#include "readouts.h"

#include <stdbool.h>

#include "readout.h"
#include "visible.h"

static struct law_row law_row_of(const struct step_plan *p, const struct span *s, int32_t row, int32_t logit)
{
    int32_t i = row - s->row0, last = i < s->n_chain ? i : s->n_chain - 1;
    return (struct law_row){.logit = logit,
                            .law = s->law,
                            .mask = p->row_mask[row],
                            .position = p->pos[row] + 1,
                            .chain0 = s->row0 + s->n_counted,
                            .n_chain = last + 1 > s->n_counted ? last + 1 - s->n_counted : 0,
                            .vis = p->vis[row],
                            .n_held = s->n_held,
                            .held0 = s->held0,
                            .tree0 = s->row0 + s->n_chain};
}

static bool asks_raw(const struct readout *r)
{
    return r->kind == READ_SAMPLE ? r->n == 1 : r->raw;
}

static bool asks_law(const struct readout *r)
{
    return r->kind == READ_SAMPLE || r->kind == READ_PROBE || !r->raw;
}

static void add_logits(const struct step_plan *p, const struct span *s, const struct readout *r, int32_t *map,
                       struct readout_work *w)
{
    int32_t *logit = &map[r->row], *law_row = &map[p->n.n_row + r->row];
    if (*logit < 0) {
        *logit = w->n_logit;
        w->logit_row[w->n_logit++] = r->row;
    }
    if (asks_law(r) && *law_row < 0) {
        *law_row = w->n_law_row;
        w->law_row[w->n_law_row++] = law_row_of(p, s, r->row, *logit);
    }
    if (asks_raw(r) && (!w->n_raw || w->raw_logit[w->n_raw - 1] != *logit))
        w->raw_logit[w->n_raw++] = *logit; /* twice is harmless */
    w->job[w->n_job++] = (struct read_job){.kind = r->kind,
                                           .raw = r->raw,
                                           .n = r->n,
                                           .list0 = r->list0,
                                           .f0 = r->f0,
                                           .i0 = r->i0,
                                           .logit = *logit,
                                           .law_row = asks_law(r) ? *law_row : -1};
}

static void add_hidden(const struct readout *r, struct readout_work *w)
{
    if (r->bank >= 0) {
        w->save_row[w->n_save] = r->row;
        w->save_to[w->n_save++] = r->bank;
    } else {
        w->hidden_row[w->n_hidden] = r->row;
        w->hidden_at[w->n_hidden++] = r->f0;
    }
}

void readout_work_make(const struct step_plan *p, int32_t *map, struct readout_work *w)
{
    w->n_logit = w->n_raw = w->n_law_row = w->n_job = w->n_contrast = w->n_hidden = w->n_save = 0;
    for (int32_t i = 0; i < 2 * p->n.n_row; i++)
        map[i] = -1;
    for (int32_t i = 0; i < p->n.n_readout; i++) {
        const struct readout *r = &p->readout[i];
        const struct span *s = plan_span_of(p, r->row);
        if (r->kind == READ_CONTRAST)
            w->contrast[w->n_contrast++] =
                (struct contrast_job){.row = r->row, .f0 = r->f0, .bt_off = s->bt_off, .own_slot = row_slot(s, r->row)};
        else if (r->kind == READ_HIDDEN)
            add_hidden(r, w);
        else
            add_logits(p, s, r, map, w);
    }
}

/* ---- Shared among ranks ---- */

int32_t readout_own_begin(int32_t n_logit, int32_t rank, int32_t n_rank)
{
    return (int32_t)((int64_t)n_logit * rank / n_rank);
}

static bool is_within(int32_t *logit, int32_t begin, int32_t end)
{
    bool own = *logit >= begin && *logit < end;
    *logit -= own ? begin : 0;
    return own;
}

void readout_work_share(int32_t *map, int32_t rank, int32_t n_rank, struct readout_work *w)
{
    int32_t begin = readout_own_begin(w->n_logit, rank, n_rank), end = readout_own_begin(w->n_logit, rank + 1, n_rank);
    struct readout_work all = *w;
    if (n_rank == 1)
        return;
    w->n_raw = w->n_law_row = w->n_job = w->n_contrast = w->n_hidden = 0;
    for (int32_t i = 0; i < all.n_raw; i++)
        if (is_within(&all.raw_logit[i], begin, end))
            w->raw_logit[w->n_raw++] = all.raw_logit[i];
    for (int32_t i = 0; i < all.n_law_row; i++)
        if (is_within(&all.law_row[i].logit, begin, end)) {
            map[i] = w->n_law_row;
            w->law_row[w->n_law_row++] = all.law_row[i];
        }
    for (int32_t i = 0; i < all.n_job; i++)
        if (is_within(&all.job[i].logit, begin, end)) {
            struct read_job job = all.job[i];
            job.law_row = job.law_row < 0 ? -1 : map[job.law_row];
            w->job[w->n_job++] = job;
        }
    for (int32_t i = rank; i < all.n_contrast; i += n_rank) /* these need no logits */
        w->contrast[w->n_contrast++] = all.contrast[i];
    for (int32_t i = rank; i < all.n_hidden; i += n_rank) {
        w->hidden_row[w->n_hidden] = all.hidden_row[i];
        w->hidden_at[w->n_hidden++] = all.hidden_at[i];
    }
}
