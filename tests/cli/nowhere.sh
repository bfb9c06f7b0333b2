#!/usr/bin/env bash
# A training that goes nowhere says so, in a line and in its result; one that gets on says nothing.
. "${BASH_SOURCE%/*}/common.bash"
make_inputs
train=(train model --rows rows.json --steps 12 --batch 4 --micro-batch 2 --val-size 0 --rank 2 --warmup 0 --threads 1 --json)
"$espalier" "${train[@]}" --lr 1e-4 --out calm >.log/out 2>.log/err || complain "calm training failed"
grep -q warning .log/out .log/err && complain "a calm training warned"
"$espalier" "${train[@]}" --lr 1e4 --clip 0 --out wild >.log/out 2>.log/err || complain "wild training failed"
grep -q 'warning: step .* gradient is zero' .log/err || complain "no warning: $(tail -n 2 wild/train.jsonl)"
grep -q '"warnings"' .log/out || complain "no warnings in the result"
verdict
