#!/usr/bin/env bash
# What `run` and `train` leave says what it is of: the run as a whole, each measurement, the options in effect and the data.
. "${BASH_SOURCE%/*}/common.bash"
make_inputs
sum() { sha256sum "$1" | cut -c1-64; }

# attribute FILE OBJECT NAME VALUE: what it holds
attribute() {
    local got
    got=$("$tool" attribute "$1" "$2" "$3" 2>&1)
    [ "$got" = "$4" ] || complain "$1: $2: $3 is \"$got\", \"$4\" was expected"
}

# says FILE PART: the JSON file, without line breaks and blanks after a colon, contains it
says() { tr -d '\n' <"$1" | sed 's/\([:,{]\) */\1/g' | grep -qF -- "$2" || complain "$1 should say $2"; }

echo "--- train"
succeeds train model --data alpaca.json --out tuned --steps 2 --batch 2 --micro-batch 1 --val-size 2 --rank 2 --warmup 0 --json --quiet
cp .log/out train.json
says train.json "\"data_sha256\":\"$(sum alpaca.json)\""
for part in '"rank":2,' '"lr":0.0001' '"dropout":0.05' '"cutoff":256' '"targets":"q,k,v,o,gate,up,down"' '"loss-average":"micro"' '"no-shuffle":false' \
    '"seed":42' '"epochs":null' '"hf-legacy":false' '"val-size":2' '"rows_used":4' '"rows_set_aside":2' '"steps":2'; do
    says train.json "$part"
done
attribute tuned/train.h5 / data_sha256 "$(sum alpaca.json)"
"$tool" attribute tuned/train.h5 / options | grep -q '"alpha":16' || complain "train.h5 lacks the options"
succeeds train model --data alpaca.json --out more --init-adapter tuned --epochs 1 --batch 2 --micro-batch 1 --val-size 2 --warmup 0 --json --quiet
cp .log/out more.json
says more.json '"rank":2,' # the adapter's, not the default
says more.json '"epochs":1,'

echo "--- evaluation.h5"
make_config tiny.json
sed -i 's/a tiny/a <b>tiny<\/b>/; s/"runs": 1/"runs": 3/
        s/"max-tokens": 300}/&, {"name": "BOS", "text": "calib.txt", "protocol": "shortened-128-bos", "max-tokens": 300}/' tiny.json
succeeds run tiny.json --out made --json --quiet
h5=made/evaluation.h5
cp .log/out run.json
attribute $h5 / title 'a <b>tiny</b> experiment'
attribute $h5 / config tiny.json
attribute $h5 / config_sha256 "$(sum tiny.json)"
attribute $h5 / command run
attribute $h5 / model model
attribute $h5 / model_fingerprint "$("$tool" get train.json model_fingerprint | tr -d '"')"
for model in intact pruned retrained; do
    attribute $h5 $model/texts/0 name text
    attribute $h5 $model/texts/0 protocol shortened-128
    attribute $h5 $model/texts/1 protocol shortened-128-bos
    attribute $h5 $model/texts/1 text calib.txt
    attribute $h5 $model/texts/1 text_sha256 "$(sum calib.txt)"
    [ "$("$tool" attribute $h5 $model/texts/0 tokens_scored)" -gt 100 ] || complain "$model: tokens scored"
    [ "$("$tool" attribute $h5 $model/texts/0 peak_rss_bytes)" -gt 1000000 ] || complain "$model: memory"
    "$tool" attribute $h5 $model/texts/0 wall_seconds >.log/out || complain "$model: seconds"
done
[ "$("$tool" attribute $h5 intact model_fingerprint)" != "$("$tool" attribute $h5 pruned model_fingerprint)" ] || complain "two models, one fingerprint"
echo "--- speeds in turns"
[ "$("$tool" get run.json stages_reused)" = 0 ] || complain "nothing was there to reuse"
[ "$(ls made/stages | grep -c speed)" = 1 ] || complain "one stage for all speeds: $(ls made/stages)"
grep -q ' ± .*tokens\|no difference beyond the noise\|%' made/report.html && grep -q 'took turns' made/report.html || complain "the report's speeds"
succeeds eval speed model --drop "" --drop 1 --out-len 4 --runs 3 --json --quiet
says .log/out '"variants":[{"drop":""'
says .log/out '{"drop":"1"'
says .log/out '"decode_ratio":1.0,"decode_ratio_std":0.0'
says .log/out '"decode_std"'
succeeds eval speed model --drop 1 --out-len 4 --runs 2 --json --quiet && ! grep -q variants .log/out || complain "one model is no list"
succeeds eval speed model --drop "" --drop 1 --batch 1,2 --out-len 4 --runs 2 --quiet && [ "$(grep -c "of the first's" .log/out)" = 4 ] || complain "the table"
fails 'block 9' eval speed model --drop "" --drop 9 --out-len 4
usage '--adapter' eval speed model --drop "" --drop 1 --adapter tuned
succeeds run tiny.json --out made --json --quiet # 4 stages, 3 times inspect, generate and 2 texts, and the speeds
[ "$("$tool" get .log/out stages_reused)" = 17 ] || complain "$(cat .log/out)"

echo "--- how this was made"
made() { grep -A40 'id="recipe"' made/report.html | grep -qF -- "$1" || complain "the report should say $1"; }
for part in '<td role="cell">espalier run tiny.json --out made</td>' "tiny.json; SHA-256 $(sum tiny.json)" "calib.txt; SHA-256 $(sum calib.txt)" \
    "alpaca.json: 6 rows used, 0 set aside, 0 left out; SHA-256 $(sum alpaca.json)" 'rank 2, alpha 16' 'learning rate 0.0001, 1 steps of 2 rows' \
    'protocol shortened-128-bos' "tokens scored; SHA-256 $(sum calib.txt)" 'UTC, by espalier'; do
    made "$part"
done
sed 's/"name": "text"/"name": "<b>\&"/' tiny.json >"it's <odd>.json" # nothing of it is markup, and the command is one for a shell
succeeds run "it's <odd>.json" --out made --json --quiet
made 'espalier run &#39;it&#39;\&#39;&#39;s &lt;odd&gt;.json&#39; --out made'
made '&lt;b&gt;&amp;'
grep -qF '<odd' made/report.html && complain "a file's name is markup"
verdict
