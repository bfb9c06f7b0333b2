#!/usr/bin/env bash
# An adapter belongs to the blocks it was trained on: with others running it is refused, on the same blocks in another file it is not.
. "${BASH_SOURCE%/*}/common.bash"
make_inputs
train=(--data alpaca.json --steps 2 --batch 2 --micro-batch 1 --val-size 0 --rank 2 --warmup 0 --quiet)
succeeds train model "${train[@]}" --drop 2,5 --out a
[ -s a/espalier.json ] || complain "an adapter names its base"
ppl() { # MODEL OPTION...
    local model=$1
    shift
    echo eval ppl "$model" --text calib.txt --format lines --seq-len 16 --max-tokens 64 "$@"
}

succeeds $(ppl model --drop 2,5 --adapter a)
fails '(--drop 2,5)' $(ppl model --drop 1,5 --adapter a)
fails '(--drop 2,5)' $(ppl model --adapter a)
fails '(--drop 2,5)' generate model --prompt x --max-tokens 1 --adapter a --drop 3,4
fails '(--drop 2,5)' merge model --adapter a --drop 0,1 --out m
fails '(--drop 2,5)' serve model --port 0 --variant 'v=drop:1,5;adapter:a'
absent m

echo "--- the pruned model"
succeeds prune model --drop 2,5 --out pruned --quiet
succeeds prune model --drop 1,5 --out unlike --quiet
succeeds $(ppl pruned --adapter a)
succeeds train pruned "${train[@]}" --out b
succeeds $(ppl model --drop 2,5 --adapter b)
fails '(--drop 2,5)' $(ppl model --drop 2,4 --adapter b)
for other in 1,5 3,5 0,1 6,7; do
    succeeds prune model --drop $other --out unlike --quiet --force
    fails '(--drop 2,5)' $(ppl unlike --adapter a)
done
succeeds prune model --drop 0,1 --out shifted --quiet
fails 'others or fewer run here' $(ppl shifted --adapter b)

echo "--- halves of blocks"
succeeds train model "${train[@]}" --drop 2.attn,4 --out c
succeeds prune model --drop 2.attn,4 --out halves --quiet
succeeds $(ppl halves --adapter c)
fails '(--drop 2.attn,4)' $(ppl model --drop 3.attn,4 --adapter c)

echo "--- other weights"
cp -r model others && "$tool" set others model.layers.0.self_attn.q_proj.weight 0 0.5
succeeds $(ppl others --drop 2,5 --adapter a)
grep -q 'trained on other weights' .log/err || complain "other weights are told"
fails '(--drop 2,5)' $(ppl others --drop 1,5 --adapter a)
told() { # WORDS...: the command says it
    timeout 5 "$espalier" "$@" >.log/out 2>.log/err </dev/null
    grep -q 'a was trained on other weights than others' .log/err || complain "$1: other weights are told"
}
told generate others --prompt x --max-tokens 2 --temperature 0 --draft-drop 2,5 --draft-adapter a
told train others "${train[@]::12}" --drop 2,5 --rank 2 --init-adapter a --out d
told serve others --port 0 --variant 'v=drop:2,5;adapter:a'

echo "--- without the file, and with a damaged one"
cp -r a foreign && rm foreign/espalier.json && succeeds $(ppl model --drop 2,5 --adapter foreign)
cp -r a bad && echo '{"blocks": ["0"]}' >bad/espalier.json && fails 'bad/espalier.json' $(ppl model --drop 2,5 --adapter bad)
echo '{' >bad/espalier.json && fails 'bad/espalier.json' $(ppl model --drop 2,5 --adapter bad)
verdict
