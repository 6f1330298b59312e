/* The trigram source in the engine: whose table a sequence drafts from, and when a search is worth its time.
 *
 * What a table has learnt shows in what its drafts achieve: in times, but also in the accepted tokens that an answer
 * reports. So a table is its request's alone, and goes with it; all of its choices share it. Only a request that asks
 * for it (decoding.draft.scope "tenant") learns from others and teaches them, and only those with its own cache_salt:
 * they share prefixes as well, whose tokens are reported no less plainly. */
#include <string.h>
#include <xxhash.h>

#include "draft/trigram_drafter.h"
#include "drafting.h"
#include "mem.h"

enum {
    N_TENANT = 8, /* tables; more tenants at once than these learn for each request alone */
    TENANT_CONTEXTS = 1 << 13,
};
static const int64_t TENANT_KEEP_NS = 60000000000; /* a table not used for so long may become another tenant's */
static const double FIRST_SEARCH_S = 100e-6, ADAPT = .05;

struct tenant {
    XXH128_hash_t salt; /* its hash, with a secret seed */
    int64_t used_ns;    /* 0: nobody's */
    struct trigrams table;
};

struct trigram_source { /* owner: the engine thread */
    struct trigram_search search;
    struct tree_rates rates; /* of all sequences; they tell shares apart, not words */
    double search_s;         /* what a search takes */
    double seconds, n_token; /* what the step costs, but for prompts, and yields so far */
    int32_t n_row;           /* rows it has */
    struct tenant tenant[N_TENANT];
    struct trigram_context *memory; /* [N_TENANT][TENANT_CONTEXTS] */
};

int trigrams_create(struct engine *eng, struct err *e)
{
    struct trigram_source *w = eng->trigram = mem_calloc(1, sizeof *w);
    size_t n = trigrams_bytes(TENANT_CONTEXTS);
    if (w)
        w->memory = mem_calloc(N_TENANT, n); /* touched when a tenant comes, not before */
    if (!w || !w->memory)
        return err_set(e, ERR_NOMEM, "out of memory");
    w->search_s = FIRST_SEARCH_S;
    for (int32_t i = 0; i < N_TENANT; i++)
        trigrams_init(&w->tenant[i].table, w->memory + i * TENANT_CONTEXTS, TENANT_CONTEXTS, eng->ngram);
    return 0;
}

void trigrams_free(struct engine *eng)
{
    if (eng->trigram)
        mem_free(eng->trigram->memory);
    mem_free(eng->trigram);
}

/* ---- Whose table ---- */

/* The tenant's table, one that nobody used for long, or NULL. */
static struct trigrams *tenant_table(struct engine *eng, const char *salt)
{
    struct tenant *all = eng->trigram->tenant, *oldest = all;
    XXH128_hash_t hash = XXH3_128bits_withSeed(salt, strlen(salt), eng->target.pool.hash_seed);
    int64_t now = eng->now_ns > 0 ? eng->now_ns : 1;
    for (int32_t i = 0; i < N_TENANT; i++) {
        if (all[i].used_ns && XXH128_isEqual(all[i].salt, hash)) {
            all[i].used_ns = now;
            return &all[i].table;
        }
        if (all[i].used_ns < oldest->used_ns)
            oldest = &all[i];
    }
    if (oldest->used_ns && now - oldest->used_ns < TENANT_KEEP_NS)
        return NULL;
    if (oldest->used_ns)
        trigrams_clear(&oldest->table);
    oldest->salt = hash;
    oldest->used_ns = now;
    return &oldest->table;
}

/* NULL: its request's own. */
static struct trigrams *shared_table(struct engine *eng, struct seq *s)
{
    const struct gen_params *p = &s->req->p;
    return p->decoding.scope == DRAFT_SCOPE_TENANT ? tenant_table(eng, p->cache_salt) : NULL;
}

/* What the table does not know yet. */
static void take_in(struct seq *s, struct trigrams *table, const struct history_text *t)
{
    trigrams_take(table, t, &s->req->n_taken, s->req->n_prompt);
    trigrams_take(table, t, &s->trigram.n_taken, t->n);
}

/* ---- Whether to search ---- */

/* The most that the draft's rows add to what the step yields, less what their time would yield otherwise. */
static double gain(const struct engine *eng, const struct draft *d, int32_t most)
{
    const struct trigram_source *w = eng->trigram;
    double sum = 0, best = 0, base = cost_step(&eng->target.cost, w->n_row);
    for (int32_t i = 0; i < d->n && i < most; i++) {
        sum += d->chance[i];
        double net = sum - (cost_step(&eng->target.cost, w->n_row + i + 1) - base) * w->n_token / w->seconds;
        best = net > best ? net : best;
    }
    return best;
}

/* Its first row pays for the search and itself, by the second, at least what the step yields so far; and a copy that
 * stands promises less. What is not searched does not learn, so now and then a search is made all the same. */
static bool pays(const struct engine *eng, const struct seq *s)
{
    const struct trigram_source *w = eng->trigram;
    double rate = (double)trigram_mean_rate(&s->trigram, &w->rates), expected = rate / (1 - rate + 1e-6);
    double row = cost_step(&eng->target.cost, w->n_row + 1) - cost_step(&eng->target.cost, w->n_row);
    if (!drafts_may_ask(s, DRAFT_SOURCE_TRIGRAM) ||
        (s->draft->n > 0 && gain(eng, s->draft, drafts_most(s)) >= expected))
        return false;
    return ledger_tries(&eng->ledger, DRAFT_SOURCE_TRIGRAM) || rate / (w->search_s + row) >= w->n_token / w->seconds;
}

static void search(struct engine *eng, struct seq *s, struct trigrams *table, const struct history_text *t)
{
    struct trigram_source *w = eng->trigram;
    int32_t depth = drafts_most(s), rows = eng->opt.max_draft, asked = s->req->p.decoding.max_draft;
    if (asked && asked < rows)
        rows = asked;
    int64_t from = clock_ns();
    struct trigram_noise noise = {.key = s->noise_key, .position = seq_n_tok(s)};
    trigram_propose(&s->trigram, table, &w->search, &w->rates, t, s->req->p.temperature > 0 ? &noise : NULL, rows,
                    depth < TRIGRAM_DEPTH + 1 ? depth : TRIGRAM_DEPTH + 1, &s->guessed);
    double took = (double)(clock_ns() - from) * 1e-9;
    w->search_s += ADAPT * (took - w->search_s);
    w->seconds += took;
    eng->metrics.now.n_trigram_search++;
    eng->metrics.now.trigram_search_s += took;
}

/* ---- In a step ---- */

static void propose(struct engine *eng, struct seq *s)
{
    struct trigram_source *w = eng->trigram;
    struct request *r = s->req;
    bool named = r->p.decoding.source == DRAFT_SOURCE_TRIGRAM;
    struct trigrams *shared = shared_table(eng, s), *table = shared ? shared : &r->trigrams;
    struct history_text t = {
        .part = {NULL, r->prompt, s->out}, .n_part = {0, r->n_prompt, s->n_out}, .n = r->n_prompt + s->n_out};
    if (drafts_by_worth(s) && draft_began_right(&s->guessed, &t))
        ledger_hit(&eng->ledger, DRAFT_SOURCE_TRIGRAM);
    trigram_follow(&s->trigram, &w->rates, &t, &s->guessed);
    if (shared) /* others learn from what this one says */
        take_in(s, table, &t);
    if (drafts_most(s) <= 0)
        return;
    if (!named && !pays(eng, s)) {
        ledger_pass(&eng->ledger, DRAFT_SOURCE_TRIGRAM);
        return;
    }
    if (drafts_by_worth(s))
        ledger_ask(&eng->ledger, DRAFT_SOURCE_TRIGRAM);
    int64_t from = clock_ns();
    take_in(s, table, &t);
    search(eng, s, table, &t);
    drafts_asked(eng, DRAFT_SOURCE_TRIGRAM, from, drafts_by_worth(s), 1);
    s->guessed.strong = named;
    if (!named && gain(eng, &s->guessed, eng->opt.max_draft) <= gain(eng, s->draft, drafts_most(s)))
        return;
    s->draft = &s->guessed;
    if (s->guessed.n) {
        w->n_token += (double)s->guessed.chance[0];
        w->n_row++;
    }
}

void trigrams_run(struct engine *eng, int32_t n_row, double n_token)
{
    struct trigram_source *w = eng->trigram;
    if (!w)
        return;
    w->n_row = n_row;
    w->n_token = n_token;
    w->seconds = cost_step(&eng->target.cost, (int32_t)n_token);
    for (struct seq *s = eng->running.head; s; s = s->next)
        if (s->trigram.on && drafts_now(s))
            propose(eng, s);
}
