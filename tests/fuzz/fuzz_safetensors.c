/* libFuzzer: whatever the bytes, the safetensors reader refuses them or hands out only what lies within them. */
#include <stdint.h>
#include <stdlib.h>

#include "model/safetensors.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static volatile uint8_t sink;

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct safetensors *s;
    struct err e = {0};
    if (st_open_mem(&s, data, size, "fuzz", &e)) {
        if (!e.msg[0])
            abort(); /* a refusal always says why */
        return 0;
    }
    for (int32_t i = 0; i < s->n_tensor; i++) {
        const struct st_tensor *t = &s->tensor[i];
        if (st_find(s, t->name) != t)
            abort();
        if (t->size_bytes) {
            sink = t->data[0];
            sink = t->data[t->size_bytes - 1];
        }
    }
    st_close(s);
    return 0;
}
