#!/usr/bin/env bash
# The configuration of `run` is read whole before anything runs: each mistake is named with file, part and key, and nothing is made.
. "${BASH_SOURCE%/*}/common.bash"
make_inputs
make_config good.json

# wrong SED MESSAGE: good.json, changed so, is refused with that message, and no stage was begun
wrong() {
    sed "$1" good.json >bad.json
    cmp -s good.json bad.json && complain "$1 changes nothing"
    fails "bad.json: $2" run bad.json --out made
    absent made
}

wrong 's/"score": {/"scoer": {}, &/' 'unknown section "scoer"; is "score" meant?'
wrong 's/"steps": 1/"stepz": 1/' 'train: unknown option --stepz; is --steps meant?'
wrong 's/"eval": {/&"zeroshot": {"tasks": "piqa"}, /' 'eval: unknown key "zeroshot"'
wrong 's/"speed"/"speeed"/' 'eval: unknown key "speeed"; is "speed" meant?'
wrong 's/"runs"/"rnus"/' 'eval.speed: unknown option --rnus; is --runs meant?'
wrong 's/"format": "lines"/"txt": "x"/' 'eval.texts[0]: unknown option --txt; is --text meant?'
wrong 's/"max-tokens": 2}/"max-token": 2}/' 'generate: unknown option --max-token; is --max-tokens meant?'
wrong 's/"prompts"/"promts"/' 'generate: an array "prompts"'
wrong 's/"merge": {}/"merge": {"dtype": "int3"}/' 'merge: --dtype int3'
wrong 's/"merge": {}/"merge": {"out": "x"}/' 'merge: "out" is not for a configuration'
wrong 's/"merge": {}/"merge": []/' '"merge": an object was expected'
wrong 's/"count": 1/"ratio": 20/' 'prune: --ratio 20'
wrong 's/"count": 1/"count": 1, "ratio": 0.2/' 'prune: --ratio and --count'
wrong 's/"batch": 2/"batch": 3, "micro-batch": 2, "x": 1/;s/, "x": 1, "micro-batch": 1//' 'train: --batch 3'
wrong 's/"criterion": "bi"/"criterion": "luck"/' 'score: --criterion luck'
wrong 's/"steps": 1/"steps": "one"/' 'train: --steps one'
wrong 's/"calib": "calib.txt"/"calib": "calb.txt"/' 'score: "calib": calb.txt: No such file'
wrong 's/"data": "alpaca.json"/"data": "nowhere.json"/' 'train: "data": nowhere.json: No such file'
wrong 's/"text": "calib.txt"/"text": "nowhere.txt"/' 'eval.texts[0]: "text": nowhere.txt: No such file'
wrong 's/"model": "model"/"model": "modle"/' '"model": modle: No such file'
wrong 's/"format": "lines"/"format": "lines", "rows": "ptb"/' 'eval.texts[0]: --rows and --format'
wrong 's/"title": "a tiny experiment"/"title": 3/' '"title": a string was expected'
wrong 's/"texts": \[.*\],/"texts": [],/' 'eval: an array "texts"'

succeeds run good.json --out made --quiet
[ -s made/report.html ] || complain "the right one runs"
verdict
