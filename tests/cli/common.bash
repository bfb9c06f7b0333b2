# What the scripts of this folder share: a scratch folder to work in, a tiny model, and judgement on how a command ended.
# A script sources this, calls `succeeds`, `fails` and `usage`, and ends with `verdict`.
set -u
export LC_ALL=C
: "${BUILD:?the folder of the build (tests/run sets it)}"
espalier=$BUILD/espalier
tool=$BUILD/tests/cli/test_tool
[ -x "$espalier" ] && [ -x "$tool" ] || { echo "$espalier or $tool is missing" >&2; exit 1; }
work=$(mktemp -d /tmp/espalier-cli-XXXXXX) || exit 1
mounted=
clean_up() {
    [ -n "$mounted" ] && umount "$mounted"
    rm -rf "$work"
}
trap clean_up EXIT
cd "$work" || exit 1
mkdir .log
failures=0

complain() {
    failures=$((failures + 1))
    printf 'line %s: %s\n' "${BASH_LINENO[1]}" "$*"
    sed 's/^/    stderr: /' .log/err | head -n 5
}

no_strays() {
    local strays
    strays=$(find . -name '*.part-*')
    [ -z "$strays" ] || complain "left behind: $strays"
}

# fails PART WORDS...: exit status 1, one line on stderr that begins "espalier: " and contains PART, nothing on stdout, no leftovers
fails() {
    local part=$1 status
    shift
    "$espalier" "$@" --quiet >.log/out 2>.log/err </dev/null
    status=$?
    judge 1 $status "$part" "$*"
}

# usage PART WORDS...: the same with status 2
usage() {
    local part=$1 status
    shift
    "$espalier" "$@" >.log/out 2>.log/err </dev/null
    status=$?
    judge 2 $status "$part" "$*"
}

judge() { # WANTED STATUS PART WORDS
    [ "$2" = "$1" ] || complain "$4: status $2, $1 was expected"
    [ "$(wc -l <.log/err)" = 1 ] && grep -q '^espalier: ' .log/err || complain "$4: one line \"espalier: ...\" was expected on stderr"
    grep -qF -- "$3" .log/err || complain "$4: the message should contain: $3"
    [ -s .log/out ] && complain "$4: something on stdout"
    no_strays
}

# succeeds WORDS...: status 0; standard output is left in .log/out
succeeds() {
    local status
    "$espalier" "$@" >.log/out 2>.log/err </dev/null
    status=$?
    [ $status = 0 ] || complain "$*: status $status"
    no_strays
    return $status
}

# absent PATH...: none of them exists
absent() {
    local path
    for path; do
        [ -e "$path" ] && complain "$path should not be there"
    done
}

# object KEY...: what the last command printed is one JSON object with these keys
object() {
    "$tool" object "$@" <.log/out 2>.log/err || complain "keys: $*"
}

# same A B: two files hold the same bytes
same() {
    cmp -s "$1" "$2" || complain "$1 and $2 differ"
}

make_inputs() { # model/, model.gguf, calib.txt (30 documents), rows.json (24 training rows), alpaca.json
    "$tool" hf model && "$tool" gguf model.gguf || exit 1
    local i
    for i in $(seq 30); do
        printf 'Document %d tells of %d trees, pruned in winter and tied to the wall, row by row by row.\n' "$i" $((i * 7 % 13))
    done >calib.txt
    for i in $(seq 24); do
        printf '%s{"ids":[%d,101,110,32,%d,114,101,101,115,257],"labels":[-100,-100,110,32,%d,114,101,101,115,257]}' \
            "$([ "$i" = 1 ] && echo '[' || echo ',')" $((64 + i)) $((97 + i)) $((97 + i))
    done >rows.json
    echo ']' >>rows.json
    for i in 1 2 3 4 5 6; do
        printf '%s{"instruction":"Count to %d","input":"","output":"%d and no further"}' \
            "$([ "$i" = 1 ] && echo '[' || echo ',')" "$i" "$i"
    done >alpaca.json
    echo ']' >>alpaca.json
}

# make_config FILE: an experiment on what make_inputs makes
make_config() {
    cat >"$1" <<'X'
{
  "title": "a tiny experiment", "model": "model",
  "score": {"criterion": "bi", "calib": "calib.txt", "samples": 2, "seq-len": 16},
  "prune": {"count": 1},
  "train": {"data": "alpaca.json", "steps": 1, "batch": 2, "micro-batch": 1, "val-size": 0, "rank": 2, "warmup": 0},
  "merge": {},
  "eval": {"texts": [{"name": "text", "text": "calib.txt", "format": "lines", "max-tokens": 300}],
           "speed": {"warmup": 0, "runs": 1, "out-len": 4}},
  "generate": {"prompts": ["Document"], "max-tokens": 2}
}
X
}

verdict() {
    [ $failures = 0 ] && exit 0
    echo "$failures failures"
    exit 1
}
