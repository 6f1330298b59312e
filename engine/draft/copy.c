#include "draft.h"

enum { BEGIN_AGREES = 16 }; /* the trust in a prediction's beginning, as if so many tokens had agreed */
enum { RESUME_BACK = 4, RESUME_AHEAD = 24 }; /* tokens around a broken copy in which its place is looked for */

/* ---- How often guesses come true ---- */

enum { FULL_WEIGHT = 48 }; /* observations after which old ones fade */

static int32_t agreement(int32_t len)
{
    int32_t c = len < 3 ? len : len < 5 ? 3 : len < 9 ? 4 : len < 17 ? 5 : len < 33 ? 6 : 7;
    return c;
}

float accept_rate(const struct accept_rates *own, const struct accept_rates *all, int32_t len)
{
    static const float guess[N_AGREEMENT] = {.3f, .3f, .4f, .5f, .6f, .75f, .85f, .9f};
    int32_t c = agreement(len);
    float shared = (all->hit[c] + 8 * guess[c]) / (all->seen[c] + 8);
    return (own->hit[c] + 6 * shared) / (own->seen[c] + 6);
}

void accept_learn(struct accept_rates *r, int32_t len, bool hit)
{
    int32_t c = agreement(len);
    r->hit[c] += hit;
    r->seen[c] += 1;
    if (r->seen[c] > FULL_WEIGHT) {
        r->hit[c] /= 2;
        r->seen[c] /= 2;
    }
}

/* ---- Copying ---- */

size_t copy_bytes(int32_t max_tokens_in_all)
{
    return history_bytes(max_tokens_in_all);
}

void copy_init(struct copy_drafter *c, void *mem, int32_t max_tokens_in_all, int32_t min_match, bool has_prediction)
{
    *c = (struct copy_drafter){.on = true, .follow = has_prediction ? 0 : -1, .begins = has_prediction};
    history_init(&c->history, mem, max_tokens_in_all, min_match);
}

/* A copy that broke off: the nearby place whose last tokens agree best, the nearest of equals; else the very place, as
 * if one token had been exchanged. */
static struct history_match resume(const struct copy_drafter *c, const struct history_text *t)
{
    struct history_match best = {.at = c->follow, .len = 0};
    int32_t from = c->follow > RESUME_BACK ? c->follow - RESUME_BACK : 1,
            to = c->follow + RESUME_AHEAD < t->n ? c->follow + RESUME_AHEAD : t->n - 1;
    for (int32_t at = from; at <= to; at++) {
        int32_t len = history_common(t, at, t->n, HISTORY_MAX_MATCH);
        if (len > best.len || (len && len == best.len && at <= c->follow))
            best = (struct history_match){.at = at, .len = len};
    }
    return best;
}

/* Where to copy from; at is -1 when nothing offers itself. */
static struct history_match find_source(struct copy_drafter *c, const struct history_text *t)
{
    struct history_match found = history_find(&c->history, t);
    if (!found.len)
        found.at = -1;
    if (c->follow < 0 || c->follow >= t->n)
        return found;
    struct history_match goes_on = {.at = c->follow, .len = history_common(t, c->follow, t->n, HISTORY_MAX_MATCH)};
    if (c->begins)
        goes_on.len = BEGIN_AGREES; /* the answer is expected to begin as its prediction does */
    else if (goes_on.len == 0)
        goes_on = resume(c, t);
    c->begins = false;
    return found.len > goes_on.len ? found : goes_on;
}

/* One past the last token that can be copied from `at`: a prediction ends where the prompt begins. */
static int32_t source_end(const struct history_text *t, int32_t at)
{
    return at < t->n_part[0] ? t->n_part[0] : t->n;
}

void copy_propose(struct copy_drafter *c, const struct accept_rates *all, const struct history_text *t, struct draft *d)
{
    struct history_match m = find_source(c, t);
    d->n = 0;
    c->n_text = t->n;
    c->follow = m.at;
    if (m.at < 0)
        return;
    int32_t end = source_end(t, m.at);
    d->agreed = m.len;
    d->predicted = m.at < t->n_part[0];
    while (d->n < DRAFT_MAX && m.at + d->n < end) {
        d->tok[d->n] = history_tok(t, m.at + d->n);
        d->accept[d->n] = accept_rate(&c->rates, all, m.len + d->n);
        d->n++;
    }
}

void copy_observe(struct copy_drafter *c, struct accept_rates *all, const struct history_text *t, const struct draft *d)
{
    for (int32_t i = 0; c->n_text && c->n_text + i < t->n; i++) {
        if (i == d->n) { /* longer than what was guessed */
            c->follow = c->follow >= 0 && d->n ? c->follow + (t->n - c->n_text) : -1;
            return;
        }
        bool hit = history_tok(t, c->n_text + i) == d->tok[i];
        accept_learn(&c->rates, d->agreed + i, hit);
        accept_learn(all, d->agreed + i, hit);
        c->follow++;
        if (!hit)
            return;
    }
}
