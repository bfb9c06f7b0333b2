#!/usr/bin/env bash
# Files that are not what they should be: each ends the command with status 1 and one line that names the file (or the tensor).
. "${BASH_SOURCE%/*}/common.bash"
make_inputs
succeeds score model --calib calib.txt --out scores.json --samples 3 --seq-len 16 --json --quiet
succeeds train model --rows rows.json --out adapter --steps 1 --batch 4 --val-size 0 --rank 2 --json --quiet

spoil() { # NAME SED-EXPRESSION FILE: a copy of the model with a file edited; text of the same length keeps the offsets right
    rm -rf "$1" && cp -r model "$1" && sed -i "$2" "$1/$3"
    cmp -s "model/$3" "$1/$3" && complain "$1: the edit changed nothing"
}

echo "--- models that are none"
fails 'nowhere' inspect nowhere
mkdir empty && fails 'empty' inspect empty
: >nothing.gguf && fails 'nothing.gguf' inspect nothing.gguf
printf 'GGML some other format' >other.gguf && fails 'other.gguf' inspect other.gguf
fails 'calib.txt' inspect calib.txt
fails '/dev/null' inspect /dev/null
cp -r model no_config && rm no_config/config.json && fails 'no_config/config.json' inspect no_config
spoil bad_config 's/{/[/' config.json && fails 'bad_config/config.json' inspect bad_config
spoil other_kind 's/"llama"/"gemma"/' config.json && fails 'gemma' inspect other_kind
spoil huge 's/"hidden_size":16/"hidden_size":99999999/' config.json && fails 'huge/config.json' inspect huge

echo "--- weights that do not fit"
cp -r model cut && truncate -s -100 cut/model.safetensors && fails 'cut/model.safetensors' inspect cut
cp -r model stub && truncate -s 5 stub/model.safetensors && fails 'stub/model.safetensors' inspect stub
for bytes in 10 100 3000 100000; do
    head -c $bytes model.gguf >cut.gguf && fails 'cut.gguf' inspect cut.gguf
done
spoil magic '1s/^........{/\xff\xff\xff\xff\xff\xff\xff\x7f{/' model.safetensors && fails 'magic/model.safetensors' inspect magic
spoil shape 's/"shape":\[260,16\]/"shape":[130,32]/' model.safetensors && fails 'model.embed_tokens.weight' inspect shape
spoil offset 's/"data_offsets":\[0,16640\]/"data_offsets":[4,16640]/' model.safetensors && fails 'offset/model.safetensors' inspect offset
spoil dtype '0,/"F32"/s//"F99"/' model.safetensors && fails 'F99' inspect dtype
spoil missing 's/layers\.5\.mlp\.up_proj/layers.5.mlp.xx_proj/' model.safetensors && fails 'layers.5.mlp.up_proj.weight' inspect missing
spoil wider 's/"intermediate_size":24/"intermediate_size":25/' config.json && fails 'gate_proj' inspect wider
spoil deeper 's/"num_hidden_layers":8/"num_hidden_layers":9/' config.json && fails 'model.layers.8.' inspect deeper

echo "--- weights that are no numbers"
for value in nan inf -inf; do
    rm -rf sick && cp -r model sick && "$tool" set sick model.layers.3.mlp.up_proj.weight 5 $value || complain "tool"
    fails 'layers.3.mlp.up_proj.weight' score sick --calib calib.txt --out sick.json --samples 2 --seq-len 16
    fails 'layers.3.mlp.up_proj.weight' eval ppl sick --text calib.txt --seq-len 32
    fails 'layers.2.mlp.up_proj.weight' prune sick --drop 1 --out sick_pruned
    rm -rf sick_norm && cp -r model sick_norm && "$tool" set sick_norm model.layers.3.input_layernorm.weight 2 $value || complain "tool"
    fails 'layers.3.input_layernorm.weight' score sick_norm --calib calib.txt --out sick.json --samples 2 --seq-len 16
    fails 'input_layernorm.weight' prune sick_norm --drop 1 --out sick_pruned
    absent sick.json sick_pruned
done
cp -r model large && "$tool" set large model.layers.3.mlp.up_proj.weight 5 1e6 || complain "tool"
fails 'up_proj.weight' prune large --drop 1 --out large_f16 --dtype f16 # finite, but not in f16
absent large_f16

echo "--- calibration files"
: >empty.txt && fails 'empty.txt' score model --calib empty.txt --out s.json
fails 'nowhere.txt' score model --calib nowhere.txt --out s.json
fails 'calib.txt' score model --calib calib.txt --out s.json --samples 31 --seq-len 16
grep -q '30 of its 30 documents' .log/err || complain "how many documents could serve?"
fails 'calib.txt' score model --calib calib.txt --out s.json --samples 2 --seq-len 4000
echo '[[1,2],[3]]' >ragged.json && fails 'ragged.json' score model --calib ragged.json --out s.json
echo '[[1,2,259,260]]' >foreign.json && fails '260' score model --calib foreign.json --out s.json
gzip -c calib.txt | head -c 60 >calib.txt.gz && fails 'calib.txt.gz' score model --calib calib.txt.gz --out s.json
absent s.json

echo "--- blocks to drop"
for list in 1,1 8 -1 1,,2 1, ,1 x 1x 1.5 99999999999999999999 0,1,2,3,4,5,6,7; do
    fails 'drop' eval ppl model --text calib.txt --seq-len 32 --drop=$list
    fails 'drop' prune model --drop=$list --out p
done
absent p
succeeds prune model --drop= --out copy --quiet # an empty list drops nothing, and the plan says so
[ "$("$tool" get copy/plan.json dropped)" = '[]' ] && [ "$("$tool" get copy/plan.json params_before)" = "$("$tool" get copy/plan.json params_after)" ] ||
    complain "an empty list"

echo "--- scores"
fails 'nowhere.json' prune model --scores nowhere.json --count 1 --out p
echo '{"blocks":[]}' >none.json && fails 'none.json' prune model --scores none.json --count 1 --out p
sed 's/"index": *3/"index": 2/' scores.json >twice.json && fails 'twice.json' prune model --scores twice.json --count 1 --out p
sed 's/"model_hash": *"../"model_hash": "zz/' scores.json >other.json && fails 'other.json: scores of another model' prune model --scores other.json --count 1 --out p
head -c 200 scores.json >half.json && fails 'half.json' prune model --scores half.json --count 1 --out p
fails '3 blocks to drop' prune model --scores scores.json --count 3 --out p
fails '8 blocks to drop' prune model --scores scores.json --count 8 --no-protect --out p
fails 'blocks to drop' prune model --scores scores.json --ratio 0.01 --out p
fails 'blocks to drop' prune model --scores scores.json --count 1 --keep-first 7 --out p
absent p

echo "--- adapters"
fails 'nowhere' merge model --adapter nowhere --out m
cp -r adapter bad1 && truncate -s -8 bad1/adapter_model.safetensors && fails 'bad1/adapter_model.safetensors' merge model --adapter bad1 --out m
cp -r adapter bad2 && sed -i 's/"r": *2/"r": 3/' bad2/adapter_config.json && fails 'bad2/adapter_model.safetensors' merge model --adapter bad2 --out m
cp -r adapter bad3 && echo '{' >bad3/adapter_config.json && fails 'bad3/adapter_config.json' merge model --adapter bad3 --out m
cp -r adapter bad4 && sed -i 's/"LORA"/"IA3"/' bad4/adapter_config.json && fails 'IA3' merge model --adapter bad4 --out m
fails 'adapter/espalier.json' eval ppl model --text calib.txt --seq-len 32 --adapter adapter --drop 3
absent m

echo "--- training data"
: >empty.json && fails 'empty.json' train model --data empty.json --out t
echo '[{"ids":[1,2,3],"labels":[1,2]}]' >bad.json && fails 'bad.json' train model --rows bad.json --out t --val-size 0
fails 'alpaca.json' train model --data alpaca.json --out t # 2000 rows of six to be set aside
fails 'alpaca.json' train model --data alpaca.json --out t --val-size 0 --cutoff 10
fails 'nowhere.json' train model --rows nowhere.json --out t
absent t

echo "--- texts and prompts"
fails 'nowhere.txt' eval ppl model --text nowhere.txt
fails 'empty.txt' eval ppl model --text empty.txt
fails 'calib.txt' eval ppl model --text calib.txt --protocol gptq-2048 --max-tokens 100
fails 'nowhere.json' generate model --prompt a --tokenizer nowhere.json
cp -r model mute && rm mute/tokenizer.json && fails 'mute' generate mute --prompt a
fails 'memory' generate model --prompt a --max-tokens 9000000000000000000
verdict
