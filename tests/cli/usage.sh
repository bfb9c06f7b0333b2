#!/usr/bin/env bash
# Wrong command lines end with status 2 and one line; help and version with status 0.
. "${BASH_SOURCE%/*}/common.bash"
make_inputs

usage 'unknown command "grow"' grow
usage 'unknown command "eval tree"' eval tree model
usage 'unknown command "eval"' eval
usage '--nope' inspect model --nope
usage '-x' inspect model -x
usage '--tokenizer' inspect model --tokenizer
usage '--drop' inspect model --drop
usage 'usage: espalier inspect' inspect
usage 'usage: espalier inspect' inspect model more
usage '--json' inspect model --json=1
usage 'eleven' inspect model --threads eleven
usage '--threads' inspect model --threads -1
usage '--threads' inspect model --threads 99999999999999999999
usage '--seed' generate model --prompt a --seed -1
usage '--compute' inspect model --compute f64
usage '--calib' score model
usage '--out' score model --calib calib.txt
usage '--criterion' score model --calib calib.txt --out s.json --criterion luck
usage 'two tokens' score model --calib calib.txt --out s.json --seq-len 1
usage 'sample' score model --calib calib.txt --out s.json --samples 0
usage '--samples' score model --calib calib.txt --out s.json --samples 3.5
usage '--out' prune model --drop 1
usage '--drop' prune model --out p
usage '--ratio' prune model --out p --scores s.json
usage '--ratio' prune model --out p --scores s.json --ratio 0.2 --count 2
usage '--format' prune model --out p --drop 1 --format tar
usage '--dtype' prune model --out p --drop 1 --dtype f13
usage '--data' train model --out t
usage '--out' train model --data alpaca.json
usage '--data' train model --data alpaca.json --rows rows.json --out t
usage '--batch' train model --rows rows.json --out t --batch 3 --micro-batch 2 --val-size 0
usage '--lr' train model --rows rows.json --out t --lr=-1 --val-size 0
usage '--rank' train model --rows rows.json --out t --rank 0 --val-size 0
usage 'gates' train model --rows rows.json --out t --targets q,gates --val-size 0
usage '--loss-average' train model --rows rows.json --out t --loss-average mean
usage '--adapter' merge model --out m
usage '--text' eval ppl model
usage 'guess' eval ppl model --text calib.txt --protocol guess
usage '--seq-len' eval ppl model --text calib.txt --protocol llamacpp-512 --seq-len 2
usage '--rows' eval ppl model --text calib.txt --rows c4
usage '--data' eval zeroshot model
for batch in 0 17 -1 1,x 1,,2 1,17 ''; do
    usage '--batch' eval speed model --batch="$batch"
done
usage '--in-len' eval speed model --in-len 0
usage '--out-len' eval speed model --out-len 1
usage '--runs' eval speed model --runs 0
usage '--warmup' eval speed model --warmup -1
usage '512 positions' eval speed model --out-len 501
usage '512 positions' eval speed model --in-len 9223372036854775807
usage '--prompt' generate model
usage 'bench needs' bench
usage 'bench needs' bench model --out x
usage 'bench needs' bench --shape model/config.json
usage 'bench needs' bench model --shape model/config.json --out x
usage '--only' bench model --only decode,running
usage '--only' bench model --only decode,
usage '--shape' bench --shape , --out x
usage '--top-p' generate model --prompt a --top-p 0
usage '--draft-drop' generate model --prompt a --draft-tokens 2
usage 'greedy' generate model --prompt a --draft-drop 1 --temperature 1
usage '--draft-tokens' generate model --prompt a --draft-drop 1 --draft-tokens 0
usage '--max-tokens' generate model --prompt a --max-tokens 0
usage 'one input' tokenize model
usage 'one input' tokenize model text --file calib.txt
usage 'legacy' tokenize model text --hf-legacy
usage 'legacy' tokenize model.gguf text --hf-legacy
usage 'legacy' eval ppl model --text calib.txt --hf-legacy
absent s.json p t m

"$espalier" >.log/out 2>.log/err
[ $? = 2 ] && grep -q usage .log/err && [ ! -s .log/out ] || complain "no words: help on stderr and status 2"
for words in --help help -h --version version; do
    succeeds $words
    grep -q espalier .log/out || complain "$words prints nothing"
done
while read -r command; do
    succeeds $command --help
    grep -q "^usage: espalier $command" .log/out && grep -q -- '--threads' .log/out || complain "$command --help"
done < <("$espalier" --help | sed -n 's/^  \(eval [a-z]*\|[a-z]*\)  .*/\1/p')
verdict
