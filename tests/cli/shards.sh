#!/usr/bin/env bash
# A shard that is missing stops a model only when a weight is in it, and the message says which and where.
. "${BASH_SOURCE%/*}/common.bash"
make_inputs
succeeds convert model parts --shard-size 20000 --quiet
index=parts/model.safetensors.index.json
[ -e $index ] || complain "shards of a small model"
cp -r parts more && sed -i 's/"weight_map": *{/&"vision.weight":"model-vision.safetensors",/' more/model.safetensors.index.json
same <("$espalier" generate parts --prompt a --max-tokens 4 --quiet) <("$espalier" generate more --prompt a --max-tokens 4 --quiet)
succeeds inspect more
file=$("$tool" get $index weight_map model.layers.3.mlp.up_proj.weight)
rm "parts/$file"
fails "$file, which is missing" inspect parts
fails 'the index has tensor model.' inspect parts
verdict
