#!/usr/bin/env bash
# eval zeroshot on our own sample tasks: what it prints and writes, pruned variants at once, and what it refuses.
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
verdict
