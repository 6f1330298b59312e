/* What the final answer of a sampled text is, so that samples can be compared. Pure. Private to server/compose.
 *
 *   number   the last number in the last line that is not blank, normalised: commas between thousands, a leading +,
 *            leading zeros and the zeros that end a fraction go ("+1,234.50" is 1234.5, "-0.0" is 0); a dash is a minus
 *            unless a letter, a digit or a closing bracket stands right before it ("10-3" ends in 3)
 *   after    the rest of the line behind the last occurrence of a marker, trimmed
 *   text     the whole text, trimmed
 */
#ifndef GALLEY_COMPOSE_ANSWER_H
#define GALLEY_COMPOSE_ANSWER_H

#include "slice.h"
#include "text_buf.h"

enum answer_kind { ANSWER_NUMBER, ANSWER_AFTER, ANSWER_TEXT };

struct answer_rule {
    enum answer_kind kind;
    const char *after; /* ANSWER_AFTER: the marker; borrowed */
};

/* Appends the answer to out; false: the text has none, and nothing is appended. */
bool answer_extract(const struct answer_rule *rule, const char *text, size_t n, struct text_buf *out);

/* Reasoning steps of n texts (others.md 11.1): their lines that are not blank; or, when none has more than one of
 * those, their sentences, which end in . ! ? before a space or the end, or in a semicolon. */
void answer_steps(const struct slice *text, int32_t n, int32_t *steps);

#endif
