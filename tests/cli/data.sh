#!/usr/bin/env bash
# data/fetch against a server of our own: whole and broken downloads, wrong ones, none at all; and that what it unpacks is what the
# commands read.
root=$PWD
command -v curl >/dev/null || { echo "curl is not here"; exit 77; }
command -v unzip >/dev/null || { echo "unzip is not here"; exit 77; }
command -v python3 >/dev/null || { echo "python3 is not here, which serves and zips"; exit 77; }
. "${BASH_SOURCE%/*}/common.bash"
make_inputs

# Serves the folder `mirror`; `log` gets the path of every request and the range it asks for. Without ranges where `whole` exists.
cat >server.py <<'PY'
import http.server, os, socketserver

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        wanted = self.headers.get("Range", "bytes=0-")
        with open("log", "a") as f:
            f.write(self.path + " " + wanted + "\n")
        path = "mirror" + self.path
        if not os.path.isfile(path):
            return self.send_error(404)
        with open(path, "rb") as f:
            body = f.read()
        start = 0 if os.path.exists("whole") else int(wanted[6:].rstrip("-"))
        if start and start >= len(body):
            return self.send_error(416)
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", "bytes %d-%d/%d" % (start, len(body) - 1, len(body)))
        self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        self.wfile.write(body[start:])

    def log_message(self, *args):
        pass

with socketserver.TCPServer(("127.0.0.1", 0), Handler) as server:
    with open("port.part", "w") as f:
        f.write(str(server.server_address[1]))
    os.rename("port.part", "port")
    server.serve_forever()
PY
python3 server.py &
server=$!
trap '[ -n "$server" ] && kill "$server" 2>/dev/null; clean_up' EXIT
for _ in $(seq 200); do
    [ -e port ] && break
    sleep 0.05
done
[ -e port ] || { echo "the server did not start"; exit 1; }
ESPALIER_MIRROR=http://127.0.0.1:$(cat port)
export ESPALIER_MIRROR no_proxy=127.0.0.1

fetch() { # STATUS WORDS...: from the sources `list` into `cache`; what it said is left in .log/err
    local want=$1 status
    shift
    : >log
    "$root/data/fetch" --sources list --to cache "$@" >.log/err 2>&1 </dev/null
    status=$?
    [ $status = "$want" ] || complain "fetch $*: status $status, $want was expected: $(tail -n 3 .log/err)"
    [ -z "$(find cache -name '*.part')" ] || [ "$want" = 1 ] || complain "left behind: $(find cache -name '*.part')"
}
said() { grep -qF -- "$1" .log/err || complain "it should say: $1"; }
requests() { [ "$(wc -l <log)" = "$1" ] || complain "$1 requests were expected: $(cat log)"; }
sum() { sha256sum <"$1" | cut -d' ' -f1; }
size() { stat -c %s "$1"; }

mkdir -p mirror/example.org/a in/deep
seq 4000 >mirror/example.org/a/plain.txt
echo one >in/deep/one.txt
seq 9 >in/deep/two.txt
python3 -m zipfile -c mirror/example.org/pair.zip in/deep || exit 1
echo unknown >mirror/example.org/any.txt
plain=$(sum mirror/example.org/a/plain.txt) n_plain=$(size mirror/example.org/a/plain.txt)
pair=$(sum mirror/example.org/pair.zip) n_pair=$(size mirror/example.org/pair.zip)
row() { local IFS=$'\t'; printf '%s\n' "$*"; }
{
    echo '# a comment'
    row plain p/plain.txt "https://nowhere.example/plain.txt https://example.org/a/plain.txt" "$n_plain" "$plain" -
    row pair q/one.txt https://example.org/pair.zip "$n_pair" "$pair" deep/one.txt
    row pair q/two.txt https://example.org/pair.zip "$n_pair" "$pair" deep/two.txt
    row any any.txt https://example.org/any.txt - - -
} >list

echo "--- all of it, and nothing again"
fetch 0
requests 4 # the first home of plain.txt has it no more
same cache/p/plain.txt mirror/example.org/a/plain.txt
same cache/q/one.txt in/deep/one.txt
same cache/q/two.txt in/deep/two.txt
same cache/any.txt mirror/example.org/any.txt
said "sha256 $(sum mirror/example.org/any.txt); none is published"
absent cache/archives
(cd cache && sha256sum -c --quiet SHA256SUMS) || complain "SHA256SUMS"
fetch 0
requests 0

echo "--- what was damaged since comes again"
echo more >>cache/p/plain.txt
echo more >>cache/q/two.txt
fetch 0 plain pair
said "cache/q/two.txt.wrong"
same cache/p/plain.txt mirror/example.org/a/plain.txt
same cache/q/two.txt in/deep/two.txt

echo "--- going on after an interruption"
rm cache/p/plain.txt cache/any.txt
head -c 1000 mirror/example.org/a/plain.txt >cache/p/plain.txt.part
head -c 3 mirror/example.org/any.txt >cache/any.txt.part
fetch 0
grep -q '^/example.org/a/plain.txt bytes=1000-$' log || complain "it should go on at byte 1000: $(cat log)"
grep -q '^/example.org/any.txt bytes=3-$' log || complain "it should go on at byte 3: $(cat log)"
same cache/p/plain.txt mirror/example.org/a/plain.txt
same cache/any.txt mirror/example.org/any.txt
rm cache/p/plain.txt cache/any.txt # whole, but not yet under its name; and a server that does not resume
cp mirror/example.org/a/plain.txt cache/p/plain.txt.part
cp mirror/example.org/any.txt cache/any.txt.part
fetch 0
grep -q plain log && complain "nothing was missing of it: $(cat log)"
same cache/any.txt mirror/example.org/any.txt
rm cache/any.txt && echo "unknown, and more than there is" >cache/any.txt.part
fetch 0
same cache/any.txt mirror/example.org/any.txt
rm cache/p/plain.txt && head -c 1000 mirror/example.org/a/plain.txt >cache/p/plain.txt.part
touch whole
fetch 0
rm whole
same cache/p/plain.txt mirror/example.org/a/plain.txt

echo "--- wrong bytes"
rm cache/p/plain.txt cache/q/one.txt
sed 's/7/8/' mirror/example.org/a/plain.txt >changed && cp changed mirror/example.org/a/plain.txt
printf x >>mirror/example.org/pair.zip
fetch 1
said "cache/p/plain.txt: sha256 $plain was expected, $(sum changed) found in $n_plain bytes"
said "cache/archives/pair.zip: sha256 $pair was expected, $(sum mirror/example.org/pair.zip) found"
said "cache: 2 of 4 files are missing"
absent cache/p/plain.txt cache/p/plain.txt.part cache/q/one.txt cache/archives/pair.zip cache/archives/pair.zip.part

echo "--- no server; a file brought by hand"
kill "$server" && wait "$server" 2>/dev/null
server=
fetch 1 plain
said "cache/p/plain.txt is missing. Put what is at https://nowhere.example/plain.txt there under that name (0.0 MB, sha256 $plain)"
cp changed cache/p/plain.txt # not the right one
fetch 1 plain
said "sha256 $plain was expected, $(sum changed) found; it is cache/p/plain.txt.wrong now"
seq 4000 >cache/p/plain.txt
fetch 0 plain
fetch 0 any # the one that is there
"$root/data/fetch" --sources list --to cache nothing >.log/err 2>&1
[ $? = 2 ] && said 'no set is named nothing; there are plain pair any' || complain "an unknown set"

echo "--- the real sources"
# every file of data/sources.tsv made of our own rows, packed as its archive has it
while IFS=$'\t' read -r name path urls bytes sum member; do
    [[ -z $name || $name == \#* ]] && continue
    [[ $urls == https://* && $bytes =~ ^([0-9]+|-)$ && $sum =~ ^([0-9a-f]{64}|-)$ ]] || complain "data/sources.tsv: $name $path"
    case $path in
    wikitext2/* | ptb/*) from=calib.txt ;;
    alpaca/*) from=alpaca.json ;;
    *) from=$root/tests/fixtures/tasks/$path ;;
    esac
    if [ "$member" = - ]; then
        mkdir -p "cache2/${path%/*}" && cp "$from" "cache2/$path" || complain "$path"
    else
        archive=${urls##*/}
        mkdir -p "packed/$archive/$(dirname "$member")" && cp "$from" "packed/$archive/$member" || complain "$path"
    fi
done <"$root/data/sources.tsv"
mkdir -p cache2/archives
for archive in packed/*; do
    python3 -m zipfile -c "cache2/archives/${archive#*/}" "$archive"/*
done
while IFS=$'\t' read -r name path urls bytes sum member; do
    [[ -z $name || $name == \#* ]] && continue
    file=cache2/$path
    [ "$member" = - ] || file=cache2/archives/${urls##*/}
    row "$name" "$path" "$urls" "$(size "$file")" "$(sum "$file")" "$member"
done <"$root/data/sources.tsv" >list2
"$root/data/fetch" --sources list2 --to cache2 >.log/err 2>&1 || complain "the real sources"
succeeds eval zeroshot model --data cache2 --json --quiet \
    --tasks boolq,piqa,hellaswag,winogrande,arc_easy,arc_challenge,openbookqa,lambada
succeeds eval ppl model --text cache2/wikitext2/wiki.test.raw --rows wikitext --seq-len 32 --quiet
succeeds eval ppl model --text cache2/ptb/ptb.valid.txt --rows ptb --seq-len 32 --quiet
succeeds score model --calib cache2/wikitext2/wiki.train.raw --samples 2 --seq-len 16 --out s.json --quiet
succeeds train model --data cache2/alpaca/alpaca_data_cleaned.json --steps 1 --batch 1 --micro-batch 1 --val-size 0 --out t --quiet
verdict
