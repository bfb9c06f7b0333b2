#!/usr/bin/env bash
# What lies under a name is the user's: links, devices and other people's files are not followed, replaced or removed; what is packed
# may not take the memory; a hash is right or an error; control characters from files stay visible.
. "${BASH_SOURCE%/*}/common.bash"
make_inputs
score=(score model --calib calib.txt --samples 2 --seq-len 16)

echo "--- a link to a folder is not replaced"
mkdir real && echo mine >real/file && ln -s real out && ln -s nowhere lost
fails 'is a link' prune model --drop 1 --out out --force
fails 'is a link' prune model --drop 1 --out out/ --force
fails 'lost' prune model --drop 1 --out lost --force
[ "$(cat real/file)" = mine ] && [ -L out ] && [ -L lost ] || complain "what is behind the link was changed"
mkdir inner && echo mine >inner/file && ln -s ../real inner/link
succeeds prune model --drop 1 --out inner --force --quiet
[ "$(cat real/file)" = mine ] && [ ! -e inner/link ] && [ -e inner/config.json ] || complain "--force goes through an inner link"

echo "--- a link at a name that could be foreseen"
mkdir shared && echo precious >victim
bash -c 'ln -s ../victim shared/s.json.part-$$; exec "$0" "$@"' "$espalier" "${score[@]}" --out shared/s.json --quiet || complain "score fails"
[ "$(cat victim)" = precious ] && [ ! -L shared/s.json ] || complain "written through a link"
rm -f shared/s.json.part-*

echo "--- a link to a file, to nothing, and a name that is taken"
echo old >target.json && ln -s target.json link.json
succeeds "${score[@]}" --out link.json --quiet
[ -L link.json ] && grep -q criterion target.json || complain "the file behind the link is the output"
fails 'lost' "${score[@]}" --out lost
echo mine >s.json.partial
succeeds "${score[@]}" --out s.json --quiet
[ "$(cat s.json.partial)" = mine ] || complain "somebody else's s.json.partial is gone"

echo "--- devices and pipes are written into"
mkfifo pipe && { cat pipe >read.json & }
"$espalier" "${score[@]}" --out pipe --quiet || complain "score into a pipe"
wait
[ -p pipe ] && grep -q criterion read.json || complain "a pipe was replaced"
"$espalier" "${score[@]}" --out /dev/stdout --quiet >read.json || complain "score to /dev/stdout"
grep -q criterion read.json || complain "/dev/stdout"
if [ "$(id -u)" = 0 ] && mknod null c 1 3 2>/dev/null; then
    succeeds "${score[@]}" --out null --quiet
    [ -c null ] || complain "a device was replaced"
fi

echo "--- the log of a training is no link"
mkdir run && ln -s ../victim run/train.jsonl
fails 'train.jsonl' train model --rows rows.json --steps 1 --batch 4 --val-size 0 --rank 2 --warmup 0 --out run --force
[ "$(cat victim)" = precious ] || complain "the log was written through a link"

echo "--- a training does not write into a folder behind a link"
mkdir behind && ln -s behind front
for words in front 'front/' 'front --force'; do
    fails 'is a link' train model --rows rows.json --steps 1 --batch 4 --val-size 0 --rank 2 --warmup 0 --out $words
done
[ -z "$(ls behind)" ] && [ -L front ] || complain "a training wrote through a link"

echo "--- what there is and cannot be read is no absence"
"$tool" hf looped && rm -f looped/model.safetensors && ln -s model.safetensors looped/model.safetensors
fails 'looped/model.safetensors' inspect looped
ln -sf gone looped/model.safetensors
fails 'link to nothing' inspect looped

echo "--- a small file that unpacks to a large one"
"$tool" hf bomb && { echo '{"a":"'; head -c 300M /dev/zero | tr '\0' ' '; echo '"}'; } | gzip -9 >bomb/config.json
fails 'gzip data grow' inspect bomb
(ulimit -v 700000; "$espalier" inspect bomb) >.log/out 2>.log/err
grep -q 'gzip data grow' .log/err || complain "in little memory"
{ cat calib.txt; cat calib.txt; } | gzip >calib.gz
succeeds score model --calib calib.gz --samples 2 --seq-len 16 --out packed.json --quiet

echo "--- no SHA-256"
printf 'openssl_conf = a\n[a]\nalg_section = b\n[b]\ndefault_properties = fips=yes\n' >fips.cnf
OPENSSL_CONF=$work/fips.cnf "$espalier" inspect model --json >.log/out 2>.log/err
status=$?
"$espalier" inspect model --json >right
[ $status = 1 ] && grep -q 'SHA-256' .log/err || cmp -s right .log/out || complain "a hash of nothing, status $status"

echo "--- control characters"
strange=$(printf 'a\033]0;owned\007\177\302\233b')
fails 'a\x1b]0;owned\x07\x7f\xc2\x9bb' inspect "$strange"
cp -r model "$strange"
succeeds inspect "$strange"
LC_ALL=C grep -q "$(printf '\033')" .log/out .log/err && complain "an escape reaches the terminal"
succeeds eval ppl "$strange" --text calib.txt --max-tokens 300 --json
grep -qF 'owned\u0007\u007f\u009bb' .log/out || complain "eval ppl --json: the control characters of the model's name"
verdict
