#!/usr/bin/env bash
# Runs test_openai.py with the openai package in a virtual environment under BUILD; where PyPI cannot be reached, skips.
#   tests/clients/run.sh PYTHON BUILD GALLEY GALLEY_FAKE MODEL [unittest arguments]
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
python=$1 venv=$2/venv
shift 2

# Complete when it was made from this very list; a half-made one is made again.
if ! cmp -s "$here/requirements.txt" "$venv/made-from"; then
    rm -rf "$venv"
    if ! why=$({ "$python" -m venv "$venv" && "$venv/bin/pip" install --quiet --disable-pip-version-check --retries 1 --timeout 15 \
        -r "$here/requirements.txt"; } 2>&1); then
        rm -rf "$venv"
        echo "skipped: the openai package could not be installed: $(tail -n 1 <<<"$why")"
        exit 77
    fi
    cp "$here/requirements.txt" "$venv/made-from"
fi
exec "$venv/bin/python" "$here/test_openai.py" "$@"
