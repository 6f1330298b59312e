/* What `auto` may lose by asking for drafts. Whether a source pays is estimated from rates and the cost of steps, and
 * estimates can be wrong; so each source has an account. It is kept in steps, which is time as long as steps last
 * alike: a debt made in a full batch is none too large when the batch has emptied. Asking a source and verifying what
 * it said is spent; a token that came true earns what a step without drafts spends on one. Every step of `auto`'s
 * sequences adds LEDGER_SHARE of itself, up to LEDGER_STEPS in all, and a source that is overdrawn is not asked.
 *
 * So in any number of steps a source costs `auto` at most LEDGER_SHARE of them, LEDGER_STEPS and one asking more than
 * it gains; three sources at most serve a sequence (copies, trigrams, a model), which makes 1.5 percent. And it is
 * noticed when a source that did not pay begins to: after LEDGER_TRY chances that were passed over the next is taken,
 * on that account, and after a guess that came true the one after it. Private to engine/. */
#ifndef GALLEY_LEDGER_H
#define GALLEY_LEDGER_H

#include <stdbool.h>
#include <stdint.h>

#define LEDGER_SHARE .005
enum { LEDGER_STEPS = 16, LEDGER_TRY = 127, LEDGER_SOURCES = 8 };

struct draft_ledger {                 /* owner: the engine thread; index: enum draft_source */
    double credit[LEDGER_SOURCES];    /* steps */
    int32_t n_passed[LEDGER_SOURCES]; /* chances in a row that were passed over, over all sequences */
};

/* All accounts full. */
void ledger_open(struct draft_ledger *l);
/* In steps as they would be without drafts. */
void ledger_book(struct draft_ledger *l, int32_t source, double earned, double spent);
/* A step went by; so much of it, 0 to 1, was for sequences that `auto` serves. */
void ledger_step(struct draft_ledger *l, double share);
/* The source may be asked, if it is expected to pay; */
bool ledger_allows(const struct draft_ledger *l, int32_t source);
/* and if it is not, it may be asked all the same. */
bool ledger_tries(const struct draft_ledger *l, int32_t source);

/* A chance to ask was passed over, or taken; the first token that the source said came true. */
void ledger_pass(struct draft_ledger *l, int32_t source);
void ledger_ask(struct draft_ledger *l, int32_t source);
void ledger_hit(struct draft_ledger *l, int32_t source);

#endif
