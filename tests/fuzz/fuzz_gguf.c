/* libFuzzer: whatever the bytes, the GGUF reader refuses them or hands out only what lies within them; so does the
 * tokenizer made from them. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "mem.h"
#include "model/gguf.h"
#include "tokenizer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static volatile uint8_t sink;

static void touch(const void *p, size_t n)
{
    const uint8_t *b = p;
    if (n) {
        sink = b[0];
        sink = b[n - 1];
    }
}

static void read_key(const struct gguf *g, const struct gguf_kv *kv)
{
    char key[GGUF_MAX_NAME + 1];
    uint32_t u32;
    uint64_t u64, n;
    float f;
    bool flag;
    struct slice s;
    struct err e;
    memcpy(key, kv->key.p, kv->key.len);
    key[kv->key.len] = 0;
    if (gguf_find(g, key) != kv)
        abort();
    gguf_get_u32(g, key, &u32, &e);
    gguf_get_u64(g, key, &u64, &e);
    gguf_get_f32(g, key, &f, &e);
    gguf_get_bool(g, key, &flag, &e);
    if (!gguf_get_str(g, key, &s, &e))
        touch(s.p, s.len);
    if (gguf_arr_len(g, key, &n, &e))
        return;
    void *out = mem_calloc(n, sizeof(struct slice));
    if (!out)
        abort();
    gguf_get_i32s(g, key, out, n, &e);
    gguf_get_f32s(g, key, out, n, &e);
    if (!gguf_get_strs(g, key, out, n, &e))
        for (uint64_t i = 0; i < n; i++)
            touch(((struct slice *)out)[i].p, ((struct slice *)out)[i].len);
    mem_free(out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct gguf *g;
    struct err e = {0};
    if (gguf_open_mem(&g, data, size, "fuzz", &e)) {
        if (!e.msg[0])
            abort(); /* a refusal always says why */
        return 0;
    }
    for (int64_t i = 0; i < g->n_kv; i++)
        read_key(g, &g->kv[i]);
    for (int64_t i = 0; i < g->n_tensor; i++)
        touch(g->tensor[i].data, g->tensor[i].size_bytes);
    struct tokenizer *t = NULL;
    if (gguf_find(g, "tokenizer.ggml.model") && !tok_from_gguf(&t, g, &e))
        for (int32_t i = 0; i < tok_n_vocab(t); i++)
            touch(tok_piece(t, i).p, tok_piece(t, i).len);
    tok_free(t);
    gguf_close(g);
    return 0;
}
