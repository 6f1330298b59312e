#include "superposition.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "drafting.h"
#include "mem.h"
#include "strategy.h"
#include "verify/chance.h"

static struct superposition *super_of(const struct seq *s)
{
    return container_of(s->gang, struct superposition, gang);
}

static int32_t *own(struct superposed_text *t)
{
    return t->tok + t->n_context;
}

/* In the whole text. */
static int32_t length(const struct superposed_text *t)
{
    return t->n_before + t->n;
}

static struct superposed_token token_at(const struct superposition *u, struct superposed_text *t, int32_t i)
{
    int32_t k = i - t->n_before;
    return k < 0 ? u->before[i]
                 : (struct superposed_token){.tok = own(t)[k], .logprob = t->logprob[k], .rank = t->rank[k]};
}

/* ---- Rows ---- */

/* Of what is decided, the prompt and the drafts that were drawn, not all is computed. */
static bool is_behind(const struct seq *s)
{
    return s->kv.n_computed < seq_n_tok(s);
}

static int32_t n_wanted(const struct seq *s)
{
    const struct superposition *u = super_of(s);
    if (u->ranked)
        return 0;
    if (is_behind(s))
        return seq_n_tok(s) - s->kv.n_computed;
    return u->drafted ? u->n_row : 1;
}

static bool is_tree(const struct seq *s)
{
    return super_of(s)->drafted && !is_behind(s);
}

/* The drafts' last tokens, each with the weight of its drafts; a single one is an ordinary token. */
static int plan_mixture(struct seq *s, struct step_plan *p)
{
    struct superposition *u = super_of(s);
    struct mix_part part[SUPERPOSED_MAX_DRAFT];
    int32_t n = 0, pos = s->kv.n_computed;
    for (int32_t i = 0; i < u->n_alive; i++) {
        int32_t last = own(&u->alive[i])[u->alive[i].n - 1], k = 0;
        while (k < n && part[k].src != last)
            k++;
        if (k == n)
            part[n++] = (struct mix_part){.src = last};
        part[k].weight += (float)u->weight[i];
    }
    int mix = n > 1 ? plan_mix(p, part, n, 0) : 0;
    if (mix < 0)
        return mix;
    return plan_row(p, n > 1 ? MIX_ROW(mix) : part[0].src, pos, -1, 0) < 0 ? -ERR_NOMEM : 0;
}

/* The likeliest tokens; behind decided ones, where nothing is mixed yet, also as the model has them without biases. */
static int plan_top(struct seq *s, struct step_plan *p, int32_t row, bool is_first)
{
    struct readout top = {.kind = READ_TOPK, .row = row, .n = super_of(s)->n_top, .bank = -1}, raw = top;
    raw.raw = 1;
    return plan_readout(p, &top, NULL) < 0 || (is_first && plan_readout(p, &raw, NULL) < 0) ? -ERR_NOMEM : 0;
}

/* The row at a position tells the log-probability of a decided token that wants it. */
static bool scores_decided(const struct seq *s, int32_t position)
{
    return s->req->p.decoding.superposed.rescore && position + 1 >= s->req->n_prompt + super_of(s)->n_known &&
           position + 1 < seq_n_tok(s);
}

static int plan_decided(struct seq *s, struct step_plan *p, int32_t row0)
{
    for (int32_t i = 0; i < s->n_want; i++) {
        int32_t pos = s->kv.n_computed + i;
        struct readout lp = {.kind = READ_LOGPROB, .raw = 1, .row = row0 + i, .n = 1, .bank = -1};
        if (scores_decided(s, pos) && plan_readout(p, &lp, (int32_t[]){seq_tok(s, pos + 1)}) < 0)
            return -ERR_NOMEM;
    }
    return 0;
}

/* Returns the readout after them. Before seq_commit. */
static int32_t take_decided(struct seq *s, const struct step_plan *p, const struct step_result *r, int32_t at)
{
    struct superposition *u = super_of(s);
    for (int32_t i = 0; i < s->n_want; i++) {
        if (!scores_decided(s, s->kv.n_computed + i))
            continue;
        const struct readout *lp = &p->readout[at++];
        u->before[u->n_known].logprob = r->f[lp->f0];
        u->before[u->n_known++].rank = r->i[lp->i0];
    }
    return at;
}

/* The tokens that stand behind a row in the texts it is part of. */
static int32_t followers(struct superposition *u, int32_t row, int32_t *tok)
{
    int32_t n = 0, path[SUPERPOSED_MAX_TOKENS], depth = u->row[row].depth;
    for (int32_t i = row; i >= 0; i = u->row[i].parent)
        path[u->row[i].depth] = u->row[i].tok;
    for (int32_t i = u->n_scored; i < u->n_scored + u->n_in_tree; i++) {
        struct superposed_text *t = u->text[i];
        if (t->n < depth + 2 || memcmp(own(t), path, sizeof *path * (size_t)(depth + 1)))
            continue;
        int32_t k = 0, next = own(t)[depth + 1];
        while (k < n && tok[k] != next)
            k++;
        tok[k] = next;
        n += k == n;
    }
    return n;
}

static int plan_tree(struct seq *s, struct step_plan *p, int32_t row0)
{
    struct superposition *u = super_of(s);
    uint64_t sees[PLAN_MAX_TREE];
    for (int32_t i = 0; i < u->n_row; i++) {
        const struct score_row *r = &u->row[i];
        sees[i] = UINT64_C(1) << i | (r->parent >= 0 ? sees[r->parent] : 0);
        if (plan_row(p, r->tok, seq_n_tok(s) + r->depth, r->parent >= 0 ? (int16_t)r->parent : PARENT_CTX, sees[i]) < 0)
            return -ERR_NOMEM;
    }
    for (int32_t i = 0; i < u->n_row; i++) {
        int32_t tok[2 * SUPERPOSED_MAX_DRAFT], n = followers(u, i, tok);
        struct readout lp = {.kind = READ_LOGPROB, .raw = 1, .row = row0 + i, .n = n, .bank = -1};
        if (plan_readout(p, &lp, tok) < 0)
            return -ERR_NOMEM;
    }
    return 0;
}

/* At first, or after a preemption: nothing was drafted behind what is decided. */
static void begin_stretch(struct seq *s)
{
    struct superposition *u = super_of(s);
    int32_t n = 0;
    for (int32_t i = 0; i < u->n_ended; i++)
        if (u->ended[i].n_before < s->n_out)
            u->ended[n++] = u->ended[i];
    u->n_ended = n;
    u->n_step = u->n_alive = 0;
}

static int plan(struct engine *eng, struct seq *s, struct step_plan *p)
{
    struct superposition *u = super_of(s);
    int32_t row0 = p->n.n_row;
    bool behind = is_behind(s), last = behind && seq_draws(s) && !u->drafted;
    if (behind && !u->drafted)
        begin_stretch(s);
    int rc = seq_plan_span(eng, s, p,
                           &(struct span_shape){.n_row = behind ? s->n_want : 0,
                                                .n_chain_after = !behind && !u->drafted,
                                                .draws = last || (!behind && !u->drafted),
                                                .n_out_after = u->n_step});
    if (!rc && behind)
        rc = plan_decided(s, p, row0);
    if (rc || (behind && !last))
        return rc;
    if (u->drafted)
        return plan_tree(s, p, row0);
    rc = behind ? 0 : plan_mixture(s, p);
    return rc ? rc : plan_top(s, p, p->n.n_row - 1, behind);
}

/* ---- Drafting ---- */

static void begin(struct seq *s, struct superposed_text *root)
{
    int32_t n = seq_n_tok(s);
    root->n_before = s->n_out;
    root->n_context = n < SUPERPOSED_CONTEXT ? n : SUPERPOSED_CONTEXT;
    root->n = 0;
    root->score = super_of(s)->before_score;
    for (int32_t i = 0; i < root->n_context; i++)
        root->tok[i] = seq_tok(s, n - root->n_context + i);
}

static void grow(struct superposed_text *to, const struct superposed_text *from, const struct superposed_pick *pick,
                 const struct superposed_top *top)
{
    *to = *from;
    own(to)[to->n] = pick->tok;
    if (to->n == 0) { /* a biased token that is not among the raw list keeps what the law says of it */
        to->logprob[0] = top->logprob[pick->at];
        to->rank[0] = pick->at;
    }
    to->n++;
    to->score = pick->score;
}

/* The first tokens' own log-probabilities. */
static void take_first(struct seq *s, const struct step_plan *p, const struct step_result *r, int32_t at)
{
    struct superposition *u = super_of(s);
    const struct readout *raw = &p->readout[at];
    struct superposed_text *list[] = {u->alive, u->ended};
    const int32_t n[] = {u->n_alive, u->n_ended};
    for (int32_t l = 0; l < 2; l++)
        for (int32_t i = 0; i < n[l]; i++)
            for (int32_t k = 0; k < raw->n; k++)
                if (list[l][i].n_before == s->n_out && r->i[raw->i0 + k] == own(&list[l][i])[0]) {
                    list[l][i].logprob[0] = r->f[raw->f0 + k];
                    list[l][i].rank[0] = k;
                }
}

static double mean_score(const struct superposed_text *t)
{
    return t->score / length(t);
}

static void end_text(struct superposition *u, const struct superposed_text *t)
{
    int32_t at = u->n_ended;
    while (at > 0 && mean_score(&u->ended[at - 1]) < mean_score(t))
        at--;
    if (at == SUPERPOSED_MAX_DRAFT)
        return;
    u->n_ended += u->n_ended < SUPERPOSED_MAX_DRAFT;
    for (int32_t i = u->n_ended - 1; i > at; i--)
        u->ended[i] = u->ended[i - 1];
    u->ended[at] = *t;
}

/* False: there is no token to go on with, and the request has ended. */
static bool take_step(struct engine *eng, struct seq *s, const struct step_plan *p, const struct step_result *r,
                      int32_t at)
{
    struct superposition *u = super_of(s);
    const struct readout *k = &p->readout[at];
    struct superposed_text from[SUPERPOSED_MAX_DRAFT], ended;
    struct superposed_draft draft[SUPERPOSED_MAX_DRAFT];
    struct superposed_step out;
    bool is_end[SUPERPOSED_MAX_TOP];
    struct superposed_top top = {.tok = r->i + k->i0, .logprob = r->f + k->f0, .is_end = is_end};
    int32_t n = u->n_step == 0 ? 1 : u->n_alive;
    memcpy(from, u->alive, sizeof *from * (size_t)n);
    if (u->n_step == 0)
        begin(s, &from[0]);
    for (; top.n < k->n && top.tok[top.n] >= 0; top.n++)
        is_end[top.n] = seq_ends_at(eng, s, top.tok[top.n]);
    for (int32_t i = 0; i < n; i++)
        draft[i] = (struct superposed_draft){from[i].tok, from[i].n_context + from[i].n, from[i].score};
    if (top.n == 0) {
        snprintf(s->req->error, sizeof s->req->error, "no token can be chosen: everything is banned");
        request_finish(eng, s->req, FINISH_ERROR);
        return false;
    }
    superposed_step(&u->how, eng->ngram, &top, draft, n, &out);
    for (int32_t i = 0; i < out.n_finished; i++) {
        grow(&ended, &from[out.finished[i].parent], &out.finished[i], &top);
        end_text(u, &ended);
    }
    for (int32_t i = 0; i < out.n_alive; i++)
        grow(&u->alive[i], &from[out.alive[i].parent], &out.alive[i], &top);
    memcpy(u->weight, out.weight, sizeof u->weight);
    u->n_alive = out.n_alive;
    if (u->n_step++ == 0)
        take_first(s, p, r, at + 1);
    drafting_count_step(eng, s);
    return true;
}

/* ---- Scoring ---- */

static int32_t find_row(const struct superposition *u, int32_t parent, int32_t tok)
{
    for (int32_t i = 0; i < u->n_row; i++)
        if (u->row[i].parent == parent && u->row[i].tok == tok)
            return i;
    return -1;
}

/* Adds the text's rows, all but its last token's; false: they do not fit. */
static bool add_text(struct superposition *u, struct superposed_text *t, int32_t max_row)
{
    int32_t before = u->n_row;
    for (int32_t i = 0, parent = -1; i + 1 < t->n; i++) {
        int32_t row = find_row(u, parent, own(t)[i]);
        if (row < 0 && u->n_row == max_row) {
            u->n_row = before;
            return false;
        }
        if (row < 0) {
            row = u->n_row++;
            u->row[row] = (struct score_row){.tok = own(t)[i], .parent = parent, .depth = i};
        }
        parent = row;
    }
    return true;
}

/* As many texts as a tree has rows for; texts of one token are known already. */
static void next_tree(const struct engine *eng, struct superposition *u)
{
    int32_t max_row = eng->opt.max_batch_tokens < PLAN_MAX_TREE ? eng->opt.max_batch_tokens : PLAN_MAX_TREE;
    u->n_scored += u->n_in_tree;
    u->n_row = u->n_in_tree = 0;
    while (u->n_scored + u->n_in_tree < u->n_text && add_text(u, u->text[u->n_scored + u->n_in_tree], max_row))
        u->n_in_tree++;
}

static void take_scores(struct seq *s, const struct step_plan *p, const struct step_result *r)
{
    struct superposition *u = super_of(s);
    for (int32_t i = u->n_scored; i < u->n_scored + u->n_in_tree; i++) {
        struct superposed_text *t = u->text[i];
        for (int32_t k = 0, row = -1; k + 1 < t->n; k++) {
            row = find_row(u, row, own(t)[k]);
            const struct readout *lp = &p->readout[s->readout0 + row];
            int32_t at = 0;
            while (p->list[lp->list0 + at] != own(t)[k + 1])
                at++;
            t->logprob[k + 1] = r->f[lp->f0 + at];
            t->rank[k + 1] = r->i[lp->i0 + at];
        }
    }
}

/* ---- Ranking and saying ---- */

static int by_score(const void *a, const void *b)
{
    const struct superposed_text *x = *(struct superposed_text *const *)a, *y = *(struct superposed_text *const *)b;
    double p = mean_score(x), q = mean_score(y);
    return p != q ? (p > q ? -1 : 1) : (x > y) - (x < y);
}

static int by_logprob(const void *a, const void *b)
{
    const struct superposed_text *x = *(struct superposed_text *const *)a, *y = *(struct superposed_text *const *)b;
    double p = x->sum_logprob / length(x), q = y->sum_logprob / length(y);
    return p != q ? (p > q ? -1 : 1) : by_score(a, b);
}

static void add_texts(struct superposition *u, struct superposed_text *list, int32_t n, int32_t least_before)
{
    for (int32_t i = 0; i < n; i++)
        if (list[i].n_before >= least_before)
            u->text[u->n_text++] = &list[i];
}

static void rank(struct seq *s)
{
    struct superposition *u = super_of(s);
    const struct request *r = s->req;
    bool exact = r->p.decoding.superposed.rescore;
    u->n_text = 0;
    add_texts(u, u->alive, u->n_alive, 0);
    add_texts(u, u->ended, u->n_ended, 0);
    for (int32_t i = 0; i < u->n_text; i++) {
        struct superposed_text *t = u->text[i];
        t->sum_logprob = 0;
        for (int32_t k = 0; k < length(t) && exact; k++)
            t->sum_logprob += token_at(u, t, k).logprob;
    }
    qsort(u->text, (size_t)u->n_text, sizeof *u->text, exact ? by_logprob : by_score);
    for (int32_t i = 0; i < u->n_text && i < r->p.n; i++)
        r->score[i] =
            (struct choice_score){.score = u->text[i]->score, .logprob = exact ? u->text[i]->sum_logprob : NAN};
    u->ranked = true;
    s->n_out = 0; /* nothing was said yet */
}

/* ---- Stretches ---- */

static bool is_last_stretch(const struct seq *s)
{
    const struct superposition *u = super_of(s);
    return u->n_alive == 0 || s->n_out + u->n_step == s->req->p.max_tokens;
}

/* The draft that the text goes on with: drawn by its share, and at temperature 0, where nothing is, the best. */
static struct superposed_text *draw(const struct seq *s)
{
    struct superposition *u = super_of(s);
    struct chance_philox source;
    int32_t i = 0;
    for (int32_t k = 1; k < u->n_alive; k++)
        i = u->weight[k] > u->weight[i] ? k : i;
    if (s->req->p.temperature > 0) {
        const struct chance *chance = chance_philox(&source, s->noise_key, seq_n_tok(s), NOISE_DRAFT);
        i = chance->choose(chance->self, u->weight, u->n_alive);
    }
    return &u->alive[i];
}

/* The drawn draft is text from now on, computed next as any text is; what is known of its tokens is the first's
 * log-probability. */
static void reset(struct seq *s)
{
    struct superposition *u = super_of(s);
    struct superposed_text *t = draw(s);
    for (int32_t i = 0; i < t->n; i++) {
        u->before[s->n_out + i] = token_at(u, t, t->n_before + i);
        s->out[s->n_out + i] = own(t)[i];
    }
    u->before_score = t->score;
    u->n_known = s->n_out + 1;
    s->n_out += t->n;
    u->drafted = false;
}

static void stretch_scored(struct seq *s)
{
    if (is_last_stretch(s))
        rank(s);
    else
        reset(s);
}

/* The stretch's drafts are whole: what was computed for them is nobody's text. Drafts that go on need no scores yet. */
static void stretch_whole(struct engine *eng, struct seq *s)
{
    struct superposition *u = super_of(s);
    u->n_text = u->n_scored = u->n_in_tree = 0;
    if (is_last_stretch(s))
        add_texts(u, u->alive, u->n_alive, 0);
    add_texts(u, u->ended, u->n_ended, s->n_out);
    s->kv.n_computed = seq_n_tok(s);
    seq_trim(&eng->target, &s->kv, 0);
    u->drafted = true;
    if (s->req->p.decoding.superposed.rescore)
        next_tree(eng, u);
    if (u->n_row == 0)
        stretch_scored(s);
}

static void settle(struct engine *eng, struct seq *s, const struct step_plan *p, const struct step_result *r)
{
    struct superposition *u = super_of(s);
    if (is_tree(s)) {
        take_scores(s, p, r);
        next_tree(eng, u);
        if (u->n_row == 0)
            stretch_scored(s);
        return;
    }
    int32_t at = seq_take_prompt_scores(s, p, r);
    if (is_behind(s)) {
        at = take_decided(s, p, r, at);
        bool last = seq_draws(s) && !u->drafted;
        seq_commit(&eng->target, s, &s->kv, s->n_want);
        if (!last)
            return;
    } else {
        s->kv.n_computed++; /* never published */
    }
    if (take_step(eng, s, p, r, at) && (is_last_stretch(s) || u->n_step == s->req->p.decoding.superposed.reset_every))
        stretch_whole(eng, s);
}

const struct strategy_ops strategy_superposed = {
    .name = "superposed", .want = n_wanted, .whole = is_tree, .plan = plan, .settle = settle};

bool superposed_token(const struct gang *g, int32_t text, int32_t i, struct sampled *out)
{
    const struct superposition *u = container_of(g, struct superposition, gang);
    struct superposed_text *t = u->text[text];
    if (i == length(t))
        return false;
    struct superposed_token k = token_at(u, t, i);
    *out = (struct sampled){.tok = k.tok, .logprob = k.logprob, .rank = k.rank};
    return true;
}

enum gang_news superposed_gather(struct engine *eng, struct gang *g)
{
    struct superposition *u = container_of(g, struct superposition, gang);
    return u->ranked ? gang_say_choices(eng, g, u->n_text) : GANG_IDLE;
}
