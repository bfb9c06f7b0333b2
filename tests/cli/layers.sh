#!/usr/bin/env bash
# The rules of the house that a compiler does not check: includes go down only; prune, train and eval do not know each other;
# nothing outside cli/ prints or ends the process. Offenders are printed as file:line.
# usage: layers.sh [ROOT]     ROOT: the sources to look at (default: those this script lies in)
set -u
cd "${1:-$(dirname "$0")/../..}" || exit 1
bad=0

# What the files of a room may include, as folder prefixes (core/io/ may also see the dtype table).
allowed() {
    case $1 in
    core/base) echo core/base ;;
    core/kernel) echo core/base core/kernel ;;
    core/io) echo core/base core/io core/kernel/dtype.h ;;
    core/nn) echo core/base core/kernel core/io core/nn ;;
    core/model) echo core ;;
    data) echo core data ;;
    prune) echo core data prune ;;
    train) echo core data train ;;
    eval | eval/serve) echo core data eval ;;
    cli) echo core data prune train eval cli ;;
    esac
}

# A source with comments and the insides of strings and character constants blanked; line breaks stay.
bare() {
    awk '{
        out = ""; n = length($0)
        for (i = 1; i <= n; i++) {
            c = substr($0, i, 1); two = substr($0, i, 2)
            if (block) { if (two == "*/") { block = 0; i++ } }
            else if (quote) { if (c == "\\") i++; else if (c == quote) { quote = ""; out = out c } }
            else if (two == "/*") { block = 1; i++ }
            else if (two == "//") break
            else { if (c == "\"" || c == "\047") quote = c; out = out c }
        }
        quote = ""; print out
    }' "$1"
}

check_includes() { # FILE ROOM
    local line number target prefix ok
    while IFS=: read -r number line; do
        target=$(sed -n 's/^[[:space:]]*#[[:space:]]*include[[:space:]]*"\([^"]*\)".*/\1/p' <<<"$line")
        ok=no
        for prefix in $(allowed "$2"); do
            [[ $target == "$prefix" || $target == "$prefix"/* ]] && ok=yes
        done
        [ $ok = yes ] || { echo "$1:$number: $2 must not include $target"; bad=1; }
    done < <(grep -n '^[[:space:]]*#[[:space:]]*include[[:space:]]*"' "$1")
}

speech='(^|[^[:alnum:]_>.])(v?printf|puts|putchar|perror|_?exit|_Exit|quick_exit|abort)[[:space:]]*\(|(^|[^[:alnum:]_])(stdout|stderr)([^[:alnum:]_]|$)'
check_silence() { # FILE
    local hits
    hits=$(bare "$1" | grep -nE "$speech") && { sed "s|^|$1:|; s|\$|    <- prints or ends the process|" <<<"$hits"; bad=1; }
}

files=0
for file in core/*/*.[ch] core/*/*.inc {data,prune,train,eval,eval/serve,cli}/*.[ch] cli/*.inc; do
    [ -e "$file" ] || continue
    files=$((files + 1))
    room=${file%/*}
    [ -n "$(allowed "$room")" ] || { echo "$file:1: $room is no room of the house"; bad=1; }
    check_includes "$file" "$room"
    [ "$room" = cli ] || check_silence "$file"
done
echo "$files files looked at"
[ $files -gt 0 ] && exit $bad
