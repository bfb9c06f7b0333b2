#!/usr/bin/env bash
# A model file that gets shorter while a command reads it: status 1 and one line that names it, whether pages of it are gone or only the
# end of its last page, which reads as zeros; nothing under a final or a temporary name. A file that another replaces is whole.
. "${BASH_SOURCE%/*}/common.bash"
make_inputs
sed 's/"hidden_size": *[0-9]*/"hidden_size":256/; s/"intermediate_size": *[0-9]*/"intermediate_size":1024/' model/config.json >wide.json
"$espalier" synth wide.json --seed 1 --tokenizer model --out wide --quiet >.log/out 2>.log/err || { cat .log/err; exit 1; }
cp model/tokenizer*.json wide
file=wide/model.safetensors
size=$(stat -c %s $file)
[ $((size % 4096)) -ge 16 ] || { echo "the last page holds $((size % 4096)) bytes only"; exit 1; }

# during DEED WORDS...: does it to the model as soon as the command has the file mapped; leaves .log/out, .log/err; returns the status
during() {
    local deed=$1 process
    shift
    rm -rf wide && cp -r kept wide
    "$espalier" "$@" --quiet >.log/out 2>.log/err </dev/null &
    process=$!
    until [[ $(</proc/$process/maps) == */$file* ]] 2>/dev/null; do
        kill -0 $process 2>/dev/null || { complain "$*: ended before its model was seen"; break; }
    done
    kill -STOP $process
    $deed
    kill -CONT $process
    wait $process
}
last_bytes() { truncate -s $((size - 8)) $file; }
most_pages() { truncate -s 4096 $file; }
replace() { cp $file other && mv other $file; }
cut_fails() { # WORDS...
    local deed
    for deed in last_bytes most_pages; do
        during $deed "$@"
        judge 1 $? "$file: became shorter while it was read" "$deed: $*"
        absent out out.json out.gguf out.h5
    done
}
cp -r wide kept

echo "--- numbers"
cut_fails score wide --criterion ppl --calib calib.txt --samples 30 --seq-len 64 --out out.json
cut_fails generate wide --prompt 'a tree' --max-tokens 100 --ignore-eos --json
cut_fails eval ppl wide --text calib.txt --json
cut_fails eval ppl wide --text calib.txt

echo "--- models"
cut_fails prune wide --drop 1 --repair linear --calib calib.txt --samples 30 --seq-len 64 --out out
cut_fails convert wide out --dtype f16
cut_fails convert wide out.gguf
cut_fails convert wide out.h5

echo "--- a training, whose folder stays for --resume"
for deed in last_bytes most_pages; do
    rm -rf run
    during $deed train wide --rows rows.json --steps 4 --batch 4 --val-size 2 --out run
    judge 1 $? "$file: became shorter while it was read" "$deed: train"
    absent run/adapter_model.safetensors
done

echo "--- a file that is replaced"
during replace score wide --criterion ppl --calib calib.txt --samples 30 --seq-len 64 --out out.json || complain "score: status $?"
[ -s out.json ] || complain "no scores"

verdict
