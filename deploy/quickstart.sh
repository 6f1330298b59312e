#!/usr/bin/env bash
# Installs what the build needs, builds a release, serves the bundled demo model on port 8080 and asks it for a story.
# Ctrl-C stops the server. Running it again redoes nothing that is done. PORT=N chooses another port.
set -euo pipefail
cd "$(dirname "$0")/.."
. deploy/packages.sh

PORT=${PORT:-8080}
URL=http://127.0.0.1:$PORT

ensure_packages $BUILD_PACKAGES
build build/release --buildtype=release -Dnvcc="${NVCC:-}" # which the tests leave out

say "starting the server on the demo model, port $PORT"
build/release/server/galley serve --port "$PORT" --log-level warn &
server=$!
trap 'kill -TERM $server 2>/dev/null; wait $server 2>/dev/null || true' EXIT
trap 'exit 0' INT TERM

for _ in $(seq 100); do
    curl -sf "$URL/ready" >/dev/null 2>&1 && break
    kill -0 $server 2>/dev/null || die "the server did not start; its last line above says why"
    sleep 0.1
done
curl -sf "$URL/ready" >/dev/null || die "the server is not ready after 10 seconds"

say "asking: Tell me a story about a fox."
echo
curl -sN "$URL/v1/chat/completions" -H 'Content-Type: application/json' \
    -d '{"messages": [{"role": "user", "content": "Tell me a story about a fox."}], "stream": true, "max_tokens": 300, "temperature": 0.5, "seed": 7}' |
    sed -un 's/^data: {.*"delta":{"content":\("\([^"\\]\|\\.\)*"\)}.*$/\1/p' |
    while IFS= read -r piece; do printf '%b' "$(printf '%s' "$piece" | sed 's/^"//; s/"$//; s/\\"/"/g')"; done
printf '\n\n'

cat <<EOF
The server is running at $URL; try next, in another terminal:

  curl $URL/v1/chat/completions -H 'Content-Type: application/json' \\
       -d '{"messages": [{"role": "user", "content": "Tell me a story about a brave hen."}]}'

  curl -N $URL/v1/completions -H 'Content-Type: application/json' \\
       -d '{"prompt": "Once upon a time", "max_tokens": 100, "stream": true}'

  python3 - <<'PY'        # pip install openai
  from openai import OpenAI
  client = OpenAI(base_url="$URL/v1", api_key="none")
  for chunk in client.chat.completions.create(model="galley-demo", stream=True,
          messages=[{"role": "user", "content": "Tell me a story about a lost kite."}]):
      print(chunk.choices[0].delta.content or "", end="", flush=True)
  PY

Ctrl-C stops it.
EOF
wait $server
