/* A model file made ready for a back end: architecture as data, tensors found and checked, tokenizer, chat template.
 * Private to engine/. Source for the keys: GGUF's documentation and llama.cpp's published names. */
#ifndef GALLEY_MODEL_H
#define GALLEY_MODEL_H

#include "backend.h"
#include "engine.h"
#include "model/fp8.h"
#include "model/source.h"
#include "tokenizer.h"

struct model {         /* owner: the engine */
    struct gguf *gguf; /* of these two the one it comes from */
    struct safetensors *st;
    struct model_info info;
    struct model_desc desc;
    struct model_weights w; /* points into the files' maps, or */
    struct fp8_store fp8;   /* into here, where model_make_weights has been */
    struct source source;   /* the same as files */
    bool is_tied;           /* the head is the embedding table, whatever else the files hold */
    bool needs_head;        /* it is not; where neither is known, it is if there is no other */
    const struct family *family;
    double weight_bytes; /* of all tensors, as they are loaded */
    float *norms;        /* norms whose files hold them less 1, as they are used */
    float *short_freq;   /* LongRoPE: frequencies where no sequence is longer than n_ctx_short; NULL: none */
    int32_t n_ctx_short;
    struct tokenizer *tok;
    int32_t n_exit, exit_layer[MAX_EXIT]; /* galley.early_exit_layers, or early_exit_layer: the output norm and head
                                             also fit after so many layers; ascending */
    char *chat_template, *architecture;   /* NUL-terminated copies behind info */
};

/* A GGUF file or a Hugging Face directory. Errors name the file and the key or tensor. */
int model_open(const char *path, struct model *m, struct err *e);
/* Every matrix of a layer that is F32, F16 or BF16 and whose rows are whole blocks becomes FP8; routers stay, and so do
 * the embedding table and the head. Before model_make_weights. -ERR_NOMEM. */
int model_to_fp8(struct model *m, struct err *e);
/* Before loading: gives the tensors that are in no file their values. n_thread 0: one for each processor. -ERR_FORMAT
 * names the tensor that has something in it which is not finite. */
int model_make_weights(struct model *m, int32_t n_thread, struct err *e);
/* Before loading: no sequence will be longer than n_ctx. */
void model_fit_context(struct model *m, int32_t n_ctx);
void model_close(struct model *m);

#endif
