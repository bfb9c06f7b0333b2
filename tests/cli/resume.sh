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
echo "--- before the first checkpoint, and as another training"
begun=(train model --rows rows.json --steps 3 --batch 4 --micro-batch 2 --val-size 0 --rank 2 --warmup 0 --threads 1)
mkdir early && : >early/train.jsonl
fails '--resume goes on with it' "${begun[@]}" --out early
succeeds "${begun[@]}" --out early --resume # the advice works: nothing was saved yet, so it begins anew, and says so
grep -q 'no checkpoint yet; the training begins anew' .log/err || complain "beginning anew is not said"
succeeds "${begun[@]}" --out plain --quiet
same early/adapter_model.safetensors plain/adapter_model.safetensors
fails 'finished' "${begun[@]}" --out early --resume
succeeds "${begun[@]}" --save-every 1 --out saved --quiet
fails 'lr was' "${begun[@]}" --save-every 1 --out saved --resume --lr 0.5
fails 'seed was' "${begun[@]}" --save-every 1 --out saved --resume --seed 7
fails 'drop was' "${begun[@]}" --save-every 1 --out saved --resume --drop 1
sed 's/101/102/' rows.json >other.json
fails 'the data was' train model --rows other.json "${begun[@]:4}" --save-every 1 --out saved --resume
cp -r model other && "$tool" gguf other.gguf
printf '\1' | dd of=other/model.safetensors bs=1 seek=$(($(stat -c %s other/model.safetensors) - 3)) conv=notrunc 2>.log/err
fails 'the model was' train other "${begun[@]:2}" --save-every 1 --out saved --resume
verdict
