#!/usr/bin/env bash
# Texts have a length, an encoding and line ends; rows are read alike whatever the ending of their file.
. "${BASH_SOURCE%/*}/common.bash"
make_inputs
losses() { # losses FILE: what the first step of a training on it sees
    rm -rf o
    succeeds train model --data "$1" --out o --steps 1 --batch 1 --micro-batch 1 --val-size 0 --warmup 0 --dropout 0 --no-shuffle \
        --threads 1 --quiet
    sed 's/.*"micro_losses":\[\([^]]*\)\].*/\1/' o/train.jsonl
}
row='{"instruction":"Count","input":"","output":"one'
echo "[$row\"}]" >cut.json
echo "[$row\\u0000two\"}]" >whole.json
[ "$(losses cut.json)" != "$(losses whole.json)" ] || complain "U+0000 cuts a field off"

want=$(losses cut.json)
echo "$row\"}" >lines.json
printf '\xef\xbb\xbf%s"}\n' "$row" >mark.json
printf '[%s"}]' "$row" >array.jsonl
gzip -c lines.json >lines.json.gz
for file in lines.json mark.json array.jsonl lines.json.gz; do
    [ "$(losses $file)" = "$want" ] || complain "$file: other losses than cut.json"
done
printf '%s"}\n%s\n' "$row" "$row" >bad.json
fails 'bad.json: line 2' train model --data bad.json --out bad --val-size 0 --threads 1
printf '\xff\xfe[\0]\0' >wide.json
fails 'UTF-16' train model --data wide.json --out bad --val-size 0 --threads 1

# Lines as Python's text mode has them, also for tokenize.
printf '\xef\xbb\xbfone\r\ntwo\rthree' >dos.txt
printf 'one\ntwo\nthree\n' >unix.txt
[ "$("$espalier" tokenize model --file dos.txt)" = "$("$espalier" tokenize model --file unix.txt)" ] || complain "tokenize: line ends"

echo '[{"ids":[65,66,67],"labels":[-100,66,67]},{"ids":[65,66],"labels":[-100,-100]}]' >masked.json
"$espalier" train model --rows masked.json --out masked --steps 1 --batch 1 --micro-batch 1 --val-size 0 --threads 1 --json \
    >.log/out 2>.log/err || complain "masked.json"
grep -q '1 rows left out' .log/out || complain "the result does not tell of the masked row"

# Bytes that are no whole character among those generated.
"$espalier" generate model --prompt "a b" --max-tokens 8 --threads 1 --json >.log/out 2>.log/err || complain "generate"
grep -q $'"text": *"1^,\xef\xbf\xbd' .log/out || complain "generate --json: $(cat .log/out)"
# Positions beyond those that the model was made for.
positions=$(grep -o '"max_position_embeddings": *[0-9]*' model/config.json | grep -o '[0-9]*$')
"$espalier" generate model --prompt "a b" --max-tokens "$positions" --threads 1 >.log/out 2>.log/err
grep -q "made for $positions positions" .log/err || complain "generate past the context"
"$espalier" chat model --context $((positions + 1)) --threads 1 </dev/null >.log/out 2>.log/err
grep -q "made for $positions positions" .log/err || complain "chat past the context"
verdict
