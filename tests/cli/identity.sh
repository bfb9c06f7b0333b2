#!/usr/bin/env bash
# What was made of one model, text or option is not taken for what another one gives: scores, trainings and stages of a run.
. "${BASH_SOURCE%/*}/common.bash"
make_inputs
cp -r model other && "$tool" set other model.layers.3.self_attn.q_proj.weight 0 0.5
# other_weights: model/ has the other ones from now on; own_weights: its own
other_weights() { mv model own && mv other model; }
own_weights() { mv model other && mv own model; }

echo "--- scores of another checkpoint of one shape"
score=(score model --criterion bi --calib calib.txt --samples 2 --seq-len 16)
for s in s.json s.h5; do
    succeeds "${score[@]}" --out $s
    succeeds prune model --scores $s --count 1 --out "p-$s" --quiet
    fails $s prune other --scores $s --count 1 --out q
done
absent q

echo "--- score --resume"
cp s.json kept.json
succeeds "${score[@]}" --resume --out s.json
grep -q 'was finished before' .log/err || complain "nothing has changed"
other_weights
fails 'made with another model' "${score[@]}" --resume --out s.json
own_weights
fails 'made with another model' "${score[@]}" --resume --out s.json --samples 3
cp calib.txt own.txt && sed -i 's/Document/Pamphlet/' calib.txt
fails 'made with another model' "${score[@]}" --resume --out s.json
mv own.txt calib.txt
same s.json kept.json

echo "--- train --resume"
train=(train model --data alpaca.json --batch 2 --micro-batch 1 --val-size 0 --rank 2 --warmup 0 --steps 2 --save-every 1 --out t)
succeeds "${train[@]}" --quiet
cp t/adapter_model.safetensors kept
fails 'lr was 0.0001, now 0.01' "${train[@]}" --resume --lr 0.01
fails 'seed' "${train[@]}" --resume --seed 5
other_weights
fails 'model' "${train[@]}" --resume
own_weights
cp alpaca.json own.json && sed -i 's/Count to 3/Counts to 3/' alpaca.json
fails 'data' "${train[@]}" --resume
mv own.json alpaca.json
succeeds "${train[@]}" --resume --quiet && same t/adapter_model.safetensors kept

echo "--- stages of run"
make_config c.json
reused() {
    succeeds run c.json --out made --quiet --json
    "$tool" get .log/out stages_reused 2>/dev/null || sed -n 's/.*"stages_reused": *\([0-9]*\).*/\1/p' .log/out
}
first=$(reused) all=$(reused)
[ "$first" = 0 ] && [ "$all" -gt 3 ] || complain "all stages are reused: $first, $all"
sed -i 's/Count to 3/Counts to 3/' alpaca.json
n=$(reused) && [ "$n" -gt 0 ] && [ "$n" -lt "$all" ] || complain "other training data: $n of $all stages reused"
[ "$(reused)" = "$all" ] || complain "and reused again"
sed -i 's/Document/Pamphlet/' calib.txt
n=$(reused) && [ "$n" -lt "$all" ] || complain "another calibration text: $n of $all stages reused"
other_weights
n=$(reused) && [ "$n" = 0 ] || complain "another model: $n of $all stages reused"
[ "$(reused)" = "$all" ] || complain "and reused again"
output=$(find made -name adapter_model.safetensors | grep -v best | head -n 1)
truncate -s -4 "$output"
n=$(reused) && [ "$n" -lt "$all" ] || complain "a damaged output: $n of $all stages reused"
verdict
