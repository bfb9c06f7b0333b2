#!/usr/bin/env bash
# Every criterion of `score` and what is made of its scores: files, halves of blocks, repair, comparison, interruptions.
. "${BASH_SOURCE%/*}/common.bash"
make_inputs
facts=(program_version command arguments model model_hash dtype compute isa threads seed wall_seconds peak_rss_bytes)
all=(ppl taylor magnitude bi angular relative-magnitude cka greedy random)
rows=(--calib calib.txt --samples 3 --seq-len 16)
score=(score model "${rows[@]}" --quiet)

whole_file() { # FILE KEY...: the file as one object, with these keys
    local file=$1
    shift
    tr -d '\n' <"$file" >.log/out && echo >>.log/out
    object "$@"
}

flat() { # FILE KEY...: numbers of a member, however they are nested
    "$tool" get "$@" | tr -d '[]' | tr -s ,
}

of_h5() { # reals|ints FILE NAME: the same of an HDF5 file
    "$tool" "$@" | tr -d '[]'
}

no_matter() { # FILE: without what differs from run to run and from command to command
    "$tool" without "$1" wall_seconds peak_rss_bytes arguments options work_key
}

echo "--- each criterion"
for name in "${all[@]}"; do
    succeeds "${score[@]}" --criterion "$name" --out "one-$name.json" --copy "one-$name.h5" || continue
    grep -q "^$name; perplexity" .log/out && grep -q "one-$name.json" .log/out || complain "$name: what is printed"
    [ "$(grep -c '^ *[1-8]  ' .log/out)" = 8 ] || complain "$name: a line for each block"
    more=
    case $name in
    taylor | magnitude) more=weights ;;
    greedy) more='trace candidates' ;;
    angular) more=windows ;;
    ppl) more=row_nll ;;
    esac
    whole_file "one-$name.json" "${facts[@]}" criterion unit base_ppl blocks order protected_order calibration $more
    [ "$("$tool" get "one-$name.json" criterion)" = "$name" ] || complain "$name: criterion"
    "$tool" get "one-$name.json" calibration >.log/out && object file sha256 documents offsets seq_len samples
    [ "$(flat "one-$name.json" base_ppl | cut -c1-8)" = "$(flat one-ppl.json base_ppl | cut -c1-8)" ] || complain "$name: base_ppl"
    [ "$("$tool" get "one-$name.json" order | tr -d '[]' | tr , '\n' | sort | tr -d '\n')" = 01234567 ] || complain "$name: order"
    [ "$("$tool" get "one-$name.json" protected_order | tr -d '[]' | tr , '\n' | sort | tr -d '\n')" = 45 ] || complain "$name: protected order"

    [ "$("$tool" get "one-$name.json" blocks | sed 's/{"index":[0-9]*,"score"://g; s/[]{}[]//g')" = "$(of_h5 reals "one-$name.h5" score)" ] || complain "$name: scores of JSON and HDF5"
    [ "$(flat "one-$name.json" order)" = "$(of_h5 ints "one-$name.h5" order)" ] || complain "$name: order of JSON and HDF5"
    [ "$(flat "one-$name.json" protected_order)" = "$(of_h5 ints "one-$name.h5" protected_order)" ] || complain "$name: protected order of both"
    [ "$(flat "one-$name.json" base_ppl)" = "$(of_h5 reals "one-$name.h5" /base_ppl)" ] || complain "$name: base_ppl of both"
done
[ "$(flat one-greedy.json trace)" = "$(of_h5 reals one-greedy.h5 greedy/trace)" ] || complain "trace of both"
[ "$(flat one-ppl.json row_nll)" = "$(of_h5 reals one-ppl.h5 row_nll)" ] || complain "losses of rows of both"
for name in taylor magnitude; do
    tensors=$("$tool" get one-$name.json weights)
    [ "$(grep -o 'model\.layers\.[0-7]\.' <<<"$tensors" | wc -l)" = 72 ] || complain "$name: nine tensors a block"
    [ "$(sed 's/"[^"]*"://g; s/[{}]//g' <<<"$tensors")" = "$(of_h5 reals one-$name.h5 weights/score)" ] || complain "$name: weights of both"
    sum=$("$tool" get one-$name.json weights | tr ',{}' '\n' | awk -F: '/layers\.3\./ { s += $2 } END { printf "%.10g", s }')
    [ "$sum" = "$("$tool" get one-$name.json blocks 3 score | awk '{ printf "%.10g", $1 }')" ] || complain "$name: a block is the sum of its tensors"
done

echo "--- together"
succeeds "${score[@]}" --criterion "$(IFS=, && echo "${all[*]}")" --out both.json --copy both.h5 || verdict
for name in "${all[@]}"; do
    grep -q "both-$name.json" .log/out || complain "$name: not in the list of files"
    same <(no_matter "one-$name.json") <(no_matter "both-$name.json")
    [ "$(of_h5 reals "one-$name.h5" score)" = "$(of_h5 reals "both-$name.h5" score)" ] || complain "$name: alone and together, HDF5"
done
absent both.json both.h5
succeeds "${score[@]}" --criterion bi,random --out pair.json --json && object "${facts[@]}" base_ppl out &&
    grep -q '"out":\["pair-bi.json","pair-random.json"\]' .log/out || complain "the files, as JSON"
succeeds "${score[@]}" --criterion random --seed 7 --out seed.json
[ "$("$tool" get seed.json blocks)" != "$("$tool" get one-random.json blocks)" ] || complain "--seed"

echo "--- options"
succeeds "${score[@]}" --criterion ppl --bootstrap 50 --out boot.json --copy boot.h5
grep -q 'swaps with next' .log/out || complain "--bootstrap prints"
[ "$(flat boot.json bootstrap swap_with_next)" = "$(of_h5 reals boot.h5 bootstrap/swap_with_next)" ] || complain "bootstrap of both"
[ "$(flat boot.json bootstrap swap_with_next | tr , '\n' | awk '$1 >= 0 && $1 <= 1' | wc -l)" = 7 ] || complain "seven probabilities"
[ "$("$tool" get boot.json blocks)" = "$("$tool" get one-ppl.json blocks)" ] || complain "--bootstrap changes no score"
succeeds "${score[@]}" --criterion greedy --count 3 --keep-first 2 --keep-last 1 --out ends.json
[ "$(flat ends.json trace | tr , '\n' | wc -l)" = 3 ] || complain "three steps"
"$tool" get ends.json order | grep -q '^\[[2-6],[2-6],[2-6],[2-6],[2-6],[017],[017],[017]\]$' || complain "the ends go last"
succeeds "${score[@]}" --criterion magnitude --norm-power 2 --weight-reduction max --block-reduction mean --out other.json
[ "$("$tool" get other.json blocks)" != "$("$tool" get one-magnitude.json blocks)" ] || complain "reductions change nothing?"
succeeds "${score[@]}" --criterion taylor --sample-batch 3 --out batch.json
ratio=$(awk -v a="$("$tool" get one-taylor.json blocks 3 score)" -v b="$("$tool" get batch.json blocks 3 score)" 'BEGIN { printf "%.3f", a / b }')
[ "$ratio" = 3.000 ] || complain "--sample-batch: the mean of three losses is a third of their sum, $ratio found"

echo "--- wrong usage"
bad=(score model "${rows[@]}" --out s.json)
usage '--criterion luck: "luck"' "${bad[@]}" --criterion luck
usage '--criterion' "${bad[@]}" --criterion ppl,
usage '--criterion' "${bad[@]}" --criterion bi,ppl,bi
usage '--unit' "${bad[@]}" --unit half
usage '--tokens' "${bad[@]}" --criterion angular --tokens some
usage '--weight-reduction' "${bad[@]}" --criterion taylor --weight-reduction median
usage '--block-reduction' "${bad[@]}" --criterion taylor --block-reduction median
usage '--norm-power' "${bad[@]}" --criterion magnitude --norm-power 3
usage '--sample-batch' "${bad[@]}" --criterion taylor --sample-batch 0
usage '--count -1' "${bad[@]}" --criterion greedy --count -1
usage '--count 8' "${bad[@]}" --criterion greedy --count 8
usage '--count 3' "${bad[@]}" --criterion greedy --count 3 --keep-first 4 --keep-last 2
usage '--count 9' "${bad[@]}" --criterion angular --count 9
usage '--count 16' "${bad[@]}" --criterion greedy --unit sublayer --count 16
usage '--bootstrap' "${bad[@]}" --criterion bi --bootstrap 10
usage '--bootstrap' "${bad[@]}" --bootstrap -1
usage '--bootstrap' score model --calib calib.txt --samples 1 --seq-len 16 --out s.json --bootstrap 10
usage '--save-every' "${bad[@]}" --save-every -1
fails 'calib.txt' "${bad[@]}" --seq-len 4000
fails '3.mlp' "${bad[@]}" --drop 3.mlp
fails '3.attn' "${bad[@]}" --drop 3.attn,3.attn
absent s.json s-ppl.json s-bi.json s.json.partial
succeeds train model --rows rows.json --steps 1 --batch 4 --val-size 0 --rank 2 --warmup 0 --out adapter --quiet
fails 'taylor' "${bad[@]}" --criterion taylor --adapter adapter
fails 'magnitude' "${bad[@]}" --criterion bi,magnitude --adapter adapter
absent s.json s-bi.json s-magnitude.json
succeeds "${score[@]}" --criterion ppl,bi --adapter adapter --out adapted.json

echo "--- prune"
cp -r model other && sed -i 's/"rms_norm_eps": *[0-9.e-]*/"rms_norm_eps":0.001/' other/config.json
fails 'another model' prune other --scores one-taylor.json --count 2 --out p
fails '3 blocks' prune model --scores one-taylor.json --count 3 --out p
usage '--count' prune model --scores one-taylor.json --count 0 --out p
usage '--ratio' prune model --scores one-taylor.json --ratio 1.5 --out p
absent p
succeeds prune model --scores boot.json --count 1 --out unsure --json --quiet && object dropped cut_swap
succeeds prune model --scores one-angular.json --count 3 --no-protect --out window --quiet
"$tool" get window/plan.json dropped | grep -qE '^\[(0,1,2|1,2,3|2,3,4|3,4,5|4,5,6|5,6,7)\]$' || complain "angular drops neighbours"

echo "--- halves of blocks"
ppl() { # WORDS...: perplexity by eval ppl
    succeeds eval ppl "$@" --text calib.txt --seq-len 32 --json --quiet && sed 's/.*"ppl":\([^,]*\),.*/\1/' .log/out
}
params() {
    succeeds inspect "$@" --json && sed 's/.*"n_params":\([^,]*\),.*/\1/' .log/out
}
succeeds "${score[@]}" --criterion ppl,taylor,greedy,angular --unit sublayer --out half.json --copy half.h5 || verdict
grep -q '^sublayers' .log/out && grep -qE '^ +16 +[0-7]\.(attn|ffn)' .log/out || complain "the table of halves"
for name in ppl taylor greedy angular; do
    "$tool" get "half-$name.json" order | grep -qE '^\["[0-7]\.(attn|ffn)"(,"[0-7]\.(attn|ffn)"){15}\]$' || complain "$name: order of halves"
    [ "$("$tool" get "half-$name.json" unit)" = sublayer ] || complain "$name: unit"
    succeeds prune model --scores "half-$name.json" --count 3 --no-protect --out "h-$name" --quiet
    succeeds prune model --scores "half-$name.h5" --count 3 --no-protect --out "h5-$name" --quiet
    same "h-$name/model.safetensors" "h5-$name/model.safetensors"
    dropped=$("$tool" get "h-$name/plan.json" dropped | tr -d '[]"')
    [ "$(ppl "h-$name")" = "$(ppl model --drop "$dropped")" ] || complain "$name: saved and dropped differ"
    [ "$(params "h-$name")" = "$(params model --drop "$dropped")" ] && [ "$(params "h-$name")" -lt "$(params model)" ] || complain "$name: parameters"
done
succeeds prune model --drop 6.attn,2.ffn,4.attn,4.ffn --out halves --json --quiet
[ "$("$tool" get halves/plan.json zeroed)" = '["model.layers.2.mlp.down_proj.weight","model.layers.5.self_attn.o_proj.weight"]' ] || complain "zeroed, by the numbers of the new model"
[ "$("$tool" get halves/plan.json kept)" = '[0,1,2,3,5,6,7]' ] || complain "both halves are a block"
[ "$("$tool" get halves/plan.json params_after)" = "$(params halves)" ] || complain "params_after"
cp -r halves zeroed && for tensor in model.layers.2.mlp.down_proj.weight model.layers.5.self_attn.o_proj.weight; do
    "$tool" set zeroed $tensor all 0 || complain "$tensor"
done
same halves/model.safetensors zeroed/model.safetensors

echo "--- repair"
repair=(prune model --repair linear --calib calib.txt --samples 20 --seq-len 32 --quiet)
succeeds "${repair[@]}" --drop 2,3,5 --out mended --json && object "${facts[@]}" dropped repair
"$tool" get mended/plan.json repair >.log/out && object method alpha runs calibration calibration_sha256 samples seq_len ppl_on ppl_whole ppl_without ppl_with
[ "$("$tool" get mended/plan.json repair runs)" = 2 ] || complain "two runs of blocks"
awk -v cut="$("$tool" get mended/plan.json repair ppl_without)" -v mended="$("$tool" get mended/plan.json repair ppl_with)" \
    'BEGIN { exit !(mended < cut) }' || complain "the repair does not help"
[ "$(params mended)" = "$(params model --drop 2,3,5)" ] || complain "a repair adds nothing"
succeeds "${repair[@]}" --scores one-ppl.json --count 2 --text calib.txt --out mended2 &&
    grep -qE 'perplexity on calib.txt: [0-9.]+ whole, [0-9.]+ cut, [0-9.]+ repaired' .log/out || complain "what is printed"
fails 'halves' "${repair[@]}" --drop 4.attn,5 --out p
fails 'block 0' "${repair[@]}" --drop 0,5 --out p
usage '--repair' prune model --drop 4,5 --repair cubic --calib calib.txt --out p
usage '--calib' prune model --drop 4,5 --repair linear --out p
usage '--repair' prune model --drop 4,5 --calib calib.txt --out p
usage 'adapter' prune model --drop 4,5 --repair linear --calib calib.txt --adapter adapter --out p
absent p

echo "--- compare"
compare=(compare model "${rows[@]}" --text calib.txt)
succeeds "${compare[@]}" --max-tokens 200 --criteria ppl,bi,greedy --ratios 0.125,0.25 --out c --json --quiet && object "${facts[@]}" csv h5 report
for file in compare.csv compare.h5 compare.html scores-ppl.json scores-ppl.h5 scores-greedy.json; do
    [ -s c/$file ] || complain "c/$file"
done
[ "$(wc -l <c/compare.csv)" = 14 ] || complain "a header, the intact model and 3 x 2 x 2 variants"
grep -q '</html>' c/compare.html || complain "the page"
succeeds "${compare[@]}" --max-tokens 200 --criteria ppl --ratios 0.25 --unit sublayer --out c2 --quiet
grep -qE '^ppl +0.25 protected .*[4-5]\.(attn|ffn)' .log/out || complain "compare prints"
usage '--criteria' "${compare[@]}" --criteria ppl,luck --out c3
for ratios in 0 1 0.1,x 0.1,,0.2 '' 0.01 0.9; do
    usage '--ratios' "${compare[@]}" --ratios "$ratios" --out c3
done
usage '--text' compare model "${rows[@]}" --out c3
fails 'nowhere.txt' "${compare[@]}" --text nowhere.txt --out c3
usage '--drop' "${compare[@]}" --drop 1 --out c3
absent c3

echo "--- killed and resumed"
for i in $(seq 12); do
    printf '%s[%d' "$([ "$i" = 1 ] && echo '[' || echo ',')" "$i"
    for k in $(seq 63); do printf ',%d' $(((i * k * k + 7 * k) % 250)); done
    printf ']'
done >ids.json
echo ']' >>ids.json
resumable() { # ROUNDS FILE WORDS...: FILE ends as it does without interruption, whenever score is killed
    local rounds=$1 file=$2 round took pid partial=0
    shift 2
    local job=(score model --calib ids.json --samples 12 --seq-len 64 --save-every 0 --threads 1 --quiet "$@")
    took=${EPOCHREALTIME/[.,]/}
    succeeds "${job[@]}" --out "whole.json" || return
    took=$((${EPOCHREALTIME/[.,]/} - took))
    ls ./*.partial >/dev/null 2>&1 && complain "a partial file is left"
    for ((round = 0; round < rounds; round++)); do
        rm -f cut.* cut-*
        "$espalier" "${job[@]}" --out cut.json >.log/out 2>.log/err &
        pid=$!
        while [ $round -gt 0 ] && kill -0 $pid 2>/dev/null && ! ls cut[.-]*.partial >/dev/null 2>&1; do :; done
        sleep "$(printf '0.%06d' $((RANDOM * 32768 % (round ? took / 2 : took) % 1000000)))" # the first anywhere, the others after a save
        kill -9 $pid 2>/dev/null
        wait $pid 2>/dev/null
        find . -name '*.part-*' -delete # a kill in the middle of a save may leave one
        ls cut[.-]*.partial >/dev/null 2>&1 && partial=$((partial + 1))
        succeeds "${job[@]}" --out cut.json --resume || return
        for whole in whole*.json; do
            same <("$tool" without "$whole" wall_seconds peak_rss_bytes | sed 's/whole\.json/cut.json/') \
                <("$tool" without "cut${whole#whole}" wall_seconds peak_rss_bytes)
        done
        ls ./*.partial >/dev/null 2>&1 && complain "a partial file is left"
    done
    [ $partial -gt 0 ] || echo "note: no kill fell between the first save and the end ($took us)"
    touch -d @1000000000 cut[.-]*
    sum=$(cat cut[.-]* | sha256sum)
    succeeds "${job[@]}" --out cut.json --resume
    [ "$(cat cut[.-]* | sha256sum)" = "$sum" ] && [ "$(stat -c %Y "$file")" = 1000000000 ] || complain "what is finished was made again"
    rm -f whole* cut[.-]*
}
resumable 5 cut-greedy.json --criterion ppl,greedy,bi --unit sublayer --count 4
resumable 4 cut.json --criterion taylor
resumable 3 cut-taylor.json --criterion taylor,ppl --unit sublayer

job=(score model --calib ids.json --samples 12 --seq-len 64 --criterion greedy --count 3 --save-every 0 --threads 1)
"$espalier" "${job[@]}" --quiet --out cut.json >.log/out 2>.log/err &
pid=$!
while kill -0 $pid 2>/dev/null && [ ! -e cut.json.partial ]; do :; done
kill -9 $pid 2>/dev/null
wait $pid 2>/dev/null
find . -name '*.part-*' -delete
if [ -e cut.json.partial ]; then
    fails 'cut.json.partial' "${job[@]}" --out cut.json --resume --count 2
    truncate -s -4 cut.json.partial
    fails 'cut.json.partial' "${job[@]}" --out cut.json --resume
    absent cut.json
    succeeds "${job[@]}" --quiet --out cut.json # without --resume it is begun anew
    absent cut.json.partial
    printf 'espalier partial scores 1\n\0a kill between the result and the end' >cut.json.partial
    succeeds "${job[@]}" --quiet --out cut.json --resume
    absent cut.json.partial
fi

echo "--- a full disk"
mkdir full
if [ "$(id -u)" = 0 ] && mount -t tmpfs -o size=64k tmpfs full 2>.log/err; then
    mounted=$work/full
    head -c 1M /dev/zero >full/ballast 2>/dev/null
    for words in '' '--save-every 0'; do
        fails 'full/s' "${score[@]}" --criterion ppl,bi,taylor --out full/s.json $words
        fails 'full/s' "${score[@]}" --criterion taylor --out full/s.h5 $words
    done
    fails 'full' "${compare[@]}" --criteria bi --ratios 0.25 --out full/c
    absent full/s-ppl.json full/s-bi.json full/s-taylor.json full/s.h5 full/s-ppl.json.partial full/s.h5.partial full/c/compare.html full/c/scores.json
    umount full && mounted=
else
    echo "full disk: not tried, mounting is not allowed here"
fi
verdict
