#include "topology.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PATH_BYTES = 1024, LIST_BYTES = 16384 };

void topology_allowed(struct cpu_mask *out)
{
    *out = (struct cpu_mask){0};
    if (sched_getaffinity(0, sizeof *out, (cpu_set_t *)(void *)out))
        cpu_mask_set(out, 0);
}

/* The first LIST_BYTES of a small file as a string. */
static int read_text(const char *path, char text[LIST_BYTES])
{
    FILE *f = fopen(path, "r");
    if (!f)
        return 0;
    text[fread(text, 1, LIST_BYTES - 1, f)] = 0;
    fclose(f);
    return 1;
}

/* "0-3,8,10-11": calls fn with each number from 0 to most - 1. Stops at what it cannot read. */
static void each_of_list(const char *text, int32_t most, void (*fn)(void *arg, int32_t i), void *arg)
{
    while (*text >= '0' && *text <= '9') {
        char *end;
        long from = strtol(text, &end, 10), to = from;
        if (*end == '-')
            to = strtol(end + 1, &end, 10);
        for (long i = from; i <= to && i < most; i++)
            fn(arg, (int32_t)i);
        text = end + (*end == ',');
    }
}

static void lowest(void *arg, int32_t i)
{
    int32_t *core = arg;
    *core = *core < 0 || i < *core ? i : *core;
}

static int32_t core_of(const char *root, int32_t cpu, char text[LIST_BYTES])
{
    static const char *const name[] = {"core_cpus_list", "thread_siblings_list"}; /* the new one and the old one */
    int32_t core = -1;
    for (int i = 0; i < 2 && core < 0; i++) {
        char path[PATH_BYTES];
        snprintf(path, sizeof path, "%s/sys/devices/system/cpu/cpu%d/topology/%s", root, cpu, name[i]);
        if (read_text(path, text))
            each_of_list(text, MAX_CPU, lowest, &core);
    }
    return core < 0 ? cpu : core;
}

struct node_walk {
    struct topology *t;
    const char *root;
    char *text;
    int32_t node;
};

static void cpu_on_node(void *arg, int32_t cpu)
{
    struct node_walk *w = arg;
    for (int32_t i = 0; i < w->t->n_cpu; i++)
        if (w->t->cpu[i].cpu == cpu)
            w->t->cpu[i].node = w->node;
}

static void read_node(void *arg, int32_t node)
{
    struct node_walk *w = arg;
    char path[PATH_BYTES];
    snprintf(path, sizeof path, "%s/sys/devices/system/node/node%d/cpulist", w->root, node);
    w->node = node;
    if (read_text(path, w->text)) /* empty: a node that has only memory */
        each_of_list(w->text, MAX_CPU, cpu_on_node, w);
}

static void count_distinct(struct topology *t)
{
    t->n_core = t->n_node = 0;
    for (int32_t i = 0; i < t->n_cpu; i++) {
        int new_core = 1, new_node = 1;
        for (int32_t j = 0; j < i; j++) {
            new_core &= t->cpu[j].core != t->cpu[i].core;
            new_node &= t->cpu[j].node != t->cpu[i].node;
        }
        t->n_core += new_core;
        t->n_node += new_node;
    }
}

void topology_read(struct topology *t, const char *root, const struct cpu_mask *allowed)
{
    char path[PATH_BYTES], nodes[LIST_BYTES], text[LIST_BYTES];
    t->n_cpu = 0;
    for (int32_t cpu = 0; cpu < MAX_CPU; cpu++)
        if (cpu_mask_has(allowed, cpu))
            t->cpu[t->n_cpu++] = (struct topology_cpu){.cpu = cpu, .core = core_of(root, cpu, text)};
    struct node_walk w = {.t = t, .root = root, .text = text};
    snprintf(path, sizeof path, "%s/sys/devices/system/node/online", root);
    if (read_text(path, nodes))
        each_of_list(nodes, MAX_NODE, read_node, &w);
    count_distinct(t);
}

/* ---- Control groups ---- */

/* cpu.max: "max 100000" or "250000 100000". */
static int32_t quota_of(const char *root, const char *group)
{
    char path[PATH_BYTES + 64], text[LIST_BYTES];
    long long quota, period;
    snprintf(path, sizeof path, "%s/sys/fs/cgroup%s/cpu.max", root, group);
    if (!read_text(path, text) || sscanf(text, "%lld %lld", &quota, &period) != 2 || quota < 1 || period < 1)
        return INT32_MAX;
    long long n = (quota + period - 1) / period;
    return n < INT32_MAX ? (int32_t)n : INT32_MAX;
}

int32_t topology_quota(const char *root)
{
    char path[PATH_BYTES], text[LIST_BYTES], *group = NULL;
    snprintf(path, sizeof path, "%s/proc/self/cgroup", root);
    if (read_text(path, text)) {
        group = !strncmp(text, "0::/", 4) ? text : strstr(text, "\n0::/");
        group = group ? strchr(group, '/') : NULL;
    }
    if (!group)
        return INT32_MAX;
    group[strcspn(group, "\n")] = 0;
    group[strlen(group) < PATH_BYTES / 2 ? strlen(group) : 0] = 0; /* longer than any real one */
    int32_t least = INT32_MAX;
    for (;;) { /* a limit higher up holds as well */
        int32_t n = quota_of(root, group);
        least = n < least ? n : least;
        char *slash = strrchr(group, '/');
        if (!slash)
            return least;
        *slash = 0;
    }
}

int32_t topology_threads(const struct topology *t, const char *root)
{
    int32_t quota = topology_quota(root);
    return t->n_core < quota ? t->n_core : quota;
}
