/* A small model file with random weights and a byte-level vocabulary, written to a temporary path. */
#ifndef GALLEY_TEST_TINY_GGUF_H
#define GALLEY_TEST_TINY_GGUF_H

#include <stdint.h>

enum { TINY_VOCAB = 320, TINY_EOS = 257, TINY_IM_START = 258, TINY_IM_END = 259 };

/* Layers of the files written from now on: 2, unless a test says otherwise. */
extern int32_t tiny_n_layer;
/* galley.early_exit_layer of the files written from now on; 0: none. */
extern int32_t tiny_exit_layer;
/* Elements of a head of the files written from now on; 0: 16. */
extern int32_t tiny_head_dim;
/* Puts more keys into the files written from now on; NULL: none. */
struct gguf_writer;
extern void (*tiny_more_keys)(struct gguf_writer *w);

/* 256 byte tokens, then <|endoftext|>, ... , then two- and three-letter tokens. Returns a path the caller unlinks and
 * frees. `flaw`: noise on the weights, as a share of them, for a model that is nearly the one of this seed. */
char *tiny_gguf_write(const char *architecture, int32_t n_ctx, uint64_t seed, float flaw);

#endif
