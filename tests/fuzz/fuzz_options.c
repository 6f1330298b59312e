/* The first byte chooses: a YAML configuration file, or flags separated by newlines. */
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "options.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void try_yaml(const uint8_t *data, size_t n)
{
    static int fd = -1;
    char path[64];
    struct options o = {0};
    struct option_source src = {0};
    struct err e;
    if (fd < 0)
        fd = memfd_create("config", 0);
    if (ftruncate(fd, 0) || pwrite(fd, data, n, 0) != (ssize_t)n)
        return;
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    options_read_yaml(&o, &src, path, &e);
    options_free(&o);
}

static void try_flags(const uint8_t *data, size_t n)
{
    char text[4096], *argv[64];
    int argc = 0;
    if (n >= sizeof text)
        return;
    memcpy(text, data, n);
    text[n] = 0;
    for (char *at = strtok(text, "\n"); at && argc < 64; at = strtok(NULL, "\n"))
        if (strncmp(at, "--config", 8)) /* would read files of this machine */
            argv[argc++] = at;
    struct options o;
    struct err e;
    if (!options_parse(&o, argc, argv, &e))
        options_free(&o);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    if (n > 0 && data[0] == '-')
        try_flags(data, n);
    else
        try_yaml(data, n);
    return 0;
}
