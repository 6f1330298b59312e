/* What `auto` asks for in a step, what it costs and what comes of it: the entries for the ledger, and who may ask. */
#include "drafting.h"

enum {
    PLAIN_EVERY = 128, /* steps of which one at least has no drafts: what such a step takes has to be known, ... */
    PLAIN_FIRST = 4,   /* and soon */
    LONG_ASKING = 4,   /* steps; asking that took longer was not the source's doing: the machine was busy elsewhere */
};

bool drafts_by_worth(const struct seq *s)
{
    return s->req->p.decoding.strategy == DECODE_AUTO;
}

bool drafts_may_ask(const struct seq *s, enum draft_source source)
{
    const struct engine *eng = s->req->eng;
    return !drafts_by_worth(s) ||
           (eng->n_since_plain < eng->plain_every && ledger_allows(&eng->ledger, (int32_t)source));
}

void drafts_asked(struct engine *eng, enum draft_source source, int64_t from_ns, int32_t n_auto, int32_t n)
{
    struct step_books *b = &eng->books;
    double took = (double)(clock_ns() - from_ns) * 1e-9, most = LONG_ASKING * b->price * b->n_token;
    if (n_auto > 0)
        b->spent[source] += (took < most ? took : most) * n_auto / n;
}

void books_open(struct engine *eng)
{
    struct step_books *b = &eng->books;
    *b = (struct step_books){0};
    for (const struct seq *s = eng->running.head; s; s = s->next) {
        b->n_token += seq_draws(s);
        b->n_auto += seq_draws(s) && drafts_by_worth(s);
    }
    if (b->n_token > 0)
        b->price = cost_step(&eng->target.cost, b->n_token) / b->n_token;
}

void books_start(struct engine *eng)
{
    eng->plain_every = PLAIN_FIRST;
    ledger_open(&eng->ledger);
}

void books_close(struct engine *eng)
{
    const struct step_books *b = &eng->books;
    const struct step_cost *cost = &eng->target.cost;
    int32_t n_row = eng->target.plan.n.n_row;
    double plain = b->price * b->n_token;
    double row = b->n_drafted ? (cost_step(cost, n_row) - cost_step(cost, n_row - b->n_drafted)) / b->n_drafted : 0;
    bool any = false;
    if (b->n_token == 0)
        return;
    for (int32_t i = 0; i < N_DRAFT_SOURCE; i++) {
        ledger_book(&eng->ledger, i, b->n_true[i] * b->price / plain, (b->spent[i] + b->n_row[i] * row) / plain);
        eng->metrics.now.auto_asking_s[i] += b->spent[i];
        any |= b->n_row[i] > 0;
    }
    ledger_step(&eng->ledger, (double)b->n_auto / b->n_token);
    if (eng->n_since_plain == eng->plain_every && eng->plain_every < PLAIN_EVERY)
        eng->plain_every *= 2;
    eng->n_since_plain = any ? eng->n_since_plain + 1 : 0;
}
