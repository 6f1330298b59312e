#include "draft/ledger.h"

#include <math.h>

void ledger_open(struct draft_ledger *l)
{
    *l = (struct draft_ledger){0};
    for (int32_t i = 0; i < LEDGER_SOURCES; i++)
        l->credit[i] = LEDGER_STEPS;
}

void ledger_step(struct draft_ledger *l, double share)
{
    for (int32_t i = 0; i < LEDGER_SOURCES; i++)
        l->credit[i] = fmin(l->credit[i] + LEDGER_SHARE * share, LEDGER_STEPS);
}

void ledger_book(struct draft_ledger *l, int32_t source, double earned, double spent)
{
    l->credit[source] += earned - spent;
}

bool ledger_allows(const struct draft_ledger *l, int32_t source)
{
    return l->credit[source] >= 0;
}

bool ledger_tries(const struct draft_ledger *l, int32_t source)
{
    return ledger_allows(l, source) && l->n_passed[source] >= LEDGER_TRY;
}

void ledger_pass(struct draft_ledger *l, int32_t source)
{
    l->n_passed[source] += l->n_passed[source] < LEDGER_TRY;
}

void ledger_ask(struct draft_ledger *l, int32_t source)
{
    l->n_passed[source] = 0;
}

void ledger_hit(struct draft_ledger *l, int32_t source)
{
    l->n_passed[source] = LEDGER_TRY;
}
