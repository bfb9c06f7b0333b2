#!/usr/bin/env bash
# The program and its results say which commit they are from: two builds of other code can be told apart.
. "${BASH_SOURCE%/*}/common.bash"
make_inputs
succeeds --version
commit=$(sed -n 's/^espalier [0-9.]* (commit \(.*\))$/\1/p' .log/out)
[ -n "$commit" ] || complain "--version names no commit: $(cat .log/out)"
[ "$commit" = "$(cat "$BUILD/commit" 2>/dev/null)" ] || complain "the build's commit is another: $(cat "$BUILD/commit")"
succeeds generate model --prompt a --max-tokens 2 --json --quiet
grep -qF "\"commit\":\"$commit\"" .log/out || complain "a result without the commit"
succeeds score model --calib calib.txt --samples 2 --seq-len 8 --criterion bi --out s.json --quiet
[ "$("$tool" get s.json commit)" = "\"$commit\"" ] || [ "$("$tool" get s.json commit)" = "$commit" ] || complain "scores without the commit"
verdict
