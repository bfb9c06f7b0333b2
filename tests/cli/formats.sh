#!/usr/bin/env bash
# Models in and out of every format: convert, prune, merge, synth. A file is there whole or not at all.
. "${BASH_SOURCE%/*}/common.bash"
make_inputs
ppl() { # MODEL...: perplexity, as text
    succeeds eval ppl "$@" --text calib.txt --seq-len 32 --json --quiet && sed 's/.*"ppl":\([^,]*\),.*/\1/' .log/out
}
dtype() { # MODEL: what its weights are
    succeeds inspect "$1" --json --quiet && sed 's/.*"dtype":"\([^"]*\)".*/\1/' .log/out
}

echo "--- convert"
succeeds convert model f16 --dtype f16 --json --quiet && object program_version command model model_hash out
succeeds convert f16 f16.gguf --quiet && succeeds convert f16.gguf back --quiet && same f16/model.safetensors back/model.safetensors
succeeds convert f16.gguf f16.h5 --quiet && succeeds convert f16.h5 back5 --quiet && same f16/model.safetensors back5/model.safetensors
succeeds convert f16.h5 again.gguf --quiet
for m in f16.gguf f16.h5 back back5 again.gguf; do
    [ "$(ppl $m)" = "$(ppl f16)" ] || complain "perplexity of $m"
    [ "$(dtype $m)" = f16 ] || complain "dtype of $m"
    "$espalier" tokenize $m --file calib.txt >ids.$$ 2>/dev/null || complain "the tokenizer of $m"
    "$espalier" tokenize model --file calib.txt | cmp -s - ids.$$ || complain "the tokens of $m"
done
succeeds inspect f16.h5 --json && grep -q '"format":"h5"' .log/out || complain "format"
for d in f32 f16 bf16 f8_e4m3; do
    succeeds convert model hf.$d --dtype $d --quiet && [ "$(dtype hf.$d)" = $d ] || complain "hf $d"
    succeeds convert hf.$d h5.$d.h5 --quiet && [ "$(dtype h5.$d.h5)" = $d ] || complain "h5 $d"
done
for d in f32 f16 bf16; do
    succeeds convert model gguf.$d.gguf --dtype $d --quiet && [ "$(dtype gguf.$d.gguf)" = $d ] || complain "gguf $d"
done
succeeds convert model q.gguf --dtype q8_0 # rows of 16 and 24 values
grep -q 'in f16' .log/err && [ "$(dtype q.gguf)" = f16 ] || complain "it should say what is in f16"
succeeds convert hf.f8_e4m3 from8.gguf --quiet && [ "$(dtype from8.gguf)" = f16 ] || complain "a GGUF has no f8"
succeeds convert model in_folder --format gguf --quiet && [ -s in_folder/model.gguf ] && [ "$(ppl in_folder/model.gguf)" = "$(ppl model)" ] || complain "a folder"
succeeds convert model some --drop 2,5 --quiet && succeeds prune model --drop 2,5 --out some2 --quiet && same some/model.safetensors some2/model.safetensors
succeeds convert model shards --shard-size 20KB --quiet && [ -s shards/model.safetensors.index.json ] && [ "$(ppl shards)" = "$(ppl model)" ] || complain "shards"

echo "--- prune and merge"
succeeds prune model --drop 2,5 --out p.gguf --quiet && [ -s p.plan.json ] && [ "$(ppl p.gguf)" = "$(ppl model --drop 2,5)" ] || complain "prune to a GGUF"
succeeds prune model.gguf --drop 2,5 --out p5 --format h5 --quiet && [ -s p5/plan.json ] && [ "$(ppl p5/model.h5)" = "$(ppl model.gguf --drop 2,5)" ] || complain "prune to HDF5"
succeeds prune model --drop 1.attn --out half.gguf --quiet && [ "$(ppl half.gguf)" = "$(ppl model --drop 1.attn)" ] || complain "half a block in a GGUF"
succeeds prune hf.f8_e4m3 --drop 2 --out p8 --quiet && [ "$(dtype p8)" = f8_e4m3 ] && [ "$(ppl p8)" = "$(ppl hf.f8_e4m3 --drop 2)" ] || complain "prune in f8"
succeeds train model --rows rows.json --steps 1 --batch 4 --val-size 0 --rank 2 --warmup 0 --lr 1e-2 --out adapter --quiet
succeeds merge model --adapter adapter --out merged --quiet && succeeds merge model --adapter adapter --out merged.gguf --quiet
[ "$(ppl merged)" = "$(ppl merged.gguf)" ] || complain "merged in two formats"
succeeds train hf.f8_e4m3 --rows rows.json --steps 1 --batch 4 --val-size 0 --rank 2 --warmup 0 --out adapter8 --quiet
succeeds score hf.f8_e4m3 --criterion taylor --calib calib.txt --samples 2 --seq-len 16 --out t8.json --quiet

echo "--- synth"
cp model/config.json shape.json
succeeds synth shape.json --seed 7 --out s1 --json --quiet && object out config dtype seed n_params
succeeds inspect model --json && grep -q "\"n_params\":$("$espalier" synth shape.json --seed 7 --threads 1 --out s2 --json --quiet | sed 's/.*"n_params":\([0-9]*\).*/\1/')," .log/out || complain "parameters"
same s1/model.safetensors s2/model.safetensors
succeeds synth shape.json --seed 8 --out s3 --quiet && { cmp -s s1/model.safetensors s3/model.safetensors && complain "another seed, the same weights"; }
succeeds synth shape.json --out s4 --dtype f32 --shard-size 50KB --quiet && [ -s s4/model.safetensors.index.json ] || complain "shards"
[ "$(dtype s4)" = f32 ] || complain "--dtype"
echo '[[1,2,3,4,5,6,7,8],[8,7,6,5,4,3,2,1]]' >tokens.json # without a tokenizer, ready token rows will do
succeeds score s1 --calib tokens.json --out s.json --json --quiet && object model base_ppl
fails 'needs a tokenizer' score s1 --calib calib.txt --samples 2 --seq-len 16 --out none.json
succeeds convert s1 mute.gguf --quiet && succeeds score mute.gguf --calib tokens.json --out m.json --quiet
[ "$("$tool" get s.json base_ppl)" = "$("$tool" get m.json base_ppl)" ] || complain "base_ppl without a tokenizer"

echo "--- memory"
# What was read or written is given back: a model of 150 MB is written in the memory that a tiny one takes, and some buffers.
sed 's/"hidden_size":[ 0-9]*/"hidden_size":512/; s/"intermediate_size":[ 0-9]*/"intermediate_size":2048/; s/"num_attention_heads":[ 0-9]*/"num_attention_heads":8/
s/"num_key_value_heads":[ 0-9]*/"num_key_value_heads":8/; s/"head_dim":[ 0-9]*/"head_dim":64/' shape.json >large.json
memory() { # WORDS...: peak RSS in MiB of a command
    succeeds "$@" --json --quiet && echo $(($(sed 's/.*"peak_rss_bytes":\([0-9]*\).*/\1/' .log/out) >> 20))
}
succeeds synth large.json --dtype f32 --out large --quiet
[ "$(stat -c %s large/model.safetensors)" -gt 130000000 ] || complain "the large model is small"
least=$(memory convert model least --dtype f32)
for words in "prune large --drop 1 --out large.pruned" "convert large large.f16 --dtype f16" "convert large large.gguf" "convert large large.h5"; do
    most=$(memory $words)
    [ "$most" -lt $((least + 48)) ] || complain "$words: $most MiB, where $least are needed for next to nothing"
done
rm -r large large.*

echo "--- wrong words"
usage '--format tar' convert model x --format tar
usage '--dtype q8_0' convert model x --dtype q8_0
usage '--dtype f8_e4m3' convert model x.gguf --dtype f8_e4m3
usage '--dtype q4_0' convert model x.h5 --dtype q4_0
usage '--shard-size' convert model x --shard-size 5XB
usage '--dtype f8_e4m3' prune model --drop 1 --out x.gguf --dtype f8_e4m3
usage '--format' merge model --adapter adapter --out x --format tar
usage 'usage: espalier convert' convert model
usage '--out' synth shape.json
usage '--dtype' synth shape.json --out x --dtype q8_0
absent x x.gguf x.h5

echo "--- taken, damaged, full"
fails 'f16.gguf' convert model f16.gguf
fails 'f16: exists' convert model f16
mkdir taken.h5 && fails 'taken.h5' convert model taken.h5 --force
succeeds convert model again.gguf --force --dtype f32 --quiet && [ "$(dtype again.gguf)" = f32 ] || complain "--force"
fails 'nowhere.json' synth nowhere.json --out x
echo '{"model_type":"llama"}' >none.json && fails 'none.json' synth none.json --out x
for bytes in 4 90 2000 20000; do
    head -c $bytes f16.h5 >cut.h5 && fails 'cut.h5' inspect cut.h5
done
cp -r model sick && "$tool" set sick model.layers.3.mlp.up_proj.weight 5 nan || complain "tool"
for out in x x.h5; do
    fails 'layers.3.mlp.up_proj.weight' convert sick $out
done
fails 'blk.3.ffn_up.weight' convert sick x.gguf
absent x x.gguf x.h5
mkdir full
if [ "$(id -u)" = 0 ] && mount -t tmpfs -o size=60k tmpfs full 2>.log/err; then
    mounted=$work/full
    for out in full/x full/x.gguf full/x.h5; do
        fails "KiB are free" convert model $out
    done
    fails "KiB are free" synth shape.json --out full/x
    fails "KiB are free" prune model --drop 1 --out full/x.gguf
    [ -z "$(ls full)" ] || complain "left behind: $(ls full)"
    umount full && mounted=
else
    echo "full disk: not tried, mounting is not allowed here"
fi
verdict
