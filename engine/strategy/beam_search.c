#include "beam_search.h"

#include <string.h>

#include "drafting.h"
#include "mem.h"
#include "strategy.h"
#include "tokenizer.h"

enum { NO_READOUT = -1 };

static struct beam_search *search_of(const struct seq *s)
{
    return container_of(s->gang, struct beam_search, gang);
}

static int32_t per_group(const struct beam_search *b)
{
    return b->width / b->n_group;
}

static int32_t index_of(const struct seq *member)
{
    return (int32_t)(member - member->gang->member);
}

/* ---- Rows ---- */

/* The likeliest tokens behind the last row. Beams wait for each other: the last row of all is computed in one step. */
static int plan_list(struct engine *eng, struct seq *s, struct step_plan *p)
{
    const struct beam_search *b = search_of(s);
    int32_t n_top = s->req->p.n_logprobs, last = p->n.n_row + s->n_want - 1;
    int rc = seq_plan_span(eng, s, p, &(struct span_shape){.n_row = s->n_want, .draws = seq_draws(s)});
    if (rc || !seq_draws(s))
        return rc;
    struct readout list = {.kind = READ_TOPK, .row = last, .n = b->list_len, .bank = -1};
    if (n_top > list.n)
        list.n = n_top;
    return plan_readout(p, &list, NULL) < 0 ? -ERR_NOMEM : 0;
}

static int32_t lead_want(const struct seq *s)
{
    const struct beam_search *b = search_of(s);
    int32_t n = (b->begun ? gang_fork_point(s) : seq_n_tok(s)) - s->kv.n_computed;
    return b->over || n < 0 ? 0 : n;
}

static void lead_settle(struct engine *eng, struct seq *s, const struct step_plan *p, const struct step_result *r)
{
    int32_t at = seq_take_prompt_scores(s, p, r);
    bool draws = seq_draws(s);
    seq_commit(&eng->target, s, &s->kv, s->n_want);
    if (draws)
        search_of(s)->read_at[0] = at;
}

const struct strategy_ops strategy_search = {
    .name = "search", .want = lead_want, .plan = plan_list, .settle = lead_settle};

static bool all_ready(const struct gang *g)
{
    for (int32_t i = 0; i < g->n_member; i++) {
        const struct seq *m = &g->member[i];
        if (m->live && (m->state != SEQ_RUNNING || seq_n_tok(m) - m->kv.n_computed != 1))
            return false;
    }
    return true;
}

static int32_t beam_want(const struct seq *m)
{
    int32_t n = seq_n_tok(m) - m->kv.n_computed;
    return n > 1 ? n - 1 : all_ready(m->gang);
}

/* The last row is committed when all have theirs: what did not fit the plan is computed again. */
static void beam_settle(struct engine *eng, struct seq *m, const struct step_plan *p, const struct step_result *r)
{
    (void)p, (void)r;
    if (seq_draws(m))
        search_of(m)->read_at[index_of(m)] = m->readout0;
    else
        seq_commit(&eng->target, m, &m->kv, m->n_want);
}

const struct strategy_ops strategy_beam = {.name = "beam", .want = beam_want, .plan = plan_list, .settle = beam_settle};

/* ---- Choosing ---- */

static struct beam_list list_at(const struct engine *eng, const struct beam_search *b, int32_t read_at, double score)
{
    const struct readout *k = &eng->target.plan.readout[read_at];
    const struct step_result *r = &eng->target.result;
    struct beam_list l = {.score = score, .tok = r->i + k->i0, .logprob = r->f + k->f0};
    while (l.n < b->list_len && l.n < k->n && l.tok[l.n] >= 0)
        l.n++;
    return l;
}

static int32_t add_node(struct engine *eng, struct beam_search *b, int32_t parent, const struct beam_pick *pick,
                        int32_t read_at)
{
    int32_t n_top = b->gang.leader->req->p.n_logprobs, at = b->n_tree++;
    struct beam_node *node = &b->tree[at];
    *node = (struct beam_node){.parent = parent, .tok = pick->tok, .logprob = pick->logprob, .rank = pick->rank};
    const struct readout *k = &eng->target.plan.readout[read_at];
    const struct step_result *r = &eng->target.result;
    for (; node->n_top < n_top && r->i[k->i0 + node->n_top] >= 0; node->n_top++)
        b->top[(size_t)at * (size_t)n_top + (size_t)node->n_top] =
            (struct top_logprob){.tok = r->i[k->i0 + node->n_top], .logprob = r->f[k->f0 + node->n_top]};
    return at;
}

/* Keeps a group's best ended texts in order. */
static void add_end(struct beam_search *b, int32_t group, const struct beam_end *e)
{
    struct beam_end *list = &b->end[group * per_group(b)];
    int32_t *n = &b->n_end[group], at = *n < per_group(b) ? (*n)++ : *n;
    for (; at > 0 && list[at - 1].final < e->final; at--)
        if (at < per_group(b))
            list[at] = list[at - 1];
    if (at < per_group(b))
        list[at] = *e;
}

/* Nothing alive can, as it stands, displace what has ended (the usual heuristic: at its present length). */
static bool group_over(const struct beam_search *b, int32_t group)
{
    const struct beam_params *p = &b->gang.leader->req->p.decoding.beam;
    int32_t first = group * per_group(b), n_tok = b->gang.member[first].n_out;
    if (b->n_beam[group] == 0)
        return true;
    if (b->n_end[group] < per_group(b))
        return false;
    return p->early_stopping ||
           beam_final_score(b->score[first], n_tok, p->length_penalty) <= b->end[first + per_group(b) - 1].final;
}

struct beam_source { /* where a step's beams come from */
    struct beam_list list[BEAM_MAX];
    int32_t read_at[BEAM_MAX], node[BEAM_MAX];
    double logprob[BEAM_MAX];
    const struct seq *seq[BEAM_MAX];
    int32_t n;
};

static void sources_of(const struct engine *eng, const struct beam_search *b, int32_t group, struct beam_source *src)
{
    int32_t first = group * per_group(b);
    src->n = b->begun ? b->n_beam[group] : 1; /* at first the prompt alone */
    for (int32_t i = 0; i < src->n; i++) {
        int32_t at = b->begun ? first + i : 0;
        src->read_at[i] = b->read_at[at];
        src->node[i] = b->begun ? b->node[at] : -1;
        src->logprob[i] = b->begun ? b->logprob[at] : 0;
        src->seq[i] = b->begun ? &b->gang.member[at] : b->gang.leader;
        src->list[i] = list_at(eng, b, src->read_at[i], b->begun ? b->score[at] : 0);
    }
}

/* What a beam becomes: the tokens and blocks of the one it goes on from, and the new token. */
static void grow(struct engine *eng, struct beam_search *b, int32_t at, const struct seq *from, int32_t tok)
{
    struct seq *next = &b->spare[at];
    gang_copy_tokens(next, from);
    if (b->begun)
        seq_fork(&eng->target, &from->kv, &next->kv);
    next->out[next->n_out++] = tok;
    seq_count_token(next, tok);
}

static bool text_ends(struct engine *eng, struct beam_search *b, const struct seq *from, int32_t tok)
{
    struct seq *try = &b->spare[b->width]; /* one more, for texts that may end */
    if (seq_ends_at(eng, from, tok))
        return true;
    if (from->req->stop_set.n == 0)
        return false;
    seq_copy_text(try, from);
    try->n_out = from->n_out + 1;
    return seq_try_text(eng, try, tok);
}

/* A pick becomes a node of the tree, and a result if its text has ended. */
static int32_t take_pick(struct engine *eng, struct beam_search *b, int32_t group, const struct beam_source *src,
                         const struct beam_pick *pick, bool ended)
{
    const struct gen_params *q = &b->gang.leader->req->p;
    int32_t node = add_node(eng, b, src->node[pick->beam], pick, src->read_at[pick->beam]);
    struct beam_end e = {.score = pick->score,
                         .logprob = src->logprob[pick->beam] + pick->logprob,
                         .node = node,
                         .n_tok = src->seq[pick->beam]->n_out + 1};
    e.final = beam_final_score(e.score, e.n_tok, q->decoding.beam.length_penalty);
    if (ended)
        add_end(b, group, &e);
    return node;
}

/* Of a group's 2 * width best continuations, in order: texts that end and are among the first `width` are kept as
 * results, and the first `width` that go on are the beams of the next step. At max_tokens all end. */
static void step_group(struct engine *eng, struct beam_search *b, int32_t group, int32_t *used, int32_t *n_used)
{
    const struct gen_params *q = &b->gang.leader->req->p;
    int32_t width = per_group(b), first = group * width, n_alive = 0;
    struct beam_source src;
    struct beam_pick pick[2 * BEAM_MAX];
    double score[BEAM_MAX], logprob[BEAM_MAX];
    sources_of(eng, b, group, &src);
    bool full = src.seq[0]->n_out + 1 == q->max_tokens;
    int32_t n = beam_best(src.list, src.n, used, *n_used, q->decoding.beam.diversity, 2 * width, pick);
    for (int32_t i = 0; i < n && n_alive < width; i++) {
        const struct seq *from = src.seq[pick[i].beam];
        bool ends = text_ends(eng, b, from, pick[i].tok);
        if (ends && i >= width)
            continue;
        int32_t node = take_pick(eng, b, group, &src, &pick[i], ends || full);
        used[(*n_used)++] = pick[i].tok;
        if (ends)
            continue;
        if (!full)
            grow(eng, b, first + n_alive, from, pick[i].tok);
        score[n_alive] = pick[i].score;
        logprob[n_alive] = src.logprob[pick[i].beam] + pick[i].logprob;
        b->node[first + n_alive++] = node; /* the old ones were copied to src */
    }
    memcpy(&b->score[first], score, sizeof *score * (size_t)n_alive);
    memcpy(&b->logprob[first], logprob, sizeof *logprob * (size_t)n_alive);
    b->n_beam[group] = full ? 0 : n_alive;
}

/* ---- Changing places ---- */

static void take(struct seq *to, const struct seq *from)
{
    to->kv = from->kv;
    to->out = from->out;
    to->n_out = from->n_out;
    to->law_tok = from->law_tok;
    to->n_law_tok = from->n_law_tok;
    to->detok = from->detok;
    to->stop = from->stop;
}

static void become(struct engine *eng, struct seq *m, struct seq *next)
{
    seq_give_back(&eng->target, &m->kv);
    struct seq old = *m;
    take(m, next);
    take(next, &old);
}

static void change_places(struct engine *eng, struct beam_search *b)
{
    for (int32_t i = 0; i < b->width; i++) {
        struct seq *m = &b->gang.member[i];
        if (i % per_group(b) < b->n_beam[i / per_group(b)]) {
            become(eng, m, &b->spare[i]);
            m->live = true;
        } else {
            gang_stop(eng, m);
        }
    }
}

static void drop_group(struct engine *eng, struct beam_search *b, int32_t group)
{
    for (int32_t i = 0; i < per_group(b); i++)
        gang_stop(eng, &b->gang.member[group * per_group(b) + i]);
    b->n_beam[group] = 0;
}

/* Every group's best, then every group's second, ...: of several groups, the first choices are unlike each other. */
static void choose(struct beam_search *b)
{
    for (int32_t i = 0; i < per_group(b); i++)
        for (int32_t g = 0; g < b->n_group; g++)
            if (i < b->n_end[g])
                b->chosen[b->n_chosen++] = b->end[g * per_group(b) + i];
    const struct request *r = b->gang.leader->req;
    for (int32_t i = 0; i < b->n_chosen && i < r->p.n; i++)
        r->score[i] = (struct choice_score){.score = b->chosen[i].final, .logprob = b->chosen[i].logprob};
}

static void step_all(struct engine *eng, struct beam_search *b)
{
    int32_t used[2 * BEAM_MAX], n_used = 0;
    bool alive = false;
    drafting_count_step(eng, b->gang.leader);
    for (int32_t i = 0; i < b->width && b->begun; i++)
        if (b->gang.member[i].live)
            seq_commit(&eng->target, &b->gang.member[i], &b->gang.member[i].kv, 1);
    for (int32_t g = 0; g < b->n_group; g++)
        if (!b->begun || b->n_beam[g] > 0)
            step_group(eng, b, g, used, &n_used);
    change_places(eng, b);
    b->begun = true;
    for (int32_t g = 0; g < b->n_group; g++) {
        if (group_over(b, g))
            drop_group(eng, b, g);
        alive |= b->n_beam[g] > 0;
    }
    b->over = !alive;
    if (b->over)
        choose(b);
}

/* ---- Saying ---- */

/* Nodes of a text, first token first. */
static void trace(const struct beam_search *b, const struct beam_end *e, int32_t *out)
{
    int32_t at = e->node;
    for (int32_t i = e->n_tok - 1; i >= 0; i--, at = b->tree[at].parent)
        out[i] = at;
}

bool beam_token(const struct gang *g, int32_t text, int32_t i, struct sampled *out)
{
    const struct beam_search *b = container_of(g, struct beam_search, gang);
    int32_t n_top = g->leader->req->p.n_logprobs > 0 ? g->leader->req->p.n_logprobs : 0;
    if (i == 0)
        trace(b, &b->chosen[text], b->said);
    if (i == b->chosen[text].n_tok)
        return false;
    const struct beam_node *node = &b->tree[b->said[i]];
    *out = (struct sampled){.tok = node->tok,
                            .logprob = node->logprob,
                            .rank = node->rank,
                            .n_top = node->n_top,
                            .top = b->top + (size_t)b->said[i] * (size_t)n_top};
    return true;
}

static bool has_results(const struct beam_search *b)
{
    for (int32_t i = 0; i < b->width && b->begun; i++)
        if (b->gang.member[i].live && b->read_at[i] < 0)
            return false;
    return b->begun || b->read_at[0] >= 0;
}

enum gang_news beam_gather(struct engine *eng, struct gang *g)
{
    struct beam_search *b = container_of(g, struct beam_search, gang);
    enum gang_news news = GANG_IDLE;
    if (!b->over && has_results(b)) {
        step_all(eng, b);
        news = GANG_BUSY;
    }
    for (int32_t i = 0; i < b->width; i++)
        b->read_at[i] = NO_READOUT;
    return b->over ? gang_say_choices(eng, g, b->n_chosen) : news;
}
