/* The commands: `galley serve`, also what the test server over the fake back end runs, `galley bench` and `galley
 * ngram`. Private to server/ and tests/. */
#ifndef GALLEY_SERVE_H
#define GALLEY_SERVE_H

struct backend_ops;

/* argv without "serve". `ops` replaces the --backend when not NULL. Returns the exit status. */
int serve_main(int argc, char **argv, const struct backend_ops *ops);

/* argv without "bench". */
int bench_main(int argc, char **argv);

/* argv without "ngram". */
int ngram_main(int argc, char **argv);

#endif
