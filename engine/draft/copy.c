#include "draft/draft.h"

enum { BEGIN_AGREES = 16 }; /* the trust in a prediction's beginning, as if so many tokens had agreed */
enum { RESUME_BACK = 4, RESUME_AHEAD = 24 }; /* tokens around a broken copy in which its place is looked for */

size_t copy_bytes(int32_t max_tokens_in_all)
{
    return history_bytes(max_tokens_in_all);
}

void copy_init(struct copy_drafter *c, void *mem, int32_t max_tokens_in_all, int32_t min_match, bool has_prediction)
{
    *c = (struct copy_drafter){.on = true, .follow = has_prediction ? 0 : -1, .begins = has_prediction};
    history_begin(&c->history, mem, max_tokens_in_all, min_match);
}

/* A guess is classed by how many tokens before it agree with the text being copied: long agreements mostly go on. */
static uint8_t agreement(int32_t len)
{
    return (uint8_t)(len < 3 ? len : len < 5 ? 3 : len < 9 ? 4 : len < 17 ? 5 : len < 33 ? 6 : 7);
}

static const float prior[N_GUESS_CLASS] = {.3f, .3f, .4f, .5f, .6f, .75f, .85f, .9f};

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

/* How many of the chain's tokens the text went on with. */
static int32_t learn(struct copy_drafter *c, struct accept_rates *all, const struct draft *d,
                     const struct history_text *t)
{
    int32_t i = 0;
    for (; i < d->n && d->n_text + i < t->n; i++) {
        bool hit = history_tok(t, d->n_text + i) == d->tok[i];
        accept_learn(&c->rates, d->guess[i], hit);
        accept_learn(all, d->guess[i], hit);
        if (!hit)
            break;
    }
    return i;
}

/* Where to copy from; at is -1 when nothing offers itself. */
static struct history_match find_source(struct copy_drafter *c, const struct history_text *t)
{
    struct history_match found = history_find(&c->history, t);
    if (!found.len)
        found.at = -1;
    if (found.at == t->n_part[0] &&
        t->n_part[0] > 0) /* a prediction ends here, and the prompt is not what follows it */
        found = (struct history_match){.at = -1};
    if (c->follow < 0 || c->follow >= t->n || (c->follow == t->n_part[0] && c->follow > 0))
        return found;
    struct history_match goes_on = {.at = c->follow, .len = history_common(t, c->follow, t->n, HISTORY_MAX_MATCH)};
    if (c->begins)
        goes_on.len = BEGIN_AGREES;
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

/* Where the last copy goes on, now that the text is longer: behind what came true, and behind one token more, which
 * took the place of what did not. */
static void move_on(struct copy_drafter *c, int32_t n_new, int32_t n_true, const struct draft *d)
{
    if (c->follow < 0 || d->n == 0)
        c->follow = -1;
    else if (n_new <= d->n)
        c->follow += n_true < n_new ? n_true + 1 : n_new;
    else
        c->follow += n_new; /* more was said than was copied */
}

void copy_propose(struct copy_drafter *c, struct accept_rates *all, const struct history_text *t, struct draft *d)
{
    if (d->n_text && t->n > d->n_text)
        move_on(c, t->n - d->n_text, learn(c, all, d, t), d);
    struct history_match m = find_source(c, t);
    *d = (struct draft){.n_text = t->n};
    c->follow = m.at;
    if (m.at < 0)
        return;
    int32_t end = source_end(t, m.at), period = t->n - m.at;
    bool loops = end == t->n && m.len >= period; /* the text ends in the same twice: the third is copied as it grows */
    d->predicted = m.at < t->n_part[0];
    d->strong = m.len >= c->history.min_match;
    float chance = 1;
    for (int32_t i = 0; i < DRAFT_MAX && (loops || m.at + i < end); i++) {
        uint8_t g = agreement(m.len + i);
        d->tok[i] = i < period ? history_tok(t, m.at + i) : d->tok[i - period];
        d->parent[i] = (int16_t)(i - 1);
        d->guess[i] = g;
        d->chance[i] = chance *= accept_rate(&c->rates, all, g, prior[g]);
        d->n++;
    }
}
