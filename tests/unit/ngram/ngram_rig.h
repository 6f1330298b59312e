/* Random documents, stores made from them, and counts taken the slow and obvious way. */
#ifndef GALLEY_TEST_NGRAM_RIG_H
#define GALLEY_TEST_NGRAM_RIG_H

#include "ngram/write.h"
#include "random_plan.h"

struct text {     /* documents one after the other; owned by the test */
    int32_t *tok; /* [n]; NGRAM_NO_TOKEN after each document */
    size_t n, cap;
    uint32_t n_token, n_doc;
};

void text_add(struct text *t, const int32_t *tok, size_t n_tok); /* a document */
/* About n_tok tokens below n_vocab, some much more frequent than others, in documents of 0 .. 2 * mean_len tokens. */
struct text text_random(struct rnd *r, int32_t n_vocab, size_t n_tok, int32_t mean_len);
void text_free(struct text *t);

/* How often `gram` occurs within documents: a scan of the whole text. */
uint32_t text_count(const struct text *t, const int32_t *gram, int32_t n);

/* A path in the temporary directory that no other process of these tests uses. */
void rig_path(char out[256], const char *name);

/* Writes the text's store; returns ngram_write's result. */
int rig_write(const char *path, const struct text *t, const struct ngram_write_options *o, size_t memory_bytes,
              struct ngram_header *h, struct err *e);
/* The whole file, in memory of exactly its size, so that a sanitizer sees any over-read. */
uint8_t *rig_read(const char *path, size_t *n_byte);

#endif
