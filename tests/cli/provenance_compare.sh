#!/usr/bin/env bash
# What results say of where they come from: the data and their sums, how much of a text counted, and every option in effect, given
# or not. Single evaluations, and the page, table and arrays of compare.
. "${BASH_SOURCE%/*}/common.bash"
make_inputs
sum() { sha256sum "$1" | cut -d ' ' -f 1; }
calib_sum=$(sum calib.txt)

# is FILE WANTED KEY...: a member of a JSON file
is() {
    local file=$1 want=$2 found
    shift 2
    found=$("$tool" get "$file" "$@" 2>/dev/null)
    [ "$found" = "$want" ] || complain "$file: $*: $want was expected, ${found:-nothing} found"
}

# result WORDS...: runs a command; what it prints is left in r.json
result() {
    succeeds "$@" --json --quiet && cp .log/out r.json
}

echo "--- eval ppl"
result eval ppl model --text calib.txt --seq-len 32
scored=$("$tool" get r.json tokens_scored) whole=$("$tool" get r.json tokens_in_text)
[ "${whole:-0}" -ge "$scored" ] || complain "tokens_in_text: ${whole:-none} of which $scored scored"
is r.json raw rows
is r.json raw options format
is r.json shortened-32 protocol
is r.json 0 options max-tokens
is r.json null options rows
is r.json f32 options compute
result eval ppl model --text calib.txt --seq-len 32 --max-tokens 200 --rows ptb
is r.json 200 tokens_used
is r.json ptb rows
is r.json 200 options max-tokens
is r.json "$calib_sum" text_sha256
result eval ppl model --text calib.txt --seq-len 32 --max-tokens 200
is r.json "$whole" tokens_in_text
succeeds eval ppl model --text calib.txt --seq-len 32 --max-tokens 200 --quiet
grep -q "the first 200 of $whole tokens of calib.txt" .log/out || complain "what eval ppl prints"

echo "--- score, prune, merge, convert, generate, eval zeroshot"
result score model --criterion ppl --calib calib.txt --samples 3 --seq-len 16 --out s.json --copy s.h5
is r.json calib.txt calibration
is r.json "$calib_sum" calibration_sha256
for file in r.json s.json; do
    is $file 3 options samples
    is $file block options unit
    is $file 1234 options seed
    is $file false options bos-every
done
result prune model --scores s.json --count 1 --repair linear --calib calib.txt --samples 3 --seq-len 16 --text calib.txt --out p
is r.json s.json scores
is r.json "$(sum s.json)" scores_sha256
for file in r.json p/plan.json; do
    is $file 4 options keep-first
    is $file linear options repair
    is $file "$calib_sum" repair calibration_sha256
    is $file "$calib_sum" repair text_sha256
done
result prune model --drop 2 --no-protect --out p2
is p2/plan.json 2 options drop
is p2/plan.json 0 options keep-first
succeeds train model --rows rows.json --steps 1 --batch 4 --val-size 0 --rank 2 --warmup 0 --out adapter --quiet
result merge model --adapter adapter --out merged --dtype f32
is r.json adapter adapter
is r.json f32 options dtype
is r.json adapter options adapter
[ "$("$tool" get r.json adapter_fingerprint | wc -c)" = 65 ] || complain "merge: the identity of the adapter"
result convert model converted
is r.json null options dtype
is r.json false options force
result generate model --prompt a --max-tokens 2
is r.json 1.0 options top-p
is r.json 2 options max-tokens
cp -r "$OLDPWD/tests/fixtures/tasks" tasks || exit 1
result eval zeroshot model --data tasks --tasks piqa --limit 2
is r.json "$(sum tasks/piqa/valid.jsonl)" tasks piqa sha256
is r.json 2 options limit
is r.json false options bos

echo "--- compare"
cp calib.txt a-long-name.test.raw && head -n 9 calib.txt >short.txt
rows=(--calib calib.txt --samples 3 --seq-len 16)
succeeds compare model "${rows[@]}" --text a-long-name.test.raw,short.txt --max-tokens 300 --criteria bi --ratios 0.25 --quiet --out c || verdict
cp .log/out printed
grep -q ' a-long-name.test.raw  *short.txt  dropped' printed || complain "the names of texts are not cut: $(sed -n 2p printed)"
grep -q "^a-long-name.test.raw: first 300 of [0-9,]* tokens, sha256 ${calib_sum:0:12}$" printed || complain "what compare prints of a text"
result compare model "${rows[@]}" --text a-long-name.test.raw,short.txt --max-tokens 300 --criteria bi --ratios 0.25 --out c
is r.json "$calib_sum" texts 0 text_sha256
is r.json "$whole" texts 0 tokens_in_text
is r.json 300 texts 0 tokens_used
is r.json "$(sum short.txt)" texts 1 text_sha256
scored=$("$tool" get r.json texts 0 tokens_scored)
[ "${scored:-0}" -gt 0 ] && [ "$scored" -le 301 ] || complain "tokens_scored of a text: ${scored:-none}"
is r.json 300 options max-tokens
is r.json 4 options keep-first

commas() { sed ':a; s/^\([0-9]*\)\([0-9]\{3\}\)/\1,\2/; ta' <<<"$1"; }
for part in "first 300 of $(commas "$whole") tokens, $scored scored; rows: raw; sha256 $calib_sum" "$(sum short.txt)" shortened-128; do
    grep -qF "$part" c/compare.html || complain "compare.html should say: $part"
done

columns=$(sed -n '1s/.*,ppl: short.txt,//p' c/compare.csv)
of() { echo "tokens_scored: $1,tokens_in_text: $1,rows: $1,sha256: $1"; }
[ "$columns" = "protocol,$(of a-long-name.test.raw),$(of short.txt)" ] || complain "the last columns of compare.csv: $columns"
[ "$(grep -c ",shortened-128,$scored,$whole,raw,$calib_sum,.*,raw,$(sum short.txt)$" c/compare.csv)" = 3 ] || complain "sources in every row"

attribute() { "$tool" attribute c/compare.h5 / "$1"; }
[ "$("$tool" ints c/compare.h5 text_tokens_in_text | sed 's/,.*//')" = "[$whole" ] || complain "compare.h5: text_tokens_in_text"
[ "$("$tool" ints c/compare.h5 text_tokens_scored | sed 's/,.*//')" = "[$scored" ] || complain "compare.h5: text_tokens_scored"
[ "$("$tool" ints c/compare.h5 text_tokens_used | sed 's/,.*//')" = "[300" ] || complain "compare.h5: text_tokens_used"
for name in program_version command model model_hash model_fingerprint isa calibration calibration_sha256 protocol; do
    [ "$(attribute $name)" = "$("$tool" get r.json $name)" ] || complain "compare.h5: $name: $(attribute $name)"
done
for name in samples seq_len seed threads keep_first keep_last; do
    grep -qE '^[0-9]+$' <<<"$(attribute $name)" || complain "compare.h5: $name: a number was expected"
done
[ "$(attribute calibration_sha256)" = "$calib_sum" ] || complain "compare.h5: the sum of the calibration"
attribute wall_seconds | grep -qE '^[0-9.]+' && attribute peak_rss_bytes | grep -qE '^[0-9]+' || complain "compare.h5: time and memory"
attribute options >options.json && is options.json 300 max-tokens
is options.json 60.0 save-every
attribute arguments | grep -q '"--max-tokens","300"' || complain "compare.h5: arguments"
attribute texts | grep -q "$calib_sum" || complain "compare.h5: the sums of the texts"
[ "$(attribute 'protected ends')" = "first 4, last 2 blocks" ] || complain "compare.h5: what is said in words stays"

verdict
