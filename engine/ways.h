/* What the ways of decoding that change the text ask of a request: ranges, sequences, memory. Private to engine/. */
#ifndef GALLEY_WAYS_H
#define GALLEY_WAYS_H

#include "request.h"

/* -ERR_INVALID names the field. May lower the width of a gang to what the server runs at once. */
int way_check(struct gen_params *p, const struct request_limits *lim, struct err *e);
/* Once max_tokens is known. */
int way_check_length(const struct gen_params *p, struct err *e);
/* KV blocks that the request needs in the worst case, and sequences. */
int32_t way_n_block(const struct gen_params *p, int32_t n_prompt, int32_t block_len);
int32_t way_n_seq(const struct gen_params *p);
/* Gangs and states, after the sequences; false: out of memory. */
bool way_init(struct request *r);

#endif
