#!/usr/bin/env bash
# Zero-shot tasks on our own samples, by eval zeroshot and as a column of compare: what is printed and written, pruned variants at
# once, and what is refused.
. "${BASH_SOURCE%/*}/common.bash"
make_inputs
cp -r "$OLDPWD/tests/fixtures/tasks" tasks || exit 1
seven=boolq,piqa,hellaswag,winogrande,arc_easy,arc_challenge,openbookqa

echo "--- results"
succeeds eval zeroshot model --data tasks --json --quiet --samples-out s.jsonl
object program_version model_hash threads tasks average bos offset
cp .log/out all.json
for task in ${seven//,/ }; do
    [ "$("$tool" get all.json tasks $task n)" -ge 2 ] || complain "n of $task"
    [ "$(grep -c "\"task\":\"$task\"" s.jsonl)" = "$("$tool" get all.json tasks $task n)" ] || complain "samples of $task"
done
head -n 1 s.jsonl >.log/out && object task index ll choice_len gold acc acc_norm
[ "$("$tool" get all.json tasks boolq acc_norm)" = null ] || complain "BoolQ has no acc_norm"
[ "$("$tool" get all.json tasks boolq sha256)" = "$(sha256sum <tasks/boolq/val.jsonl | cut -d' ' -f1)" ] || complain "sha256"
published() { # TASK: its published metric
    "$tool" get all.json tasks "$1" "$("$tool" get all.json tasks "$1" reported)"
}
mean=$(for task in ${seven//,/ }; do published $task; done | awk '{s += $1} END {printf "%.9f", s / NR}')
[ "$(printf '%.9f' "$("$tool" get all.json average)")" = "$mean" ] || complain "the average should be $mean"

echo "--- parts, BOS, a file"
succeeds eval zeroshot model --data tasks --tasks piqa,lambada --limit 1 --offset 1 --samples-out part.jsonl --json --quiet
cp .log/out part.json
[ "$("$tool" get part.json average)" = null ] || complain "an average of one task in seven"
"$tool" get part.json tasks lambada perplexity | grep -q '^[0-9.]*$' || complain "perplexity"
[ "$("$tool" get part.json tasks piqa acc_stderr)" = null ] || complain "one document has no standard error"
grep '"piqa"' s.jsonl | sed -n 2p >want.jsonl && grep '"piqa"' part.jsonl >got.jsonl
[ "$("$tool" get want.jsonl index)" = 1 ] && [ "$("$tool" get got.jsonl index)" = 1 ] || complain "index in the full set"
[ "$("$tool" get want.jsonl choice_len)" = "$("$tool" get got.jsonl choice_len)" ] || complain "--offset"
succeeds eval zeroshot model --data tasks/piqa/valid.jsonl --tasks piqa --samples-out file.jsonl --quiet --threads 1
grep '"piqa"' s.jsonl >piqa.jsonl && same piqa.jsonl file.jsonl
grep -q '^piqa  *4 .*\*' .log/out || complain "the table"
succeeds eval zeroshot model --data tasks --tasks piqa --bos --samples-out bos.jsonl --quiet
cmp -s piqa.jsonl bos.jsonl && complain "--bos changes nothing?"
gzip -c tasks/piqa/valid.jsonl >valid.jsonl.gz && cp tasks/piqa/valid-labels.lst valid-labels.lst
succeeds eval zeroshot model --data valid.jsonl.gz --tasks piqa --samples-out gz.jsonl --quiet && same piqa.jsonl gz.jsonl

echo "--- pruned variants"
zeroshot=(eval zeroshot model --data tasks --tasks piqa,arc_easy --quiet)
succeeds "${zeroshot[@]}" --drop= --drop 2,5 --drop 2,6.attn --json --samples-out v.jsonl
object variants bos && cp .log/out v.json
for list in "" 2,5 2,6.attn; do
    succeeds "${zeroshot[@]}" --drop="$list" --samples-out one.jsonl
    grep "\"drop\":\"$list\"" v.jsonl | sed "s/,\"drop\":.*/}/" >want.jsonl
    same one.jsonl want.jsonl
done
succeeds prune model --drop 2,5 --out pruned --quiet
succeeds "${zeroshot[@]/model/pruned}" --samples-out saved.jsonl && succeeds "${zeroshot[@]}" --drop 2,5 --samples-out one.jsonl
same saved.jsonl one.jsonl
succeeds "${zeroshot[@]}" --drop 2,5 --drop 1 && [ "$(grep -c '^without blocks' .log/out)" = 2 ] || complain "two tables"

echo "--- an adapter"
succeeds train model --rows rows.json --out adapter --steps 2 --warmup 0 --lr 1e-2 --batch 4 --val-size 0 --rank 2 --json --quiet
succeeds "${zeroshot[@]}" --samples-out bare.jsonl && succeeds "${zeroshot[@]}" --adapter adapter --samples-out adapted.jsonl
cmp -s bare.jsonl adapted.jsonl && complain "--adapter changes nothing?"
usage 'one --drop' "${zeroshot[@]}" --adapter adapter --drop 1 --drop 2

echo "--- refusals"
usage '--data' eval zeroshot model
usage '"chess" is no task' eval zeroshot model --data tasks --tasks piqa,chess
usage 'piqa comes twice' eval zeroshot model --data tasks --tasks piqa,boolq,piqa
usage 'is no task' eval zeroshot model --data tasks --tasks ''
usage '--limit' eval zeroshot model --data tasks --limit -1
usage 'a folder was expected' eval zeroshot model --data tasks/piqa/valid.jsonl
fails 'nowhere' eval zeroshot model --data nowhere --tasks piqa
fails 'boolq/val.jsonl' eval zeroshot model --data model
fails '4 documents' eval zeroshot model --data tasks --tasks boolq --offset 4
sed 's/"passage"/"text"/' tasks/boolq/val.jsonl >bad.jsonl
fails 'bad.jsonl: line 1: "passage"' eval zeroshot model --data bad.jsonl --tasks boolq --samples-out bad
fails 'drop' eval zeroshot model --data tasks --drop 1 --drop 8 --samples-out bad
fails 'lost/s.jsonl' eval zeroshot model --data tasks --samples-out lost/s.jsonl
cp -r model sick && "$tool" set sick model.layers.3.mlp.up_proj.weight 5 nan || complain "tool"
fails 'layers.3.mlp.up_proj.weight' eval zeroshot sick --data tasks --samples-out bad
absent bad lost

echo "--- a column of compare"
table=(compare model --calib calib.txt --samples 3 --seq-len 16 --text calib.txt --max-tokens 200 --ratios 0.125,0.25 --quiet)
drops() { # FILE.csv: the drop list of each row
    tail -n +2 "$1" | cut -d, -f5 | tr ' ' ,
}
column() { # FILE.csv NUMBER: to nine decimals, a line each
    tail -n +2 "$1" | cut -d, -f"$2" | awk '{ printf "%.9f\n", $1 }'
}
evaluated() { # FILE.csv KEYS WORDS...: what eval zeroshot says of each row's drop list
    local rows=$1 keys=$2 list
    shift 2
    while read -r list; do
        succeeds eval zeroshot model --data tasks --drop="$list" "$@" --json --quiet
        "$tool" get .log/out $keys | awk '{ printf "%.9f\n", $1 }'
    done < <(drops "$rows")
}
succeeds "${table[@]}" --criteria ppl,magnitude --tasks $seven --data tasks --out c
cp .log/out c.txt
head -n 1 c/compare.csv | grep -q ',zeroshot_average,acc: boolq,acc: piqa,acc_norm: hellaswag,acc: winogrande,acc: arc_easy,acc_norm: arc_challenge,acc_norm: openbookqa,protocol,' || complain "the header"
[ "$(column c/compare.csv 9 | wc -l)" = 9 ] && [ "$(column c/compare.csv 9 | sort -u | wc -l)" -ge 3 ] || complain "nine rows, of which some differ"
evaluated c/compare.csv average >want.txt && same <(column c/compare.csv 9) want.txt
evaluated c/compare.csv 'tasks hellaswag acc_norm' >want.txt && same <(column c/compare.csv 12) want.txt
same <(column c/compare.csv 9 | awk '{ printf "%.2f\n", 100 * $1 }') <(sed -n '3,11s/.* M  *[0-9.]*  *\([0-9.]*\).*/\1/p' c.txt)
grep -q '^zero-shot %: mean of boolq (acc), piqa (acc), hellaswag (acc_norm)' c.txt || complain "what the mean is of"
h5() { # NAME: a line each
    "$tool" reals c/compare.h5 "$1" | tr -d '[]' | tr , '\n' | awk '{ printf "%.9f\n", $1 }'
}
same <(h5 intact/zeroshot_average && h5 variants/zeroshot_average) <(column c/compare.csv 9)
same <(h5 variants/zeroshot | awk 'NR % 7 == 3') <(column c/compare.csv 12 | tail -n +2)
grep -q 'Zero-shot accuracy against the ratio' c/compare.html || complain "the page"
"$tool" get c/zeroshot-piqa.json variants 0 drop | grep -qx '\[\]' && [ "$("$tool" get c/zeroshot-piqa.json offset)" = 0 ] || complain "a task's file"
[ "$("$tool" get c/zeroshot-piqa.json variants | grep -o '"drop"' | wc -l)" = "$(drops c/compare.csv | while read -r list; do tr , '\n' <<<"$list" | sort | tr '\n' ,; echo; done | sort -u | wc -l)" ] || complain "each drop set once"

succeeds "${table[@]}" --criteria ppl --unit sublayer --tasks piqa,lambada --limit 2 --offset 1 --bos --data tasks --out halves
evaluated halves/compare.csv 'tasks piqa acc' --tasks piqa --limit 2 --offset 1 --bos >want.txt
same <(column halves/compare.csv 9) want.txt # LAMBADA is none of the published average
evaluated halves/compare.csv 'tasks lambada acc' --tasks lambada --limit 2 --offset 1 --bos >want.txt
same <(column halves/compare.csv 11) want.txt
succeeds "${table[@]}" --criteria ppl --out without
head -n 1 without/compare.csv | grep -q zeroshot && complain "a column that nobody asked for"
grep -qi 'zero-shot' .log/out without/compare.html && complain "words that nobody asked for"

echo "--- resumed"
again=("${table[@]}" --criteria ppl,magnitude --tasks $seven --data tasks --out c)
cp c/compare.csv whole.csv && rm c/compare.* c/zeroshot-piqa.json && touch -d @1000000000 c/*
succeeds "${again[@]}" --resume
same c/compare.csv whole.csv
[ "$(stat -c %Y c/zeroshot-boolq.json)" = 1000000000 ] || complain "a finished task was run again"
[ -s c/zeroshot-piqa.json ] || complain "an unfinished task was not"
touch -d @1000000000 c/zeroshot-*
succeeds "${again[@]}"
[ "$(stat -c %Y c/zeroshot-boolq.json)" != 1000000000 ] || complain "finished tasks are taken without --resume"
printf x >>c/zeroshot-boolq.json && touch -d @1000000000 c/zeroshot-*
succeeds "${again[@]}" --resume && same c/compare.csv whole.csv
[ "$(stat -c %Y c/zeroshot-boolq.json)" != 1000000000 ] || complain "a damaged file was taken"
for other in '--limit 2' '--offset 1' --bos '--ratios 0.25'; do
    touch -d @1000000000 c/zeroshot-*
    succeeds "${again[@]}" $other --resume
    [ "$(stat -c %Y c/zeroshot-piqa.json)" != 1000000000 ] || complain "$other: the results of other work were taken"
done

echo "--- refused before anything is scored"
bad=("${table[@]}" --criteria ppl --out refused)
usage '"chess" is no task' "${bad[@]}" --tasks piqa,chess --data tasks
usage 'is no task' "${bad[@]}" --tasks '' --data tasks
usage 'piqa comes twice' "${bad[@]}" --tasks piqa,piqa --data tasks
usage '--data' "${bad[@]}" --tasks piqa
for words in '--data tasks' '--limit 1' '--offset 1' --bos; do
    usage "${words% *} goes with --tasks" "${bad[@]}" $words
done
usage '--limit' "${bad[@]}" --tasks piqa --data tasks --limit -1
usage 'a folder was expected' "${bad[@]}" --tasks piqa,boolq --data tasks/piqa/valid.jsonl
fails 'nowhere' "${bad[@]}" --tasks piqa --data nowhere
fails 'boolq/val.jsonl' "${bad[@]}" --tasks boolq --data model
fails '4 documents' "${bad[@]}" --tasks boolq --data tasks --offset 4
fails 'bad.jsonl: line 1: "passage"' "${bad[@]}" --tasks boolq --data bad.jsonl
printf '{"goal":"a wall","sol1":"%0600d","sol2":"red","label":0}\n' 7 >long.jsonl
fails 'choice 0 has 601 tokens' "${bad[@]}" --tasks piqa --data long.jsonl
absent refused
verdict
