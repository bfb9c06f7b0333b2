#!/usr/bin/env bash
# The benchmark of a shape, on a tiny one: every stage, its table and its file; nothing is measured twice, nothing large is left.
. "${BASH_SOURCE%/*}/common.bash"
cat >small.json <<'END'
{"architectures":["LlamaForCausalLM"],"model_type":"llama","hidden_act":"silu","hidden_size":32,"intermediate_size":64,
 "num_hidden_layers":5,"num_attention_heads":2,"num_key_value_heads":1,"vocab_size":300,"max_position_embeddings":256,
 "rms_norm_eps":1e-05,"tie_word_embeddings":false,"torch_dtype":"float16"}
END
sed 's/"hidden_size":32/"hidden_size":65536/; s/"intermediate_size":64/"intermediate_size":131072/; s/"num_hidden_layers":5/"num_hidden_layers":999/; s/"num_attention_heads":2/"num_attention_heads":1024/' \
    small.json >huge.json
records() { for name; do [ -s "b/small/stages/$name.json" ] || complain "no record of $name"; done; }

echo "--- all of it, in the second shape: there is no disk for the first"
succeeds bench --shape huge.json,small.json --out b && cp .log/out table
grep -q 'huge: needs .* of disk' .log/err || complain "it should say why the first shape is left out"
records turn-{whole,dropped}-{1,2,3} synth prune scoring taylor first-token decode-{f16,q8_0,q4_0} speed-{whole,pruned}-{1,4,16}
[ "$(grep -c '^| .* | .* | \(<=\|>=\|the disk\)' table)" = 11 ] || complain "figures of the table: $(cat table)"
[ "$(grep -c '^| 0.0[0-9]M | 0.00 GB | [146]' table)" = 6 ] || complain "speeds of the table: $(cat table)"
tr -d '\n' <b/small/bench.json >.log/out && echo >>.log/out && object shape machine figures speed stages reused_stages
[ "$(ls b/small)" = "$(printf '%s\n' bench.json f16 ids.json stages taylor.json)" ] || complain "left there: $(ls b/small)"
[ -s b/small/f16/model.safetensors ] || complain "the checkpoint stays"
for k in $(seq 0 10); do
    value=$("$tool" get b/small/bench.json figures "$k" value)
    [ "$k" = 3 ] || [[ $value =~ ^[0-9.e+-]+$ ]] || complain "figure $k: $value"
done
all=20 && [ ! -e b/small/stages/scoring-bf16.json ] || all=21 # where the processor has instructions for bf16
[ "$("$tool" get b/small/stages/prune.json result dropped)" = '[0]' ] || complain "what is pruned"

echo "--- again"
cp b/small/f16/model.safetensors checkpoint
succeeds bench --shape small.json --out b --json --quiet && grep -q "\"stages\":$all,\"reused_stages\":$all" .log/out || complain "all is on record: $(cat .log/out)"
mkdir b/small/f16-pruned.part-1 && touch b/small/f16-pruned.part-1/x b/small/{q4_0.gguf.part-1,copy-rate-from,copy-rate-to.part-1} # by an interruption
rm b/small/stages/speed-pruned-4.json b/small/stages/decode-q4_0.json # needs the pruned and the quantised model again
succeeds bench --shape small.json --out b --json --quiet && grep -q "\"stages\":$all,\"reused_stages\":$((all - 3))" .log/out || complain "some again: $(tail -c 100 .log/out)"
same b/small/f16/model.safetensors checkpoint
absent b/small/f16-pruned{,.part-1} b/small/q8_0.gguf b/small/q4_0.gguf{,.part-1} b/small/copy-rate-{from,to.part-1}
rm -r b/small/f16 && succeeds bench --shape small.json --out b --json --quiet && same b/small/f16/model.safetensors checkpoint

echo "--- what does not work"
fails 'huge: needs' bench --shape huge.json --out b2
fails 'nowhere.json' bench --shape nowhere.json --out b2
echo '{"model_type":"llama"}' >none.json && fails 'none.json' bench --shape none.json --out b2
touch file && fails 'file' bench --shape small.json --out file
succeeds synth small.json --out m --quiet && succeeds bench m --only scoring --json --quiet && object figures isa
grep -q '"what":"scoring' .log/out && ! grep -q decode .log/out || complain "--only"
verdict
