#!/usr/bin/env bash
# The commands on a tiny model, and the JSON they promise.
. "${BASH_SOURCE%/*}/common.bash"
make_inputs
facts=(program_version command arguments model model_hash dtype compute isa threads seed wall_seconds peak_rss_bytes)

echo "--- inspect"
for model in model model.gguf; do
    succeeds inspect $model --json
    object format architecture n_blocks dim n_heads n_kv_heads head_dim ffn_dim vocab_size n_params params_per_block dtype \
        tied_embeddings tokenizer context_length
    grep -q '"n_blocks":8,.*"dim":16,' .log/out || complain "sizes of $model"
done
succeeds inspect model.gguf --json && grep -q '"format":"gguf"' .log/out || complain "format"
succeeds inspect model --drop 0,7 --json && grep -q '"n_blocks":6,' .log/out || complain "--drop"
succeeds inspect model && grep -q 'blocks *8 ' .log/out || complain "inspect's table"

echo "--- tokenize"
printf 'Hello,  world\n\n\xc3\xa9t\xc3\xa9 1234 <s>the</s>\n\ttabs and \xff bytes\n' >lines.txt
succeeds tokenize model --file lines.txt && cp .log/out ids
succeeds tokenize model.gguf --file lines.txt
grep -q '^\[72,101,108,108,111,44,32,32,119' ids || complain "ids are the bytes: $(head -n 1 ids)"
grep -q ',256,116,104,101,257\]$' ids && grep -q ',256,259,257\]$' .log/out || complain "special tokens in the text"
[ "$(wc -l <ids)" = 4 ] && [ "$(sed -n 2p ids)" = '[]' ] || complain "a line of ids for each line"
succeeds tokenize model --reverse --file ids
[ "$(sed -n 1p .log/out)" = '"Hello,  world"' ] && [ "$(sed -n 2p .log/out)" = '""' ] || complain "the way back"
printf '"a\\nb"\n' >strings.jsonl
succeeds tokenize model --file strings.jsonl && [ "$(cat .log/out)" = '[97,10,98]' ] || complain "jsonl"
succeeds tokenize model --bos hi && [ "$(cat .log/out)" = '[256,104,105]' ] || complain "--bos"
fails 'id 300' tokenize model --reverse '[300]'
fails '--reverse' tokenize model --reverse 'x'

echo "--- score"
score=(score model --calib calib.txt --samples 3 --seq-len 16 --quiet)
succeeds "${score[@]}" --out s.json --copy s.h5 --json
object "${facts[@]}" base_ppl out
tr -d '\n' <s.json >.log/out && echo >>.log/out
object "${facts[@]}" criterion base_ppl blocks order protected_order calibration
[ -s s.h5 ] || complain "--copy"
succeeds "${score[@]}" --threads 1 --out s1.json
for key in blocks order base_ppl calibration model_hash; do
    [ "$("$tool" get s.json $key)" = "$("$tool" get s1.json $key)" ] || complain "$key: 1 thread and many"
done
[ "$("$tool" get s.json order)" != '[0,1,2,3,4,5,6,7]' ] || complain "an order by chance?"
"$tool" get s.json calibration documents | grep -qE '^\[[0-9]+,[0-9]+,[0-9]+\]$' || complain "documents"

echo "--- prune"
succeeds prune model --scores s.json --count 2 --out p --json --quiet && object "${facts[@]}" dropped params_after
succeeds prune model --scores s.h5 --count 2 --out p5 --json --quiet && same p/model.safetensors p5/model.safetensors
tr -d '\n' <p/plan.json >.log/out && echo >>.log/out
object kept dropped map criterion scores_sha256 params_before params_after
[ "$("$tool" get p/plan.json dropped)" = "$("$tool" get s.json protected_order)" ] || complain "what is dropped"
[ "$("$tool" get p/plan.json scores_sha256)" = "$(sha256sum <s.json | cut -d' ' -f1)" ] || complain "scores_sha256"
[ "$("$tool" get p/plan.json kept)" = '[0,1,2,3,6,7]' ] && [ "$("$tool" get p/plan.json map 6)" = 4 ] || complain "kept and map"
succeeds inspect p --json && grep -q "\"n_params\":$("$tool" get p/plan.json params_after)," .log/out || complain "params_after"
succeeds inspect model --json && grep -q "\"n_params\":$("$tool" get p/plan.json params_before)," .log/out || complain "params_before"
succeeds prune model --drop 5,2 --out d --quiet && [ "$("$tool" get d/plan.json dropped)" = '[5,2]' ] || complain "--drop"
succeeds prune model.gguf --drop 5,2 --out g --quiet && same d/model.safetensors g/model.safetensors

echo "--- eval"
ppl() { # WORDS...: perplexity by eval ppl
    succeeds eval ppl "$@" --text calib.txt --seq-len 32 --json --quiet && object ppl nll tokens_scored windows protocol &&
        sed 's/.*"ppl":\([^,]*\),.*/\1/' .log/out
}
[ "$(ppl model --drop 2,5)" = "$(ppl d)" ] || complain "a pruned model is the model without those blocks"
[ "$(ppl model)" != "$(ppl d)" ] || complain "pruning changes nothing?"
llamacpp=(eval ppl model --protocol llamacpp-512 --seq-len 32 --quiet) # a token a byte: exactly the two windows that it needs
printf '%61s<s>\n' text >two.txt
succeeds "${llamacpp[@]}" --text two.txt --json && object "${facts[@]}" ppl nll tokens_scored windows protocol bos text text_sha256
grep -q '"tokens_scored":30,"windows":2,"protocol":"llamacpp-32","bos":"none"' .log/out || complain "llamacpp-32: $(cat .log/out)"
printf '%60s<s>\n' text >short.txt # the line break at the end does not count
fails 'short.txt: the text has 63 tokens, llamacpp-32 needs 64 (two windows)' "${llamacpp[@]}" --text short.txt
cp -r model adds && printf '{"add_bos_token":true,"bos_token":"<s>"}' >adds/tokenizer_config.json
succeeds "${llamacpp[@]/model/adds}" --text short.txt --json
grep -q '"windows":2,.*"bos":"in place of every window.s first token"' .log/out || complain "add_bos_token: $(cat .log/out)"
succeeds eval speed model --out-len 8 --runs 2 --warmup 1 --json --quiet
speed=(batch prefill_tok_s decode_tok_s latency_s latency_std throughput_tok_s peak_rss_bytes bytes_per_token)
object "${facts[@]}" "${speed[@]}" model_bytes first_token_s in_len out_len runs batches
[ "$(sed 's/.*"model_bytes":\([0-9]*\).*/\1/' .log/out)" = "$(stat -c %s model/model.safetensors)" ] || complain "model_bytes"
succeeds eval speed model --batch 1,16,2 --in-len 70 --out-len 8 --runs 2 --warmup 0 --json --quiet && object "${speed[@]}"
"$tool" get .log/out batches >batches && [ "$(grep -o '"batch":[0-9]*' batches | tr '\n' ' ')" = '"batch":1 "batch":16 "batch":2 ' ] || complain "batches"
succeeds eval speed model.gguf --batch 3 --out-len 8 --runs 1 --quiet && [ "$(tail -n 1 .log/out | awk '{ print $1 }')" = 3 ] || complain "speed's table"
succeeds eval ppl model --text calib.txt --seq-len 32 --quiet && grep -q perplexity .log/out || complain "without --json"

echo "--- train, merge"
train=(train model --data alpaca.json --epochs 2 --batch 2 --micro-batch 1 --val-size 2 --rank 2 --warmup 1 --eval-every 2 --lr 1e-2 --quiet)
succeeds "${train[@]}" --out t --json && object "${facts[@]}" steps rows tokens trainable_params last_loss eval_loss
for file in adapter_config.json adapter_model.safetensors train.jsonl train.h5 best/adapter_model.safetensors; do
    [ -s t/$file ] || complain "t/$file"
done
grep '"loss"' t/train.jsonl | while read -r line; do
    echo "$line" | "$tool" object step loss micro_losses grad_norm lr tokens_per_s || echo bad
done | grep -q bad && complain "train.jsonl"
[ "$(grep -c '"loss"' t/train.jsonl)" = 4 ] && grep -q '"eval_loss"' t/train.jsonl || complain "lines of train.jsonl"
succeeds "${train[@]}" --out t1 --threads 1 && same t/adapter_model.safetensors t1/adapter_model.safetensors
succeeds merge model --adapter t --out merged --json --quiet && object "${facts[@]}" out
[ "$(ppl model --adapter t | cut -c1-8)" = "$(ppl merged | cut -c1-8)" ] || complain "merged and applied: $(ppl model --adapter t) $(ppl merged)"

echo "--- generate"
succeeds generate model --prompt 'the tree' --max-tokens 5 --ignore-eos --json --quiet && object prompt_ids ids text
grep -q '"prompt_ids":\[116,104,101,32,116,114,101,101\]' .log/out || complain "prompt_ids"
grep -qE '"ids":\[[0-9]+(,[0-9]+){4}\]' .log/out || complain "five ids"
draw() { succeeds generate model --prompt a --max-tokens 12 --temperature 1 --seed "$1" --json --quiet && sed 's/.*"ids":\(\[[0-9,]*\]\),"text.*/\1/' .log/out; }
[ "$(draw 1)" = "$(draw 1)" ] || complain "the same seed, another text"
[ "$(draw 1)" != "$(draw 2)" ] || complain "another seed, the same text"
succeeds generate model --prompt 'a tree' --max-tokens 4 --quiet && grep -q '^a tree' .log/out || complain "the prompt is shown"

ids_of() { sed 's/.*"ids":\(\[[0-9,]*\]\),"text.*/\1/' .log/out; }
succeeds generate model --prompt 'the tree' --max-tokens 20 --ignore-eos --json --quiet && plain=$(ids_of)
succeeds generate model --prompt 'the tree' --max-tokens 20 --ignore-eos --json --quiet --draft-drop 2,5 --draft-tokens 3 && object draft
[ "$(ids_of)" = "$plain" ] || complain "a draft changed the text: $plain, $(ids_of)"

echo "--- odd numbers"
cp -r model loud && "$tool" set loud model.norm.weight all 3e4 || complain "tool" # losses beyond the range of exp
fails 'loud' score loud --calib calib.txt --out loud.json --samples 2 --seq-len 16
grep -q 'memory' .log/err && complain "that is no lack of memory"
fails 'calib.txt' eval ppl loud --text calib.txt --seq-len 32 --json
absent loud.json
odd=$'odd\xffname' && cp -r model "$odd" && "$espalier" score "$odd" --calib calib.txt --samples 2 --seq-len 16 --out odd.json --json --quiet >.log/out 2>.log/err
if [ $? = 0 ]; then object model base_ppl; else grep -q '^espalier: ' .log/err || complain "a name that is not UTF-8"; fi
verdict
