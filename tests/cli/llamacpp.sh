#!/usr/bin/env bash
# eval ppl --protocol llamacpp-512 against what llama-perplexity said of the demo's model and our sample text. `make model` fetches
# that model; nothing here needs llama.cpp.
root=$PWD
. "${BASH_SOURCE%/*}/common.bash"
model=$BUILD/models/SmolLM2-135M-Instruct.Q4_1.gguf text=$root/data/sample/heldout.txt
[ -s "$model" ] || { echo "no $model; make model fetches it"; exit 77; }

# The text that the figures are of.
[ "$(sha256sum <"$text" | cut -d' ' -f1)" = 291df6c299b71aa01bc8e4addeaadf2a98798618af31e7c19bc96352ae55d9a5 ] ||
    complain "another text: llama-perplexity has to say anew what it is worth"

# near WANTED TOLERANCE MODEL
near() {
    succeeds eval ppl "$3" --text "$text" --protocol llamacpp-512 --json --quiet || return
    cp .log/out result.json
    [ "$("$tool" get result.json tokens_scored)" = 4335 ] && [ "$("$tool" get result.json windows)" = 17 ] ||
        complain "17 windows of 255 scored tokens were expected"
    awk -v got="$("$tool" get result.json ppl)" -v want="$1" -v tol="$2" \
        'BEGIN { d = got - want; exit !(d <= tol && d >= -tol) }' || complain "$3: $("$tool" get result.json ppl), llama-perplexity: $1"
}

# The model converted to an f32 GGUF, `llama-perplexity -ctk f32 -ctv f32 -fa off`: the same weights as decoding q4_1 gives, the same
# precision, so it differs by the rounding of the last digit printed and of the order of sums.
near 43.7449 0.0002 "$model"
# Converted to f16, `llama-perplexity` as it comes: 43.7425. There activations and cache are rounded to f16 as well, 11 bits: seen 1e-5
# of it, and other ways of running it give 43.7427.
succeeds convert "$model" f16.gguf --dtype f16 --format gguf --quiet && near 43.7425 0.002 f16.gguf
verdict
