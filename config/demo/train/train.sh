#!/bin/sh
# Make the whole pair: vocabulary, target, draft, export, evaluation.
#
#     WORK=build-demo PYTHON=python3 config/demo/train/train.sh
#
# Checkpoints lie in $WORK; started again, it goes on where it was stopped.
set -eu
here=$(dirname "$0")
work=${WORK:-build-demo}
python=${PYTHON:-python3}

# Keep freed memory in the process: the loss alone frees 60 MB every step, which
# the system would otherwise hand out again page by page.
export MALLOC_MMAP_THRESHOLD_=8000000000 MALLOC_TRIM_THRESHOLD_=8000000000
# Threads that spin at a barrier starve the one they wait for on a busy machine.
export GOMP_SPINCOUNT=2000

mkdir -p "$work"
[ -f "$work/tokenizer.json" ] || "$python" "$here/bpe.py" "$work/tokenizer.json"
for role in target draft; do
    steps=3000 polish=2400
    [ "$role" = target ] || steps=1000 polish=150
    "$python" "$here/train.py" "$role" --work "$work" --steps "$steps" --polish "$polish"
    "$python" "$here/export.py" "$work/$role.pt" "$work/tokenizer.json" "$work/$role.gguf"
done
"$python" "$here/evaluate.py" "$work/target.gguf" "$work/draft.gguf"
