/* Within the reading of tokenizer.json: the vocabulary (tok_hf.c) and the steps around it (tok_hf_steps.c). Source: the
 * file as Hugging Face's tokenizers library writes it. */
#ifndef GALLEY_TOK_HF_H
#define GALLEY_TOK_HF_H

#include <jansson.h>

#include "tokenizer.h"

struct hf_steps {               /* owner: the reading call */
    char *regex[TOK_MAX_REGEX]; /* owned */
    const char *bos, *eos;      /* names that the post-processor puts around a text; borrowed from the JSON */
    bool replaces_spaces;       /* the normalizer writes U+2581 for them */
};

/* normalizer, pre_tokenizer and post_processor of `file` into the configuration, whose `regex` then points into
 * `steps`. -ERR_FORMAT names the step that Galley does not know. */
int hf_read_steps(const json_t *file, struct tok_config *c, struct hf_steps *steps, struct err *e);
void hf_steps_free(struct hf_steps *steps);

#endif
