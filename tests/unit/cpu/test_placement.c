/* Topologies read from trees of files like Linux's, and what is made of them: where workers go and who is near what. */
#include <check.h>
#include <ftw.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "placement.h"
#include "random_plan.h"
#include "../suite.h"

/* ---- Trees ---- */

static char root[64];

static void setup(void)
{
    strcpy(root, "/tmp/galley-sys-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(root));
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    return remove(path);
}

static void teardown(void)
{
    nftw(root, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

/* Writes ROOT/path with the folders above it. */
__attribute__((format(printf, 2, 3))) static void put(const char *text, const char *format, ...)
{
    char path[512];
    va_list ap;
    int n = snprintf(path, sizeof path, "%s/", root);
    va_start(ap, format);
    vsnprintf(path + n, sizeof path - (size_t)n, format, ap);
    va_end(ap);
    for (char *c = path + n; *c; c++)
        if (*c == '/') {
            *c = 0;
            mkdir(path, 0700);
            *c = '/';
        }
    FILE *f = fopen(path, "w");
    ck_assert_ptr_nonnull(f);
    fprintf(f, "%s\n", text);
    fclose(f);
}

static void put_cpu(int cpu, const char *siblings)
{
    put(siblings, "sys/devices/system/cpu/cpu%d/topology/core_cpus_list", cpu);
}

static void put_node(int node, const char *cpus)
{
    put(cpus, "sys/devices/system/node/node%d/cpulist", node);
}

static void put_nodes(const char *online)
{
    put(online, "sys/devices/system/node/online");
}

/* n_node nodes of n_core cores of two processors, numbered as usual: c and c + all the cores. */
static void put_machine(int n_node, int n_core)
{
    int all = n_node * n_core;
    char text[64];
    for (int c = 0; c < all; c++) {
        snprintf(text, sizeof text, "%d,%d", c, c + all);
        put_cpu(c, text);
        put_cpu(c + all, text);
    }
    for (int k = 0; k < n_node; k++) {
        snprintf(text, sizeof text, "%d-%d,%d-%d", k * n_core, (k + 1) * n_core - 1, all + k * n_core,
                 all + (k + 1) * n_core - 1);
        put_node(k, text);
    }
    snprintf(text, sizeof text, "0-%d", n_node - 1);
    put_nodes(text);
}

static struct cpu_mask mask_of(const char *list)
{
    struct cpu_mask m = {0};
    for (const char *c = list; *c;) {
        char *end;
        long from = strtol(c, &end, 10), to = *end == '-' ? strtol(end + 1, &end, 10) : from;
        for (long i = from; i <= to; i++)
            cpu_mask_set(&m, (int32_t)i);
        c = end + (*end == ',');
    }
    return m;
}

static struct topology topology;
static struct placement placement;

static void place(const char *allowed, int n_worker)
{
    struct cpu_mask m = mask_of(allowed);
    topology_read(&topology, root, &m);
    placement_make(&placement, &topology, n_worker);
}

/* "0 1 | 4 5": each node's processors in the order of the workers. */
static const char *seats(void)
{
    static char text[1024];
    size_t n = 0;
    text[0] = 0;
    for (int w = 0; w < placement.n_worker; w++) {
        int k = placement_node(&placement, w);
        n += (size_t)snprintf(text + n, sizeof text - n, "%s%d",
                              !w                        ? ""
                              : placement.first[k] == w ? " | "
                                                        : " ",
                              placement.cpu[w]);
    }
    return text;
}

/* ---- Machines ---- */

START_TEST(one_node_in_order)
{
    put_cpu(0, "0");
    put_cpu(1, "1");
    put_node(0, "0-1");
    put_nodes("0");
    place("0-1", 2);
    ck_assert_int_eq(topology.n_core, 2);
    ck_assert_int_eq(placement.n_node, 1);
    ck_assert_str_eq(seats(), "0 1");
    place("0-1", 5); /* more than there are */
    ck_assert_str_eq(seats(), "0 1 0 1 0");
}
END_TEST

START_TEST(two_nodes_of_four_cores_of_two)
{
    static const struct {
        int n_worker;
        const char *seats;
    } want[] = {
        {1, "0"},
        {2, "0 | 4"},
        {3, "0 1 | 4"},
        {4, "0 1 | 4 5"},
        {8, "0 1 2 3 | 4 5 6 7"},
        {9, "0 1 2 3 8 | 4 5 6 7"}, /* siblings only once all cores are used */
        {10, "0 1 2 3 8 | 4 5 6 7 12"},
        {16, "0 1 2 3 8 9 10 11 | 4 5 6 7 12 13 14 15"},
        {18, "0 1 2 3 8 9 10 11 0 | 4 5 6 7 12 13 14 15 4"},
    };
    put_machine(2, 4);
    for (size_t i = 0; i < sizeof want / sizeof *want; i++) {
        place("0-15", want[i].n_worker);
        ck_assert_str_eq(seats(), want[i].seats);
    }
    ck_assert_int_eq(topology.n_cpu, 16);
    ck_assert_int_eq(topology.n_core, 8);
}
END_TEST

START_TEST(masks_are_kept_to)
{
    put_machine(2, 4);
    place("4-7,12-15", 4); /* the second node alone */
    ck_assert_int_eq(placement.n_node, 1);
    ck_assert_int_eq(placement.node_id[0], 1);
    ck_assert_str_eq(seats(), "4 5 6 7");
    place("0-2,7", 4);
    ck_assert_str_eq(seats(), "0 1 2 | 7");
    place("8-15", 8); /* all second halves of cores: eight cores all the same */
    ck_assert_int_eq(topology.n_core, 8);
    ck_assert_str_eq(seats(), "8 9 10 11 | 12 13 14 15");
    place("1,9,14", 2); /* both halves of one core, and another core */
    ck_assert_int_eq(topology.n_core, 2);
    ck_assert_str_eq(seats(), "1 | 14");
    place("1,9,14", 3);
    ck_assert_str_eq(seats(), "1 9 | 14");
}
END_TEST

START_TEST(holes_and_nodes_without_processors)
{
    static const int cpus[] = {0, 1, 2, 3, 64, 65, 1000, 1001};
    for (int i = 0; i < 8; i++) {
        char text[16];
        snprintf(text, sizeof text, "%d-%d", cpus[i & ~1], cpus[i | 1]); /* siblings are neighbours here */
        put_cpu(cpus[i], text);
    }
    put_node(0, "");
    put_node(2, "0-3");
    put_node(5, "64-65,1000-1001");
    put_node(6, "");
    put_nodes("0,2,5-6");
    place("0-4000", 4);
    ck_assert_int_eq(topology.n_cpu, 4001); /* nobody says that the others are not there */
    place("0-3,64-65,1000-1001", 4);
    ck_assert_int_eq(topology.n_core, 4);
    ck_assert_int_eq(placement.n_node, 2);
    ck_assert_int_eq(placement.node_id[0], 2);
    ck_assert_int_eq(placement.node_id[1], 5);
    ck_assert_str_eq(seats(), "0 2 | 64 1000");
}
END_TEST

START_TEST(nodes_of_unequal_size_get_their_part)
{
    for (int c = 0; c < 8; c++) {
        char text[16];
        snprintf(text, sizeof text, "%d", c);
        put(text, "sys/devices/system/cpu/cpu%d/topology/thread_siblings_list", c); /* an older kernel */
    }
    put_node(0, "0-1");
    put_node(1, "2-7");
    put_nodes("0-1");
    place("0-7", 4);
    ck_assert_str_eq(seats(), "0 | 2 3 4");
    place("0-7", 8);
    ck_assert_str_eq(seats(), "0 1 | 2 3 4 5 6 7");
}
END_TEST

START_TEST(without_a_description_all_is_one_node)
{
    place("3,5,9", 3);
    ck_assert_int_eq(topology.n_core, 3);
    ck_assert_int_eq(placement.n_node, 1);
    ck_assert_str_eq(seats(), "3 5 9");
    put_nodes("garbage");
    put_cpu(3, "x");
    put_node(0, "-5,");
    place("3,5,9", 3);
    ck_assert_str_eq(seats(), "3 5 9");
}
END_TEST

START_TEST(the_real_machine)
{
    struct cpu_mask m;
    topology_allowed(&m);
    topology_read(&topology, "", &m);
    ck_assert_int_ge(topology.n_core, 1);
    ck_assert_int_ge(topology.n_cpu, topology.n_core);
    ck_assert_int_ge(topology_quota(""), 1);
    placement_make(&placement, &topology, topology.n_core);
    for (int w = 0; w < placement.n_worker; w++)
        ck_assert(cpu_mask_has(&m, placement.cpu[w]));
}
END_TEST

/* ---- Any machine ---- */

static int times_used(int cpu)
{
    int n = 0;
    for (int w = 0; w < placement.n_worker; w++)
        n += placement.cpu[w] == cpu;
    return n;
}

static void random_topology(struct rnd *r)
{
    int n_node = rnd_int(r, 1, 5), smt = rnd_int(r, 1, 3), n_core = rnd_int(r, 1, 20);
    topology.n_cpu = topology.n_core = 0;
    for (int cpu = 0; cpu < smt * n_core; cpu++) {
        int core = rnd_int(r, 0, 1) ? cpu % n_core : cpu / smt;
        if (cpu && rnd_int(r, 0, 3) == 0)
            continue; /* not allowed */
        topology.cpu[topology.n_cpu++] = (struct topology_cpu){cpu, core, 3 * (core % n_node)};
    }
    for (int c = 0; c < n_core; c++)
        for (int i = 0; i < topology.n_cpu; i++)
            if (topology.cpu[i].core == c) {
                topology.n_core++;
                break;
            }
}

START_TEST(rules_hold_on_any_machine)
{
    struct rnd r = rnd_begin("rules_hold_on_any_machine", 1);
    for (int i = 0; i < 3000; i++) {
        random_topology(&r);
        int n_worker = rnd_int(&r, 1, 70), least = n_worker / topology.n_cpu;
        placement_make(&placement, &topology, n_worker);
        ck_assert_int_eq(placement.first[0], 0);
        ck_assert_int_eq(placement.first[placement.n_node], n_worker);
        int total = 0, n_core_used = 0, per_core[70] = {0};
        for (int c = 0; c < topology.n_cpu; c++) {
            int n = times_used(topology.cpu[c].cpu);
            ck_assert_int_ge(n, least); /* processors are shared evenly */
            ck_assert_int_le(n, least + 1);
            total += n;
            n_core_used += n && !per_core[topology.cpu[c].core]++;
        }
        ck_assert_int_eq(total, n_worker);
        ck_assert_int_eq(n_core_used, n_worker < topology.n_core ? n_worker : topology.n_core);
        for (int w = 0; w < n_worker; w++)
            for (int c = 0; c < topology.n_cpu; c++)
                if (topology.cpu[c].cpu == placement.cpu[w])
                    ck_assert_int_eq(topology.cpu[c].node, placement.node_id[placement_node(&placement, w)]);

        int n = rnd_int(&r, 1, 9000), unit = rnd_int(&r, 1, 4), at = 0;
        for (int k = 0; k < placement.n_node; k++) {
            int32_t first, end;
            placement_share(&placement, n, unit, k, &first, &end);
            ck_assert_int_eq(first, at);
            ck_assert_int_ge(end, first);
            ck_assert(first % unit == 0);
            double fair = (double)n * (placement.first[k + 1] - placement.first[k]) / n_worker;
            ck_assert(end - first > fair - unit && end - first < fair + unit + 1);
            at = end;
        }
        ck_assert_int_eq(at, n);
    }
}
END_TEST

/* ---- Control groups ---- */

START_TEST(quotas_are_found)
{
    ck_assert_int_eq(topology_quota(root), INT32_MAX); /* no such thing here */
    put("0::/", "proc/self/cgroup");
    ck_assert_int_eq(topology_quota(root), INT32_MAX);
    put("max 100000", "sys/fs/cgroup/cpu.max");
    ck_assert_int_eq(topology_quota(root), INT32_MAX);
    put("250000 100000", "sys/fs/cgroup/cpu.max"); /* as containers see it */
    ck_assert_int_eq(topology_quota(root), 3);
    put("12:cpu:/old\n0::/system.slice/galley.service", "proc/self/cgroup");
    ck_assert_int_eq(topology_quota(root), 3); /* a limit above holds */
    put("max 100000", "sys/fs/cgroup/system.slice/cpu.max");
    put("50000 100000", "sys/fs/cgroup/system.slice/galley.service/cpu.max");
    ck_assert_int_eq(topology_quota(root), 1);
    put("400000 100000", "sys/fs/cgroup/system.slice/galley.service/cpu.max");
    ck_assert_int_eq(topology_quota(root), 3);
    put("nonsense", "sys/fs/cgroup/cpu.max");
    ck_assert_int_eq(topology_quota(root), 4);
    put("12:cpu:/old", "proc/self/cgroup"); /* version 1 */
    ck_assert_int_eq(topology_quota(root), INT32_MAX);
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("placement");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, one_node_in_order);
    tcase_add_test(tc, two_nodes_of_four_cores_of_two);
    tcase_add_test(tc, masks_are_kept_to);
    tcase_add_test(tc, holes_and_nodes_without_processors);
    tcase_add_test(tc, nodes_of_unequal_size_get_their_part);
    tcase_add_test(tc, without_a_description_all_is_one_node);
    tcase_add_test(tc, the_real_machine);
    tcase_add_test(tc, rules_hold_on_any_machine);
    tcase_add_test(tc, quotas_are_found);
    return suite_run(tc);
}
