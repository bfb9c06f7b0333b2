#!/usr/bin/env bash
# The server over loopback, with curl: answers, streams, errors, limits, keys, and a stop that waits for what runs.
. "${BASH_SOURCE%/*}/common.bash"
command -v curl >/dev/null || { echo "curl is not here"; exit 77; }
make_inputs

server= port=
start() { # OPTIONS...
    : >.log/server
    "$espalier" serve "${model:-model}" --port 0 "$@" 2>.log/server >/dev/null </dev/null &
    server=$!
    for _ in $(seq 200); do
        port=$(sed -n 's|.*http://127\.0\.0\.1:\([0-9]*\)/.*|\1|p' .log/server)
        [ -n "$port" ] && return
        sleep 0.05
    done
    cat .log/server
    echo "the server did not start"
    exit 1
}
stop() { # ends it, and looks at its exit status
    kill -TERM "$server" && wait "$server"
    local status=$?
    [ $status = 0 ] || complain "the server ended with status $status"
    grep -qE 'Sanitizer|runtime error' .log/server && complain "$(cat .log/server)"
    server=
}
trap '[ -n "$server" ] && kill "$server" 2>/dev/null; clean_up' EXIT

ask() { # STATUS PATH [CURL OPTIONS...]; the body is left in .log/out, the head in .log/head
    local want=$1 path=$2 got
    shift 2
    got=$(curl -sS -m 60 -D .log/head -o .log/out -w '%{http_code}' "http://127.0.0.1:$port$path" "$@" 2>.log/err)
    [ "$got" = "$want" ] || complain "$path $*: status $got, $want was expected: $(head -c 300 .log/out)"
}
post() { # STATUS PATH BODY [CURL OPTIONS...]
    local want=$1 path=$2 body=$3
    shift 3
    ask "$want" "$path" -H 'Content-Type: application/json' -d "$body" "$@"
}
as_generated() { # NAME PATH [OPTIONS...]: that model answers with the tokens of generate
    local name=$1 served told= id
    shift
    post 200 /v1/completions "{\"model\":\"$name\",\"prompt\":\"a tree\",\"max_tokens\":12,\"temperature\":0,\"logprobs\":0}"
    served=$(grep -o '\\\\x[0-9a-f][0-9a-f]' .log/out | tr -d '\\x\n') # the bytes that are no characters: most, of a model like this
    succeeds generate "$@" --prompt 'a tree' --max-tokens 12 --ignore-eos --json --quiet
    for id in $(sed 's/.*"ids":\[\([0-9,]*\)\],"text".*/\1/; s/,/ /g' .log/out); do
        [ "$id" -ge 128 ] && [ "$id" -lt 256 ] && told+=$(printf '%02x' "$id")
    done
    [ -n "$told" ] && [ "$served" = "$told" ] || complain "$*: not the tokens of generate: $served, $told"
}
has() { grep -qF -- "$1" .log/out || complain "the answer should contain $1: $(head -c 300 .log/out)"; }
lacks() { ! grep -qF -- "$1" .log/out || complain "the answer should not contain $1: $(head -c 300 .log/out)"; }

echo "--- answers"
start --variant 'cut=drop:3,4.attn' --against model.gguf --context 256 --chat-template chatml 2>/dev/null
[ -n "$port" ] || exit 1
ask 200 /health && has '"status":"ok"'
grep -q '^espalier: cut: 7 blocks, .* sharing the weights of model$' .log/server || complain "what a variant takes: $(cat .log/server)"
grep -q '^espalier: caches grow to [0-9.]* GiB: 16 slots of 256 positions each$' .log/server || complain "what the caches take"
ask 200 /v1/models && has '"id":"cut"' && has '"id":"model"' && has '"id":"model-2"'
lacks "$work"
ask 200 / && has '<!doctype html>'
grep -qi '^content-security-policy: default-src .none.' .log/head || complain "no policy for the page"
ask 200 /page.js && has 'use strict'
ask 200 /page.css
post 200 /v1/completions '{"prompt":"a tree","max_tokens":5,"temperature":0}'
has '"object":"text_completion"' && has '"usage":{"prompt_tokens":6,"completion_tokens":5,"total_tokens":11'
as_generated model model
as_generated cut model --drop 3,4.attn
as_generated model-2 model.gguf
post 200 /v1/completions '{"prompt":[97,32,116],"model":"cut","max_tokens":4,"temperature":0}' && has '"model":"cut"'
post 200 /v1/completions '{"prompt":["a","b",[99]],"max_tokens":0,"echo":true,"logprobs":2}'
has '"index":2' && has '"text":"b"' && has '"token_logprobs":[null]'
post 200 /v1/completions '{"prompt":"the tree","max_tokens":1,"echo":true,"logprobs":1,"temperature":0,"seed":1234}'
has '"text_offset":[0,1,2,3,4,5,6,7,8]' && has '"top_logprobs":[null,{'
one=$(curl -s "http://127.0.0.1:$port/v1/completions" -d '{"prompt":"a","max_tokens":9,"seed":5}' | grep -o '"text":.*"usage"')
two=$(curl -s "http://127.0.0.1:$port/v1/completions" -d '{"prompt":"a","max_tokens":9,"seed":5}' | grep -o '"text":.*"usage"')
[ -n "$one" ] && [ "$one" = "$two" ] || complain "one seed, two answers"
post 200 /v1/chat/completions '{"messages":[{"role":"user","content":"hi"}],"max_tokens":3,"logprobs":true,"top_logprobs":1}'
has '"object":"chat.completion"' && has '"role":"assistant"' && has '"bytes":[' && has '"refusal":null'
ask 200 /v1/models/cut && has '"id":"cut"' && lacks '"id":"model"'
ask 404 /v1/models/none && has model_not_found

echo "--- what clients send"
texts() { grep -o '"text":"[^"]*"' .log/out; }
drawn='"max_tokens":6,"temperature":1.5'
for seed in 7 8 9; do
    post 200 /v1/completions "{\"prompt\":\"row by row\",\"seed\":$seed,$drawn}"
    texts
done >.log/apart
post 200 /v1/completions "{\"prompt\":\"row by row\",\"seed\":7,\"n\":3,\"best_of\":3,$drawn}"
has '"index":2' && has '"usage":{"prompt_tokens":10,"completion_tokens":18,'
texts | cmp -s - .log/apart || complain "n choices are not those of seeds that follow each other: $(texts)"
[ "$(sort -u .log/apart | wc -l)" -gt 1 ] || complain "three seeds, one text"
# lm-eval's local-completions: log-likelihoods of a batch of token ids, and generating
post 200 /v1/completions '{"model":"model","prompt":[[97,32,116,114],[98,32,99]],"temperature":0,"max_tokens":1,"logprobs":1,"seed":1234,"echo":true}'
[ "$(grep -o '"token_logprobs":\[[^]]*\]' .log/out | tr -dc ',\n' | awk '{print length}' | tr '\n' ' ')" = '4 3 ' ] ||
    complain "a log-probability for each token of prompt and answer"
post 200 /v1/completions '{"prompt":[[97,32,116]],"model":"model","max_tokens":4,"temperature":0,"stop":["\n","</s>"],"seed":1234}'
# the official client's parameters, with values that ask for nothing
post 200 /v1/chat/completions '{"messages":[{"role":"developer","content":"s"},{"role":"user","content":"hi"}],"max_completion_tokens":2,"n":1,
    "presence_penalty":0,"frequency_penalty":0,"logit_bias":null,"user":"u","tools":[],"tool_choice":"none","response_format":{"type":"text"},
    "store":false,"metadata":{},"service_tier":"auto","modalities":["text"],"functions":null}'
post 200 /v1/completions '{"prompt":"a","max_tokens":5,"temperature":0,"logit_bias":{"110":100}}' && has '"text":"nnnnn"'
for penalty in '' ',"presence_penalty":2' ',"frequency_penalty":0.7'; do
    post 200 /v1/completions "{\"prompt\":\"a\",\"max_tokens\":9,\"temperature\":0,\"logit_bias\":{\"110\":90,\"111\":90}$penalty}"
    texts
done >.log/penalties
[ "$(sort -u .log/penalties | wc -l)" = 3 ] || complain "penalties that change nothing: $(cat .log/penalties)"
post 400 /v1/completions '{"prompt":"a","logit_bias":{"260":1}}' && has '"param":"logit_bias"'
post 400 /v1/completions '{"prompt":"a","n":65}' && has '"param":"n"'
post 400 /v1/completions '{"prompt":["a","b","c"],"n":22}' && has '"param":"n"'
post 400 /v1/completions '{"prompt":"a","best_of":2}' && has '"param":"best_of"'
post 400 /v1/completions '{"prompt":"a","suffix":"b"}' && has '"param":"suffix"'
chat='"messages":[{"role":"user","content":"hi"}]'
post 400 /v1/chat/completions "{$chat,\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\"}}]}" && has '"param":"tools"'
post 400 /v1/chat/completions "{$chat,\"response_format\":{\"type\":\"json_object\"}}" && has '"param":"response_format"'

echo "--- streams"
post 200 /v1/chat/completions '{"messages":[{"role":"user","content":"hi"}],"max_tokens":6,"stream":true,"stream_options":{"include_usage":true}}' -N
grep -qi '^content-type: text/event-stream' .log/head || complain "the type of a stream"
has '"object":"chat.completion.chunk"' && has '"delta":{"role":"assistant"' && has '"finish_reason":"' && has '"completion_tokens":'
[ "$(grep . .log/out | tail -n 1)" = 'data: [DONE]' ] || complain "the end of a stream"
grep . .log/out | grep -vq '^data: ' && complain "something that is no event"
[ "$(grep -c '"usage":null' .log/out)" = "$(grep -c '"choices":\[{' .log/out)" ] || complain "usage is null but in the last chunk"
grep -q '"choices":\[\],"usage":{"prompt_tokens":' .log/out || complain "a chunk that tells the usage alone"
post 200 /v1/completions '{"prompt":"row by row","max_tokens":5,"temperature":0,"stream":true,"n":2,"logprobs":0,"logit_bias":{"110":100}}' -N
lacks '"usage"'
[ "$(grep -o '"index":1,.*"finish_reason":"length"' .log/out | wc -l)" = 1 ] || complain "the end of the second choice"
for i in 0 1; do
    [ "$(grep "\"index\":$i," .log/out | grep -o '"text_offset":[^]]*' | tr -dc '0-9,\n' | paste -sd,)" = 0,1,2,3,4 ] || complain "offsets of a stream"
    [ "$(grep "\"index\":$i," .log/out | grep -o '"text":"n*"' | tr -dc 'n\n')" ] || complain "the text of choice $i"
done

echo "--- errors"
post 400 /v1/completions '{' && has '"type":"invalid_request_error"'
post 400 /v1/completions '{"prompt":"a","colour":1}' && has '"param":"colour"'
post 400 /v1/completions '{"prompt":[260]}' && has 'vocabulary'
post 400 /v1/completions '{"prompt":"a","max_tokens":300}' && has 'context_length_exceeded'
post 400 /v1/completions "{\"prompt\":\"$(printf 'x%.0s' $(seq 300))\"}" && has 'context_length_exceeded'
post 400 /v1/chat/completions '{"messages":[{"role":"user","content":5}]}' && has 'messages[0]'
post 404 /v1/completions '{"prompt":"a","model":"none"}' && has 'model_not_found'
ask 404 /v1/nothing
ask 404 /..%2f..%2fetc/passwd
ask 405 /v1/completions && grep -qi '^allow: POST' .log/head || complain "Allow"
ask 405 /v1/models -X DELETE
head -c 5000000 /dev/zero | tr '\0' ' ' >large
ask 413 /v1/completions -H 'Content-Type: application/json' -H 'Expect:' --data-binary @large
ask 413 /v1/completions -H 'Transfer-Encoding: chunked' -H 'Expect:' --data-binary @large
ask 403 /v1/models -H 'Origin: http://elsewhere.example'
ask 200 /v1/models -H "Origin: http://127.0.0.1:$port"
grep -qi '^access-control' .log/head && complain "CORS that nobody asked for"
ask 200 /metrics && has 'espalier_requests_total{route="/v1/completions",code="400"}' && has 'espalier_first_token_seconds_bucket'
stop

echo "--- two models of different shapes and formats"
succeeds prune model --drop 2,3,4 --out pruned --quiet
succeeds convert model half.gguf --dtype f16 --quiet
start --quiet --against pruned/
as_generated model model
as_generated pruned pruned
grep -q 'caches' .log/server && complain "--quiet"
stop
model=half.gguf start --against pruned/
as_generated half half.gguf
as_generated pruned pruned
grep -q '^espalier: pruned: 5 blocks, .* GiB of weights$' .log/server || complain "what the other model takes"
stop

echo "--- limits, keys, other sites"
printf '# ours\nsecret-one\nsecret-two\n' >keys
start --slots 1 --queue 1 --context 400 --api-key-file keys --cors https://page.example --max-tokens 380
ask 401 /v1/models && has invalid_api_key && grep -qi '^www-authenticate' .log/head || complain "what a 401 says"
ask 401 /metrics -H 'Authorization: Bearer secret-on'
ask 401 /v1/models -H 'Authorization: Basic secret-one'
ask 200 /v1/models -H 'Authorization: Bearer secret-two'
ask 200 /health
ask 204 /v1/completions -X OPTIONS -H 'Origin: https://page.example'
grep -qi '^access-control-allow-origin: https://page.example' .log/head || complain "CORS"
key=(-H 'Authorization: Bearer secret-one')
post 400 /v1/completions '{"prompt":["a","b"]}' "${key[@]}" -H 'X: y' # never fits a queue of one, so no 429
long='{"prompt":"a","max_tokens":380,"temperature":2,"stream":true}'
for i in 1 2 3 4 5 6; do
    curl -s -m 60 -o /dev/null -w '%{http_code}\n' "${key[@]}" "http://127.0.0.1:$port/v1/completions" -d "$long" >.log/code$i &
done
for _ in $(seq 100); do
    ask 200 /metrics "${key[@]}"
    grep -qE '^espalier_(slots_used|generated_tokens_total) [1-9]' .log/out && break
done
kill -TERM "$server" # those that run go on; the process waits for them
wait "$server"
[ $? = 0 ] || complain "a stop under load"
server=
wait
cat .log/code? | sort | uniq -c >.log/err
grep -q ' 200$' .log/err || grep -q ' 503$' .log/err || complain "what became of six requests"
grep -qvE ' (200|429|503|000)$' .log/err && complain "an odd status"

echo "--- what cannot start"
usage '--port' serve model --port 70000
usage '--host' serve model --host nowhere
usage 'slots' serve model --slots 0 --port 0
usage '--variant' serve model --variant drop:1 --port 0
usage 'chatml' serve model --chat-template none --port 0
usage '--slots' serve model --slots 1024 --context 1000000 --port 0
fails 'twice' serve model --variant x=drop:1,1 --port 0
fails 'no key' serve model --api-key-file /dev/null --port 0
verdict
