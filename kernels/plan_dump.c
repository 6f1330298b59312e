/* A plan as text and back: one record a line, in plan order. Floats are printed as hex so that a replay is exact. */
#include "plan.h"

#include <inttypes.h>
#include <string.h>

void plan_dump(const struct step_plan *p, FILE *out)
{
    fprintf(out, "plan vocab=%d\n", p->n.n_vocab);
    for (int i = 0; i < p->n.n_mix; i++) {
        const struct mix *m = &p->mix[i];
        fprintf(out, "mix bank=%d n=%d", m->from_bank, m->n_part);
        for (int j = m->part0; j < m->part0 + m->n_part; j++)
            fprintf(out, " %d %a", p->part[j].src, (double)p->part[j].weight);
        fputc('\n', out);
    }
    for (int i = 0; i < p->n.n_mask; i++) {
        fprintf(out, "mask");
        for (int w = 0; w < mask_words(p->n.n_vocab); w++)
            fprintf(out, " %" PRIx32, p->mask[(size_t)i * (size_t)mask_words(p->n.n_vocab) + (size_t)w]);
        fputc('\n', out);
    }
    for (int i = 0; i < p->n.n_law; i++) {
        const struct law *l = &p->law[i];
        fprintf(out,
                "law t=%a top_p=%a min_p=%a typical=%a top_h=%a top_k=%d top_h_n=%d mode=%d rep=%a freq=%a pres=%a "
                "key=%" PRIx64,
                (double)l->temperature, (double)l->top_p, (double)l->min_p, (double)l->typical_p, (double)l->top_h,
                l->top_k, l->top_h_n, l->top_h_mode, (double)l->repetition, (double)l->frequency, (double)l->presence,
                l->noise_key);
        fprintf(out, " toks=%d bans=%d", l->n_tok, l->n_ban);
        for (int j = l->tok0; j < l->tok0 + l->n_tok; j++)
            fprintf(out, " %d %d %d %a", p->law_tok[j].tok, p->law_tok[j].n_prompt, p->law_tok[j].n_output,
                    (double)p->law_tok[j].bias);
        for (int j = l->ban0; j < l->ban0 + l->n_ban; j++)
            fprintf(out, " %d", p->ban[j]);
        fputc('\n', out);
    }
    for (int i = 0; i < p->n.n_kvop; i++)
        fprintf(out, "kvop %d %d %d\n", p->kvop[i].src, p->kvop[i].dst, p->kvop[i].n);
    for (int i = 0; i < p->n.n_span; i++) {
        const struct span *s = &p->span[i];
        fprintf(out, "span seq=%d ctx=%d chain=%d counted=%d group=%d law=%d layers=%d %d attn=%d blocks=%d", s->seq,
                s->ctx_len, s->n_chain, s->n_counted, s->group, s->law, s->layer0, s->layer1, s->attn, s->bt_len);
        for (int b = s->bt_off; b < s->bt_off + s->bt_len; b++)
            fprintf(out, " %d", p->bt[b]);
        fputc('\n', out);
        for (int h = s->held0; h < s->held0 + s->n_held; h++)
            fprintf(out, "held %d %d\n", p->held[h].tok, p->held[h].parent);
        for (int r = s->row0; r < s->row0 + s->n_row; r++)
            fprintf(out, "row %d %d %d %" PRIx64 " %d\n", p->tok[r], p->pos[r], p->parent[r], p->vis[r],
                    p->row_mask[r]);
    }
    for (int i = 0; i < p->n.n_readout; i++) {
        const struct readout *r = &p->readout[i];
        int listed = r->kind == READ_LOGPROB || r->kind == READ_PROBE;
        fprintf(out, "readout kind=%d raw=%d row=%d bank=%d n=%d", r->kind, r->raw, r->row, r->bank, r->n);
        for (int j = 0; listed && j < r->n; j++)
            fprintf(out, " %d", p->list[r->list0 + j]);
        fputc('\n', out);
    }
    fputs("end\n", out);
}

struct parser {
    struct step_plan *p;
    FILE *in;
    struct err *e;
    int line;
};

static int bad(struct parser *ps, const char *what)
{
    return err_set(ps->e, ERR_FORMAT, "plan record %d: %s", ps->line, what);
}

static int parse_mix(struct parser *ps)
{
    int bank, n;
    struct mix_part part[PLAN_MAX_TREE];
    if (fscanf(ps->in, " bank=%d n=%d", &bank, &n) != 2 || n < 0 || n > PLAN_MAX_TREE)
        return bad(ps, "malformed mix");
    for (int j = 0; j < n; j++)
        if (fscanf(ps->in, "%d %f", &part[j].src, &part[j].weight) != 2)
            return bad(ps, "malformed mix part");
    return plan_mix(ps->p, part, n, bank) < 0 ? bad(ps, "too many mixes") : 0;
}

static int parse_mask(struct parser *ps)
{
    struct step_plan *p = ps->p;
    if (p->n.n_mask == p->cap.n_mask)
        return bad(ps, "too many masks");
    uint32_t *w = p->mask + (size_t)p->n.n_mask * (size_t)mask_words(p->n.n_vocab);
    for (int i = 0; i < mask_words(p->n.n_vocab); i++)
        if (fscanf(ps->in, "%" SCNx32, &w[i]) != 1)
            return bad(ps, "malformed mask");
    p->n.n_mask++;
    return 0;
}

static int parse_law(struct parser *ps)
{
    struct step_plan *p = ps->p;
    struct law l = {0};
    int mode;
    if (fscanf(ps->in,
               " t=%f top_p=%f min_p=%f typical=%f top_h=%f top_k=%d top_h_n=%d mode=%d rep=%f freq=%f pres=%f "
               "key=%" SCNx64 " toks=%d bans=%d",
               &l.temperature, &l.top_p, &l.min_p, &l.typical_p, &l.top_h, &l.top_k, &l.top_h_n, &mode, &l.repetition,
               &l.frequency, &l.presence, &l.noise_key, &l.n_tok, &l.n_ban) != 14 ||
        l.n_tok < 0 || l.n_ban < 0)
        return bad(ps, "malformed law");
    if (p->n.n_law == p->cap.n_law || l.n_tok > p->cap.n_law_tok - p->n.n_law_tok ||
        l.n_ban > p->cap.n_ban - p->n.n_ban)
        return bad(ps, "too many laws or law tokens");
    l.top_h_mode = (uint8_t)mode;
    l.tok0 = p->n.n_law_tok;
    l.ban0 = p->n.n_ban;
    for (int j = 0; j < l.n_tok; j++) {
        struct law_tok *t = &p->law_tok[l.tok0 + j];
        if (fscanf(ps->in, "%d %d %d %f", &t->tok, &t->n_prompt, &t->n_output, &t->bias) != 4)
            return bad(ps, "malformed law token");
    }
    for (int j = 0; j < l.n_ban; j++)
        if (fscanf(ps->in, "%d", &p->ban[l.ban0 + j]) != 1)
            return bad(ps, "malformed ban");
    p->n.n_law_tok += l.n_tok;
    p->n.n_ban += l.n_ban;
    p->law[p->n.n_law++] = l;
    return 0;
}

static int parse_span(struct parser *ps)
{
    struct span s = {0};
    int layer0, layer1, attn, n_block;
    if (fscanf(ps->in, " seq=%d ctx=%d chain=%d counted=%d group=%d law=%d layers=%d %d attn=%d blocks=%d", &s.seq,
               &s.ctx_len, &s.n_chain, &s.n_counted, &s.group, &s.law, &layer0, &layer1, &attn, &n_block) != 10)
        return bad(ps, "malformed span");
    if (layer0 != (int16_t)layer0 || layer1 != (int16_t)layer1 || attn != (uint8_t)attn)
        return bad(ps, "span field out of range");
    s.layer0 = (int16_t)layer0, s.layer1 = (int16_t)layer1, s.attn = (uint8_t)attn;
    if (plan_span(ps->p, &s) < 0)
        return bad(ps, "too many spans");
    for (int i = 0; i < n_block; i++) {
        int32_t b;
        if (fscanf(ps->in, "%d", &b) != 1 || plan_blocks(ps->p, &b, 1) < 0)
            return bad(ps, "malformed block table");
    }
    return 0;
}

static int parse_row(struct parser *ps)
{
    int tok, pos, parent, mask;
    uint64_t vis;
    if (fscanf(ps->in, "%d %d %d %" SCNx64 " %d", &tok, &pos, &parent, &vis, &mask) != 5 || parent != (int16_t)parent)
        return bad(ps, "malformed row");
    if (!ps->p->n.n_span)
        return bad(ps, "a row before any span");
    int r = plan_row(ps->p, tok, pos, (int16_t)parent, vis);
    if (r < 0)
        return bad(ps, "too many rows");
    ps->p->row_mask[r] = mask;
    return 0;
}

static int parse_held(struct parser *ps)
{
    int tok, parent;
    if (fscanf(ps->in, "%d %d", &tok, &parent) != 2 || parent != (int16_t)parent)
        return bad(ps, "malformed held row");
    return !ps->p->n.n_span || plan_held(ps->p, tok, (int16_t)parent) < 0 ? bad(ps, "too many held rows") : 0;
}

static int parse_readout(struct parser *ps)
{
    int kind, raw;
    struct readout r = {0};
    int32_t list[PLAN_MAX_LIST];
    if (fscanf(ps->in, " kind=%d raw=%d row=%d bank=%d n=%d", &kind, &raw, &r.row, &r.bank, &r.n) != 5 || r.n < 0)
        return bad(ps, "malformed readout");
    if (kind != (uint8_t)kind || raw != (uint8_t)raw)
        return bad(ps, "readout field out of range");
    r.kind = (uint8_t)kind, r.raw = (uint8_t)raw;
    int listed = kind == READ_LOGPROB || kind == READ_PROBE;
    if (listed && r.n > PLAN_MAX_LIST)
        return bad(ps, "list too long");
    for (int j = 0; listed && j < r.n; j++)
        if (fscanf(ps->in, "%d", &list[j]) != 1)
            return bad(ps, "malformed list");
    return plan_readout(ps->p, &r, listed ? list : NULL) < 0 ? bad(ps, "too many readouts") : 0;
}

int plan_parse(struct step_plan *p, FILE *in, struct err *e)
{
    static const struct {
        const char *name;
        int (*parse)(struct parser *);
    } record[] = {{"mix", parse_mix},   {"mask", parse_mask}, {"law", parse_law},        {"span", parse_span},
                  {"held", parse_held}, {"row", parse_row},   {"readout", parse_readout}};
    struct parser ps = {.p = p, .in = in, .e = e};
    char word[16];
    int vocab;
    plan_reset(p);
    if (fscanf(in, "plan vocab=%d", &vocab) != 1 || vocab != p->cap.n_vocab)
        return bad(&ps, "not a plan for this vocabulary");
    while (fscanf(in, "%15s", word) == 1) {
        ps.line++;
        if (!strcmp(word, "end"))
            return 0;
        int rc = -1;
        if (!strcmp(word, "kvop")) {
            struct kvop k;
            if (fscanf(in, "%d %d %d", &k.src, &k.dst, &k.n) != 3 || plan_kvop(p, k.src, k.dst, k.n) < 0)
                return bad(&ps, "malformed kvop");
            continue;
        }
        for (size_t i = 0; i < sizeof record / sizeof *record; i++)
            if (!strcmp(word, record[i].name)) {
                rc = record[i].parse(&ps);
                if (rc)
                    return rc;
            }
        if (rc)
            return bad(&ps, "unknown record");
    }
    return bad(&ps, "no end");
}
