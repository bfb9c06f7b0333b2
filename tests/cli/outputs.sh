#!/usr/bin/env bash
# Places that cannot be written to: taken, read-only, full. The command ends with one line, and nothing is left under the final name.
. "${BASH_SOURCE%/*}/common.bash"
make_inputs
score=(score model --calib calib.txt --samples 2 --seq-len 16)
train=(train model --rows rows.json --steps 1 --batch 4 --val-size 0 --rank 2 --warmup 0)
succeeds "${train[@]}" --out adapter --json --quiet

echo "--- taken"
mkdir taken && echo mine >taken/file
fails 'taken' prune model --drop 1 --out taken
fails 'taken' merge model --adapter adapter --out taken
fails 'adapter' "${train[@]}" --out adapter
fails 'rows.json' prune model --drop 1 --out rows.json --force
fails 'rows.json' "${train[@]}" --out rows.json
fails 'taken' "${score[@]}" --out taken
[ "$(ls taken)" = file ] && [ "$(cat taken/file)" = mine ] || complain "taken/ was changed"
succeeds prune model --drop 1 --out taken --force --quiet
[ -e taken/config.json ] && [ ! -e taken/file ] || complain "--force replaces"
fails 'nowhere/deep' "${score[@]}" --out nowhere/deep/s.json
fails 'nowhere/deep' "${score[@]}" --out nowhere/deep/s.h5
absent nowhere

# on_bad_disk FOLDER: every command that writes must fail there and leave no whole and no half file
on_bad_disk() {
    fails "$1/s.json" "${score[@]}" --out "$1/s.json"
    fails "$1/s.h5" "${score[@]}" --out "$1/s.h5"
    fails "$1/p" prune model --drop 1 --out "$1/p"
    fails "$1/m" merge model --adapter adapter --out "$1/m"
    absent "$1/s.json" "$1/s.h5" "$1/p" "$1/m"
}

echo "--- read-only"
if [ "$(id -u)" = 0 ]; then # root may write into any folder, but not into a file system mounted read-only
    mkdir locked && mount -t tmpfs -o ro,size=200k tmpfs locked 2>.log/err && mounted=$work/locked
else
    mkdir locked && chmod 555 locked && mounted=
fi
if [ "$(id -u)" != 0 ] || [ -n "$mounted" ]; then
    on_bad_disk locked
    fails 'locked/t' "${train[@]}" --out locked/t
    absent locked/t
    [ -n "$mounted" ] && umount "$mounted" && mounted=
else
    echo "read-only folder: not tried, mounting is not allowed here"
fi

echo "--- full"
mkdir full
if [ "$(id -u)" = 0 ] && mount -t tmpfs -o size=200k tmpfs full 2>.log/err; then
    mounted=$work/full
    head -c 1M /dev/zero >full/ballast 2>/dev/null # what is left is less than a model or a score file takes
    on_bad_disk full
    fails 'train.jsonl' "${train[@]}" --out full/t
    absent full/t/adapter_model.safetensors full/t/adapter_config.json full/t/train.h5
    umount full && mounted=
else
    echo "full disk: not tried, mounting is not allowed here"
fi

echo "--- standard output"
for words in 'inspect model' 'inspect model --json' 'tokenize model text' 'generate model --prompt a --max-tokens 3 --json --quiet' '--help' '--version' 'inspect --help'; do
    "$espalier" $words >/dev/full 2>.log/err
    status=$?
    : >.log/out
    judge 1 $status 'standard output' "$words >/dev/full"
done
verdict
