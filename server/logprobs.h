/* Log-probabilities in the forms clients expect. Private to server/. */
#ifndef GALLEY_LOGPROBS_H
#define GALLEY_LOGPROBS_H

#include "job.h"

/* Records from..to of a choice: {"content":[...],"refusal":null}. */
void write_chat_logprobs(struct job *j, struct text_buf *b, const struct choice *ch, int32_t from, int32_t to);
/* {"tokens":[],"token_logprobs":[],"top_logprobs":[],"text_offset":[]}; with p, the prompt's tokens come first (echo).
 * text_offset counts characters. */
void write_completion_logprobs(struct job *j, struct text_buf *b, const struct choice *ch, int32_t from, int32_t to,
                               const struct prompt *p);
/* vLLM's prompt_logprobs: [null, {"id": {"logprob", "rank", "decoded_token"}, ...}, ...] */
void write_prompt_logprobs(struct job *j, struct text_buf *b, const struct prompt *p);
/* Characters that begin in the token's text. */
int32_t token_chars(const struct tokenizer *tok, int32_t id);
/* [1,2,3] */
void write_ids(struct text_buf *b, const int32_t *id, int32_t n);
void write_record_ids(struct text_buf *b, const struct choice *ch, int32_t from, int32_t to);

#endif
