#!/usr/bin/env bash
# Options that contradict each other are refused by both names, and a place that cannot be written to before the work.
. "${BASH_SOURCE%/*}/common.bash"
make_inputs
succeeds score model --criterion bi --calib calib.txt --samples 2 --seq-len 16 --out s.json --quiet
succeeds train model --rows rows.json --steps 1 --batch 4 --val-size 0 --rank 2 --warmup 0 --out adapter --quiet

usage '--drop and --ratio' prune model --drop 1 --ratio 0.2 --out p
usage '--drop and --count' prune model --drop 1 --count 1 --out p
usage '--drop and --scores' prune model --drop 1 --scores s.json --out p
usage '--drop and --keep-first' prune model --drop 1 --keep-first 2 --out p
usage '--ratio and --count' prune model --scores s.json --ratio 0.2 --count 1 --out p
usage '--no-protect and --keep-last' prune model --scores s.json --count 1 --no-protect --keep-last 1 --out p
usage '--samples goes with --repair' prune model --drop 1 --samples 3 --out p
usage '--rows and --format' eval ppl model --text calib.txt --rows wikitext --format raw
usage '--rows and --format' compare model --criteria bi --ratios 0.2 --calib calib.txt --text calib.txt --rows ptb --format lines --out c
usage '--data and --rows' train model --data alpaca.json --rows rows.json --out t
usage '--steps and --epochs' train model --rows rows.json --steps 1 --epochs 2 --out t
usage '--resume and --force' train model --rows rows.json --resume --force --out t
usage '--rows and --train-on-inputs' train model --rows rows.json --train-on-inputs --out t
usage '--steps 0' train model --rows rows.json --steps 0 --out t
usage '--rank 4 contradicts --init-adapter' train model --rows rows.json --init-adapter adapter --rank 4 --val-size 0 --steps 1 --out t
usage '--alpha 3 contradicts --init-adapter' train model --rows rows.json --init-adapter adapter --alpha 3 --val-size 0 --steps 1 --out t
usage '--targets q contradicts --init-adapter' train model --rows rows.json --init-adapter adapter --targets q --val-size 0 --steps 1 --out t
succeeds train model --rows rows.json --init-adapter adapter --rank 2 --val-size 0 --steps 1 --batch 4 --warmup 0 --out same --quiet
usage '--format gguf and the ending of x.h5' convert model x.h5 --format gguf
usage '--format hf and the ending of x.gguf' merge model --adapter adapter --format hf --out x.gguf
usage '--shard-size' convert model x.gguf --shard-size 1MB
usage '--top-k contradicts --temperature 0' generate model --prompt a --top-k 3
usage '--top-p contradicts --temperature 0' generate model --prompt a --top-p 0.5 --temperature 0
usage '--reverse and --chat' tokenize model --reverse --chat x.json
usage '--generation-prompt goes with --chat' tokenize model text --generation-prompt
usage 'is --calib meant?' score model --calb calib.txt --out t.json
absent p c t x.h5 x.gguf

echo "--- places, before the work: a model that is not there is not looked for"
fails 'nowhere/s.json' score no-model --calib calib.txt --out nowhere/s.json
fails 'nowhere/s.h5' score no-model --calib calib.txt --out t.json --copy nowhere/s.h5
fails 'calib.txt/p' prune no-model --drop 1 --out calib.txt/p
fails 'adapter: exists already' prune no-model --drop 1 --out adapter
fails 'calib.txt' merge no-model --adapter adapter --out calib.txt
fails 'model.gguf: exists already' convert no-model model.gguf
fails 'calib.txt/t' train no-model --rows rows.json --out calib.txt/t
fails 'calib.txt/c' compare no-model --criteria bi --ratios 0.2 --calib calib.txt --text calib.txt --out calib.txt/c
fails 'nowhere/x.jsonl' eval zeroshot no-model --tasks piqa --data . --samples-out nowhere/x.jsonl
fails 'adapter: exists already' synth no-config.json --out adapter
fails 'calib.txt/r' run no-config.json --out calib.txt/r
verdict
