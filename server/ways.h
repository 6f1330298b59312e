/* The ways of decoding that change the text: their fields in `decoding`, and what the answer says of them. Private to
 * server/.
 *
 *   {"strategy": "cautious", "h_min": 0..100 (0.01), "h_max": above h_min (1.5), "max_trials": 1..32 (10),
 *    "max_segment": 1..256 (64), "segment_end": ["." , ...] (at most 32), "formula": "code" | "paper"}
 *   {"strategy": "contrastive", "penalty_alpha": 0..1 (0.6), "top_k": 1..16 (4)}
 *   {"strategy": "beam", "num_beams": 1..32 (4), "length_penalty": -10..10 (1), "early_stopping": false}
 *   {"strategy": "diverse_beam", "num_beams" (8), "num_beam_groups": 2.. (4), "diversity_penalty": 0..100 (0.5), ...}
 *   {"strategy": "superposed", "num_drafts": 1..10 (3, at least n), "top": 1..64 (three for each draft), "alpha": 0..1
 *    (0.54; 0 without --ngram), "tau": 0.01..10 (0.06), "rescore": true,
 *    "reset_every": 0..20 (0: never)}
 */
#ifndef GALLEY_WAYS_SERVER_H
#define GALLEY_WAYS_SERVER_H

#include "job.h"

/* d->strategy is known; false: e is filled. Numbers out of range are the engine's to refuse. */
bool way_read(const json_t *o, struct decoding_params *d, struct api_error *e);
/* Members of the answer's `decoding`, each beginning with a comma. */
void way_write(const struct job *j, const struct request_decoding *did, struct text_buf *b);

#endif
