#!/usr/bin/env bash
# A server is alone on its port, the user's alone on the loopback address, ends what does not end, and outlives a model file that is cut.
. "${BASH_SOURCE%/*}/common.bash"
command -v curl >/dev/null || { echo "curl is not here"; exit 77; }
make_inputs
server= port=
start() { # LOG OPTIONS...
    local log=$1
    shift
    "$espalier" serve "$@" 2>"$log" >/dev/null </dev/null &
    server=$!
    for _ in $(seq 200); do
        port=$(sed -n 's|.*http://127\.0\.0\.1:\([0-9]*\)/.*|\1|p' "$log")
        [ -n "$port" ] && return
        sleep 0.05
    done
    complain "the server did not start: $(cat "$log")"
    exit 1
}
trap '[ -n "$server" ] && kill -9 "$server" 2>/dev/null; clean_up' EXIT
ask() { # STATUS PATH [CURL OPTIONS...]
    local want=$1 path=$2 got
    shift 2
    got=$(curl -sS -m 20 -D .log/head -o .log/out -w '%{http_code}' "http://127.0.0.1:$port$path" "$@" 2>.log/err)
    [ "$got" = "$want" ] || complain "$path $*: status $got, $want was expected: $(head -c 200 .log/out)"
}
raw() { # WANTED: the request on standard input, as it is; the first line of the answer
    local line
    exec 7<>"/dev/tcp/127.0.0.1/$port"
    cat >&7
    IFS= read -r -t 10 line <&7
    exec 7>&- 7<&-
    [[ $line == *"$1"* ]] || complain "$1 was expected, came: $line"
}

echo "--- the port"
start .log/one model --port 0 --chat-template chatml
mkdir .log/second
"$espalier" serve model --port "$port" --chat-template chatml >.log/out 2>.log/err </dev/null
status=$?
[ $status = 1 ] && grep -q "port $port of 127.0.0.1 is in use" .log/err && [ "$(wc -l <.log/err)" = 1 ] || complain "a second server: status $status"
usage '--port 99999' serve model --port 99999

echo "--- who may ask"
ask 200 /health
for host in localhost "localhost:$port" 127.0.0.1 "127.9.9.9:$port" '[::1]:80' LOCALHOST; do
    ask 200 /health -H "Host: $host"
done
for host in evil.example "evil.example:$port" 127.0.0.1.evil.example localhost.evil.example 10.0.0.1 '[::2]' '[::1].evil' 'localhost:80.evil'; do
    ask 403 /v1/models -H "Host: $host"
done
raw ' 400 ' <<<$'GET /health HTTP/1.1\r\n\r\n'
raw ' 400 ' <<<$'GET /health HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n'
raw ' 200 ' <<<$'GET /health HTTP/1.0\r\n\r\n'
raw ' 400 ' <<<$'POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}'
raw ' 400 ' <<<$'POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n'

echo "--- a stop is not held off by half a request"
exec 8<>"/dev/tcp/127.0.0.1/$port"
printf 'POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{' >&8
sleep 0.3
began=$SECONDS
kill -TERM "$server" && wait "$server"
status=$?
exec 8>&- 8<&-
[ $status = 0 ] && [ $((SECONDS - began)) -le 5 ] || complain "stopped with $status after $((SECONDS - began)) s"

echo "--- the same port again, pages of an allowed site, a body without end, keys"
printf '\n  \nsecret \t\r\n' >keys
start .log/two model --port "$port" --chat-template chatml --cors https://page.example --max-body 1000 --api-key-file keys
ask 401 /v1/models
ask 401 /v1/models -H 'Authorization: Bearer '
ask 200 /v1/models -H 'Authorization: Bearer secret'
ask 204 /v1/chat/completions -X OPTIONS -H 'Origin: https://page.example' -H 'Access-Control-Request-Method: POST' \
    -H 'Access-Control-Request-Headers: authorization,x-stainless-os'
grep -qi '^access-control-allow-headers: authorization,x-stainless-os' .log/head || complain "headers that were asked for: $(cat .log/head)"
began=$SECONDS
curl -sS -m 20 -H 'Authorization: Bearer secret' -H 'Transfer-Encoding: chunked' -T /dev/zero "http://127.0.0.1:$port/v1/completions" >.log/out 2>.log/err
[ $((SECONDS - began)) -le 10 ] || complain "a body without end was read for $((SECONDS - began)) s"
printf '\n \n' >keys
fails 'keys: no key in it' serve model --port 0 --chat-template chatml --api-key-file keys
kill -TERM "$server" && wait "$server"

echo "--- a model file that is cut"
cp -r model whole
start .log/three model --against whole --port 0 --chat-template chatml
truncate -s 4096 model/model.safetensors
body='{"model":"%s","prompt":"a tree","max_tokens":4}'
ask 500 /v1/completions -H 'Content-Type: application/json' -d "$(printf "$body" model)"
grep -q 'became shorter while it was read' .log/out || complain "what is said of it: $(cat .log/out)"
ask 500 /v1/completions -H 'Content-Type: application/json' -d "$(printf "$body" model)"
ask 200 /v1/completions -H 'Content-Type: application/json' -d "$(printf "$body" whole)"
kill -TERM "$server" && wait "$server" || complain "the server ended with status $?"
server=
verdict
