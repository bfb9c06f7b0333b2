#!/usr/bin/env bash
# What a folder says about its numbers and its tokenizer counts, whatever form it has, and nothing of it is taken for absent or lost.
. "${BASH_SOURCE%/*}/common.bash"
make_inputs
tokens() { "$espalier" generate "$@" --prompt 'a tree' --max-tokens 6 --ignore-eos --json --quiet 2>.log/err | sed 's/.*"ids":\(\[[^]]*\]\),"text".*/\1/'; }
config() { # NAME SED: model/ as NAME/ with another config.json
    cp -r model "$1" && sed "$2" model/config.json >"$1/config.json"
    cmp -s model/config.json "$1/config.json" && complain "$2 changes nothing"
}
plain=$(tokens model)
[ -n "$plain" ] || complain "tokens of the model"

echo "--- rotary frequencies"
config linear 's/^{/{"rope_scaling":{"rope_type":"linear","factor":4.0},/'
config both 's/^{/{"rope_parameters":{"rope_type":"default","rope_theta":10000.0},"rope_scaling":{"rope_type":"linear","factor":4.0},/'
linear=$(tokens linear)
[ "$linear" != "$plain" ] && [ "$(tokens both)" = "$linear" ] || complain "rope_scaling beside rope_parameters"
context=$("$tool" get model/config.json max_position_embeddings)
llama3='"rope_type":"llama3","factor":8.0,"low_freq_factor":1.0,"high_freq_factor":4.0'
config said "s/^{/{\"rope_scaling\":{$llama3,\"original_max_position_embeddings\":$context},/"
config unsaid "s/^{/{\"rope_scaling\":{$llama3},/"
[ "$(tokens unsaid)" = "$(tokens said)" ] || complain "llama3 scaling without its original context takes the model's"

echo "--- what nobody needs"
config big 's/^{/{"no_limit":1000000000000000019884624838656,"deep":[-99999999999999999999],/'
[ "$(tokens big)" = "$plain" ] || complain "integers beyond 64 bits"
printf '\xEF\xBB\xBF' >mark && cat mark model/config.json >big/config.json
[ "$(tokens big)" = "$plain" ] || complain "a byte order mark"

echo "--- tokenizers: there, absent, unreadable"
succeeds train model --rows rows.json --steps 1 --batch 4 --val-size 0 --rank 2 --warmup 0 --out adapter --quiet
file=tokenizer.json
[ -e model/$file ] || file=tokenizer.model
cp -r model damaged && head -c 20 model/$file >damaged/$file
cp -r model dangling && ln -sf /nowhere/blob dangling/$file
cp -r model looping && rm looping/$file && ln -s $file looping/$file
cp -r model beside && echo '{"bos_token": [' >beside/tokenizer_config.json
for broken in damaged dangling looping beside; do
    fails "$broken" prune $broken --drop 1 --out out
    fails "$broken" merge $broken --adapter adapter --out out
    fails "$broken" convert $broken out.gguf
    fails "$broken" score $broken --calib calib.txt --samples 2 --seq-len 8 --out s.json
    succeeds inspect $broken
    succeeds prune $broken --drop 1 --out without-$broken --tokenizer none --quiet
done
absent out out.gguf s.json

echo "--- tokens that end an answer"
cp -r model ended
for said in '[1]' '{"eos_token_id": "</s>"}' '{"eos_token_id": [257, "</s>"]}' '{"eos_token_id": -7}' \
    '{"eos_token_id": [1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17]}'; do
    echo "$said" >ended/generation_config.json
    fails 'ended' generate ended --prompt a --max-tokens 2
done
id() { cut -d, -f"$1" <<<"${plain//[\[\]]/}"; }
first=$(id 1) third=$(id 3)
ends() { "$espalier" generate "$@" --prompt 'a tree' --max-tokens 6 --json --quiet 2>.log/err | sed 's/.*"ids":\(\[[^]]*\]\),"text".*/\1/'; }
if [ "$first" != "$third" ] && [ "$(id 2)" != "$third" ]; then
    cp -r model several && printf '{"eos_token_id": [257, %d]}' "$third" >several/generation_config.json
    short=$(ends several)
    [ "$short" = "[$first,$(id 2)]" ] || complain "a second end token: $short"
    for out in several.folder several.gguf several.h5; do
        succeeds convert several $out --quiet && [ "$(ends $out)" = "$short" ] || complain "$out: end tokens get lost"
    done
    succeeds convert several.gguf back --quiet && [ "$(ends back)" = "$short" ] || complain "back from a GGUF: end tokens get lost"
fi
verdict
