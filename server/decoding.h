/* How a request is to be decoded: the `decoding` and `prediction` fields, and what the answer says about it.
 * Private to server/.
 *
 *   "decoding": a word, short for {"strategy": word}
 *   "decoding": {"strategy": "auto" | "off" | "speculative" | "copy" | "model" | "early_exit" | "trigram",
 *                "draft": {"source": "auto" | "copy" | "model" | "early_exit" | "trigram", "max": 1..64,
 *                          "threshold": 0..1, "min_match": 1..16, "fallback": "none" | "model" | "early_exit",
 *                          "scope": "request" | "tenant",
 *                          "exits": [layer, ...], "thresholds": [0..1, ...],
 *                          "tree": {"nodes": 1..64, "width": 1..8, "depth": 1..64,
 *                                   "sampling": "auto" | "iid" | "wor" | "greedy" | "sbs" | "dyspec", "threshold": 0..1}},
 *                "verify": "auto" | "nss" | "naive" | "rrs" | "kseq" | "greedy" | "block" | "traversal",
 *                "lossless": true | false, "invariant_seed": true | false}
 *   "decoding": {"strategy": "cautious" | "contrastive" | "beam" | "diverse_beam" | "superposed", ...}     see ways.h
 *   "decoding": {"strategy": "vote" | "navigate", ...}                        composed answers: compose/compose.h
 *   "prediction": {"type": "content", "content": "..." | [{"type": "text", "text": "..."}]}      as OpenAI has it
 */
#ifndef GALLEY_DECODING_H
#define GALLEY_DECODING_H

#include "job.h"

/* As requests spell it: "copy". */
const char *decoding_source_name(enum draft_source source);
/* From j->body into j->par and j->prediction; false: e is filled. */
bool decoding_read(struct job *j, struct api_error *e);
/* The `decoding` member of an answer, from its comma on, when the request asked for a way of decoding. */
void decoding_write(const struct job *j, struct text_buf *b);

#endif
