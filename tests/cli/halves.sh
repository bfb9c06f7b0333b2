#!/usr/bin/env bash
# No half result with status 0: names that are not UTF-8, and results of several files.
. "${BASH_SOURCE%/*}/common.bash"
make_inputs
bad=$'n\xff'
cp -r model "$bad" && cp rows.json "$bad.json" && cp calib.txt "$bad.txt" && cp model.gguf "$bad.gguf" || exit 1
train=(--steps 1 --batch 4 --val-size 0 --rank 2 --warmup 0)

# alike A B: what B printed or wrote has all the members that A has
alike() {
    local missing
    missing=$(comm -23 <("$tool" members "$1" | sort) <("$tool" members "$2" | sort))
    [ -s "$1" ] && [ -s "$2" ] && [ -z "$missing" ] || complain "$2 lacks of $1: $(head -n 3 <<<"${missing:-all}" | paste -sd,)"
}

# both MORE... : the same command with plain and with other names (@ in the words stands for the name) prints the same members
both() {
    succeeds "${@//@/plain}" --json --quiet && cp .log/out plain.out
    succeeds "${@//@/$bad}" --json --quiet && cp .log/out bad.out
    alike plain.out bad.out
}
cp -r model plain && cp rows.json plain.json && cp calib.txt plain.txt && cp model.gguf plain.gguf
cp -r "$OLDPWD/tests/fixtures/tasks" plain.tasks && cp -r plain.tasks "$bad.tasks" || exit 1

echo "--- names that are not UTF-8"
both score @ --calib @.txt --samples 2 --seq-len 16 --out @.scores.json
alike plain.scores.json "$bad.scores.json"
both score @ --criterion ppl,taylor --calib @.txt --samples 2 --seq-len 16 --out @.s.h5
both prune @ --scores @.scores.json --count 1 --out @.pruned
alike plain.pruned/plan.json "$bad.pruned/plan.json"
both prune @ --drop 1 --repair linear --calib @.txt --samples 2 --seq-len 16 --text @.txt --out @.p.gguf
alike plain.p.plan.json "$bad.p.plan.json"
both train @ --rows @.json "${train[@]}" --out @.adapter
alike plain.adapter/adapter_config.json "$bad.adapter/adapter_config.json"
both merge @ --adapter @.adapter --out @.merged
both convert @ @.h5
both eval ppl @ --text @.txt
both generate @ --prompt tree --max-tokens 2
both inspect @.gguf
both compare @ --criteria bi --ratios 0.2 --calib @.txt --text @.txt --samples 2 --seq-len 16 --max-tokens 200 --out @.compared
both chat @ --system @ --max-tokens 2
both eval zeroshot @ --data @.tasks --limit 1
both synth @/config.json --out @.synth
for folder in plain.run "$bad.run"; do # an experiment whose files lie beside it
    mkdir "$folder" && cp -r model calib.txt alpaca.json "$folder" && make_config "$folder/e.json"
done
both run @.run/e.json --out @.run/out
for record in plain.run/out/stages/*.json; do
    alike "$record" "$bad${record#plain}"
done

echo "--- a model in one file and its plan"
mkdir cut.plan.json && touch cut.plan.json/mine
for out in cut.gguf cut.h5; do
    fails 'cut.plan.json' prune plain --drop 1 --out $out
    absent $out
done
rm -r cut.plan.json
for out in cut.gguf cut.h5; do
    succeeds prune plain --drop 1 --out $out --quiet --force
    succeeds prune plain --drop 2 --out $out --quiet --force
    [ "$("$tool" get cut.plan.json dropped 0)" = 2 ] || complain "the plan of $out is another one"
done

echo "--- scores and their copy"
score=(score plain --calib plain.txt --samples 2 --seq-len 16)
succeeds "${score[@]}" --out one.h5 --copy two.json --quiet
[ $(stat -c %s one.h5) -gt 8192 ] && [ $(stat -c %s two.json) -lt 8192 ] || complain "the sizes of this test do not fit any more"
rm -f one.h5 two.json
(trap '' XFSZ && ulimit -f 8 && "$espalier" "${score[@]}" --out one.h5 --copy two.json --quiet) 2>.log/err && complain "no error"
absent one.h5 two.json

verdict
