#!/usr/bin/env bash
# What a client sends slowly, without end, or in a form that is not known, costs the others nothing and gets an answer.
. "${BASH_SOURCE%/*}/common.bash"
command -v curl >/dev/null || { echo "curl is not here"; exit 77; }
make_inputs
"$espalier" serve model --port 0 --chat-template chatml --cors https://page.example --max-body 1000 --max-connections 4 2>.log/server >/dev/null </dev/null &
server=$!
trap 'kill -9 $server 2>/dev/null; clean_up' EXIT
for _ in $(seq 200); do
    port=$(sed -n 's|.*http://127\.0\.0\.1:\([0-9]*\)/.*|\1|p' .log/server)
    [ -n "$port" ] && break
    sleep 0.05
done
first_line() { # WANTED: the request on standard input
    local line=
    exec 7<>"/dev/tcp/127.0.0.1/$port"
    cat >&7
    IFS= read -r -t 8 line <&7
    exec 7>&- 7<&-
    [[ $line == *"$1"* ]] || complain "$1 was expected, came: $line"
}
chunked=$'POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: '

echo "--- a body that is too long, in chunks, and one without end"
first_line ' 413 ' <<<"${chunked}chunked"$'\r\n\r\n7d0\r\n'"$(printf '%2000s' '')"$'\r\n0\r\n\r\n'
began=$SECONDS
got=$(curl -sS -m 20 -o .log/out -w '%{http_code}' -H 'Transfer-Encoding: chunked' -T /dev/zero -X POST "http://127.0.0.1:$port/v1/completions" 2>.log/err)
[ "$got" = 413 ] && grep -q body_too_large .log/out || complain "a body without end: status $got"
[ $((SECONDS - began)) -le 6 ] || complain "a body without end was read for $((SECONDS - began)) s"

echo "--- other codings, and a preflight of a foreign host"
for coding in 'gzip, chunked' identity gzip; do
    first_line ' 501 ' <<<"$chunked$coding"$'\r\n\r\n0\r\n\r\n'
    first_line ' 501 ' <<<$'GET /health HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: '"$coding"$'\r\n\r\n'
done
first_line ' 204 ' <<<$'OPTIONS /v1/completions HTTP/1.1\r\nHost: localhost\r\nOrigin: https://page.example\r\n\r\n'
first_line ' 403 ' <<<$'OPTIONS /v1/completions HTTP/1.1\r\nHost: evil.example\r\nOrigin: https://page.example\r\n\r\n'
first_line ' 403 ' <<<$'GET /health HTTP/1.1\r\nHost: :80\r\n\r\n'

echo "--- heads that come a byte at a time do not shut others out"
for fd in 10 11 12 13; do
    eval "exec $fd<>/dev/tcp/127.0.0.1/$port"
done
(trap '' PIPE; for _ in $(seq 30); do
    for fd in 10 11 12 13; do printf G >&$fd; done 2>/dev/null
    sleep 0.5
done) &
drip=$!
sleep 11
got=$(curl -sS -m 5 -o .log/out -w '%{http_code}' "http://127.0.0.1:$port/health" 2>.log/err)
[ "$got" = 200 ] || complain "beside slow heads: status $got"
kill $drip 2>/dev/null
kill -TERM $server && wait $server || complain "the server ended with status $?"

echo "--- on ::1, where there is one"
"$espalier" serve model --host ::1 --port 0 --chat-template chatml 2>.log/server >/dev/null </dev/null &
server=$!
for _ in $(seq 40); do
    port=$(sed -n 's|.*http://\[::1\]:\([0-9]*\)/.*|\1|p' .log/server)
    [ -n "$port" ] && break
    kill -0 $server 2>/dev/null || verdict
    sleep 0.05
done
for host in '[::1]' "[::1]:$port" '[0:0:0:0:0:0:0:1]' localhost; do
    got=$(curl -gsS -m 5 -o .log/out -w '%{http_code}' -H "Host: $host" "http://[::1]:$port/health" 2>.log/err)
    [ "$got" = 200 ] || complain "Host: $host: status $got"
done
for host in ":$port" evil.example '[::2]'; do
    got=$(curl -gsS -m 5 -o .log/out -w '%{http_code}' -H "Host: $host" "http://[::1]:$port/health" 2>.log/err)
    [ "$got" = 403 ] || complain "Host: $host: status $got"
done
verdict
