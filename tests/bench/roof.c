/* Prints what this machine does at most, as JSON: read bandwidth in GB/s and 8-bit operations in 10^9 a second, best
 * and median of passes of one or two milliseconds on all threads at once.
 *
 *     roof [-n threads] [-s seconds for each of both]
 *     roof -w                waits for lines on stdin and answers each with one: no start-up between measurements */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "roof.h"

static void print(const char *name, struct roof_rate rate, const char *end)
{
    printf("\"%s\":{\"best\":%.3f,\"median\":%.3f}%s", name, rate.best, rate.median, end);
}

static void measure(struct roof *r, double seconds)
{
    printf("{\"int8\":\"%s\",", roof_int8_name());
    print("read_gb_per_s", roof_read(r, seconds), ",");
    print("int8_gop_per_s", roof_int8(r, seconds), "}\n");
    fflush(stdout);
}

int main(int argc, char **argv)
{
    int n_thread = 0, opt;
    double seconds = 0.25;
    bool wait = false;
    while ((opt = getopt(argc, argv, "n:s:w")) != -1) {
        if (opt == 'n')
            n_thread = atoi(optarg);
        else if (opt == 's')
            seconds = atof(optarg);
        else if (opt == 'w')
            wait = true;
        else
            return 2;
    }
    struct roof *r = NULL;
    struct err e = {0};
    if (roof_create(&r, n_thread, &e)) {
        fprintf(stderr, "roof: %s\n", e.msg);
        return 1;
    }
    if (!wait)
        measure(r, seconds);
    char line[64];
    while (wait && fgets(line, sizeof line, stdin))
        measure(r, seconds);
    roof_free(r);
    return 0;
}
