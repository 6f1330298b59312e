/* libFuzzer: whatever a GGUF file holds, or the config.json of a directory, the model is refused with a sentence or all
 * of its tensors lie within its files. Input that begins with a digit is a config.json, put into a copy of the golden
 * directory of that number. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "model/model.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char *const families[] = {"gemma2",  "gemma3",   "phi3",    "olmo2", "granite",
                                       "mixtral", "qwen3moe", "smollm3", "yarn",  "qwen3"};
static const char *const shared[] = {"model.safetensors", "tokenizer.json", "tokenizer_config.json",
                                     "generation_config.json"};
enum { N_SHARED = sizeof shared / sizeof *shared };

static volatile uint8_t sink;

static void touch(const struct tensor *t)
{
    size_t n = t->data ? dtype_row_bytes(t->type, t->n_col) * (size_t)t->n_row : 0;
    if (!n)
        return;
    sink = ((const uint8_t *)t->data)[0];
    sink = ((const uint8_t *)t->data)[n - 1];
}

static void touch_layer(const struct model_desc *d, const struct layer_weights *w)
{
    const struct tensor *all[] = {&w->attn_norm, &w->post_attn_norm,
                                  &w->ffn_norm,  &w->post_ffn_norm,
                                  &w->wq,        &w->wk,
                                  &w->wv,        &w->bq,
                                  &w->bk,        &w->bv,
                                  &w->q_norm,    &w->k_norm,
                                  &w->wo,        &w->gate,
                                  &w->up,        &w->down,
                                  &w->router};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        touch(all[i]);
    for (int32_t x = 0; w->expert && x < d->n_expert; x++) {
        touch(&w->expert[x].gate);
        touch(&w->expert[x].up);
        touch(&w->expert[x].down);
    }
}

static void open_model(const char *path)
{
    struct model m;
    struct err e = {0};
    if (model_open(path, &m, &e)) {
        if (!e.msg[0])
            abort(); /* a refusal always says why */
        return;
    }
    model_fit_context(&m, 16);
    touch(&m.w.tok_embd);
    touch(&m.w.out_norm);
    touch(&m.w.out);
    for (int32_t l = 0; l < m.desc.n_layer; l++)
        touch_layer(&m.desc, &m.w.layer[l]);
    model_close(&m);
}

static void open_gguf(const uint8_t *data, size_t size)
{
    char path[64];
    int fd = memfd_create("fuzz", 0);
    if (fd < 0 || write(fd, data, size) != (ssize_t)size)
        abort();
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    open_model(path);
    close(fd);
}

static void open_directory(int family, const uint8_t *data, size_t size)
{
    char dir[] = "/tmp/galley-fuzz-XXXXXX", from[512], to[512];
    if (!mkdtemp(dir))
        abort();
    for (int i = 0; i < N_SHARED; i++) {
        snprintf(from, sizeof from, "%s/%s/%s", MODELS, families[family], shared[i]);
        snprintf(to, sizeof to, "%s/%s", dir, shared[i]);
        if (symlink(from, to))
            abort();
    }
    snprintf(to, sizeof to, "%s/config.json", dir);
    FILE *f = fopen(to, "wb");
    if (!f || fwrite(data, 1, size, f) != size || fclose(f))
        abort();
    open_model(dir);
    unlink(to);
    for (int i = 0; i < N_SHARED; i++) {
        snprintf(to, sizeof to, "%s/%s", dir, shared[i]);
        unlink(to);
    }
    rmdir(dir);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size && data[0] >= '0' && data[0] <= '9')
        open_directory(data[0] - '0', data + 1, size - 1);
    else
        open_gguf(data, size);
    return 0;
}
