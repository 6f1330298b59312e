-- One-token completions with prompts of 32 words, for wrk:
--   build/release/tests/http/galley-fake --port 8091 --log-level warn --max-seqs 1024 --max-batch-tokens 4096 &
--   wrk -t1 -c64 -d5s -s tests/bench/completion.lua http://127.0.0.1:8091/v1/completions
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.body = '{"model":"galley-demo","max_tokens":1,"prompt":"' ..
  string.rep("The old fox walked slowly over the green hill and ", 3) .. 'sat down"}'
