#!/usr/bin/env bash
# A training that is killed and resumed ends with the bytes of one that was not, wherever the kill falls.
. "${BASH_SOURCE%/*}/common.bash"
make_inputs
train=(train model --rows rows.json --steps 400 --batch 4 --micro-batch 2 --val-size 4 --rank 2 --warmup 5 --save-every 7 --eval-every 10
    --keep 2 --lr 1e-2 --threads 1 --quiet)
succeeds "${train[@]}" --out whole || verdict
[ "$(ls -d whole/checkpoint-* | wc -l)" -le 3 ] || complain "--keep 2: $(ls whole)"

killed=0
for steps in 9 100 250; do # killed once so many steps are on record
    rm -rf cut
    "$espalier" "${train[@]}" --out cut >.log/out 2>.log/err &
    pid=$!
    while kill -0 $pid 2>/dev/null && ! grep -q "\"step\": *$steps[^0-9]" cut/train.jsonl 2>/dev/null; do :; done
    kill -9 $pid 2>/dev/null && killed=$((killed + 1))
    wait $pid 2>/dev/null
    [ -e cut/adapter_model.safetensors ] && continue # it was faster
    find cut -name '*.part-*' -delete # a kill in the middle of a checkpoint may leave one
    printf '{"step": 4' >>cut/train.jsonl # and half a line
    succeeds "${train[@]}" --out cut --resume || verdict
    same whole/adapter_model.safetensors cut/adapter_model.safetensors
    same whole/best/adapter_model.safetensors cut/best/adapter_model.safetensors
    same whole/checkpoint.safetensors cut/checkpoint.safetensors
    same <(sed 's/"tokens_per_s.*//' whole/train.jsonl) <(sed 's/"tokens_per_s.*//' cut/train.jsonl)
done
[ $killed -gt 0 ] || complain "no run was killed in time"

echo "--- what cannot be resumed"
fails 'fresh' "${train[@]}" --out fresh --resume
absent fresh
fails 'cut/checkpoint.safetensors' "${train[@]}" --out cut --resume --rank 3
truncate -s -4 cut/checkpoint.safetensors
fails 'cut/checkpoint.safetensors' "${train[@]}" --out cut --resume
fails 'whole' "${train[@]}" --out whole
verdict
