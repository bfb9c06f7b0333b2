#!/usr/bin/env bash
# The server's page in headless Chromium, driven through the DevTools protocol: asking, streaming, stopping, side by side, keyboard,
# phone width, dark mode; no complaint of the browser, nothing fetched from elsewhere.
. "${BASH_SOURCE%/*}/common.bash"
browser=$(command -v chromium || command -v chromium-browser || command -v google-chrome) || { echo "chromium is not here"; exit 77; }
make_inputs

server= chrome=
trap 'kill $server $chrome 2>/dev/null; wait 2>/dev/null; clean_up' EXIT
"$espalier" serve model --variant 'cut=drop:3,4.attn' --against model.gguf --chat-template chatml --context 4000 --max-tokens 3900 \
    --port 0 2>.log/server </dev/null &
server=$!
port=
for _ in $(seq 200); do
    port=$(sed -n 's|.*http://127\.0\.0\.1:\([0-9]*\)/.*|\1|p' .log/server)
    [ -n "$port" ] && break
    sleep 0.05
done
[ -n "$port" ] || { cat .log/server; exit 1; }

# ---- the browser: a NUL-terminated JSON message each way, through two pipes ----

mkfifo .log/to .log/from
HOME=$work "$browser" --headless --no-sandbox --disable-gpu --disable-dev-shm-usage --no-first-run --user-data-dir="$work/profile" \
    --host-resolver-rules='MAP * ~NOTFOUND, EXCLUDE 127.0.0.1' --remote-debugging-pipe about:blank 3<.log/to 4>.log/from >/dev/null 2>.log/chrome </dev/null &
chrome=$!
exec {to}>.log/to {from}<.log/from
id=0 session= answer=
: >.log/events
: >.log/err
tell() { # METHOD [PARAMS]: sends a command, leaves its answer in $answer and what comes before it in .log/events
    id=$((id + 1))
    printf '{"id":%d,%s"method":"%s","params":%s}\0' $id "${session:+\"sessionId\":\"$session\",}" "$1" "${2:-{\}}" >&"$to"
    while IFS= read -r -d '' -t 60 answer <&"$from"; do
        [[ $answer == "{\"id\":$id,"* ]] && break
        printf '%s\n' "$answer" >>.log/events
    done
    [[ $answer == "{\"id\":$id,\"result\""* ]] && return
    complain "$1: ${answer:-no answer}"
    exit 1
}
value=
js() { # EXPRESSION: leaves in $value the string that it, or its promise, becomes
    local quoted=${1//\\/\\\\}
    quoted=${quoted//\"/\\\"}
    tell Runtime.evaluate "{\"awaitPromise\":true,\"expression\":\"${quoted//$'\n'/\\n}\"}"
    [[ $answer != *exceptionDetails* ]] || { complain "$1: $answer"; exit 1; }
    value=$(sed 's/.*"type":"string","value":"\(.*\)"}}.*/\1/' <<<"$answer")
}
is() { # WHAT EXPRESSION: it must be true
    js "String(Boolean($2))"
    [ "$value" = true ] || complain "$1: $2"
}
until_true() { # SECONDS EXPRESSION
    js "new Promise((done) => { const end = Date.now() + $1 * 1000, look = () => ($2) || Date.now() > end ? done('') : setTimeout(look, 20); look(); })"
    is "in time" "$2"
    [ "$value" = true ] || exit 1
}
key() { # KEY [MODIFIERS]
    local text=
    [ "$1" = Enter ] && text=',"text":"\r"'
    tell Input.dispatchKeyEvent "{\"type\":\"keyDown\",\"key\":\"$1\",\"code\":\"$1\",\"windowsVirtualKeyCode\":$(code "$1"),\"modifiers\":${2:-0}$text}"
    tell Input.dispatchKeyEvent "{\"type\":\"keyUp\",\"key\":\"$1\",\"code\":\"$1\",\"windowsVirtualKeyCode\":$(code "$1"),\"modifiers\":${2:-0}}"
}
code() { case $1 in Enter) echo 13 ;; Escape) echo 27 ;; Tab) echo 9 ;; *) echo 32 ;; esac; }
write() { tell Input.insertText "{\"text\":\"$1\"}"; }
field() { sed "s/.*\"$1\":\"\([^\"]*\)\".*/\1/" <<<"$answer"; }

tell Target.createTarget '{"url":"about:blank"}'
tell Target.attachToTarget "{\"targetId\":\"$(field targetId)\",\"flatten\":true}"
session=$(field sessionId)
for domain in Page Runtime Log Network; do
    tell $domain.enable
done
screen() { # WIDTH HEIGHT MOBILE
    tell Emulation.setDeviceMetricsOverride "{\"width\":$1,\"height\":$2,\"deviceScaleFactor\":1,\"mobile\":$3}"
}
open_page() {
    tell Page.navigate "{\"url\":\"http://127.0.0.1:$port/\"}"
    until_true 20 "document.readyState === 'complete' && document.querySelectorAll('.column').length === 3"
}

echo "--- side by side, streaming"
screen 1280 800 false
open_page
is "three names" "[...document.querySelectorAll('.column h2')].map((e) => e.textContent).join() === 'model,cut,model-2'"
is "the prompt has the focus" "document.activeElement.id === 'prompt'"
js "window.steps = 0; new MutationObserver((list) => window.steps += list.length).observe(document.getElementById('columns'), {subtree: true, childList: true})"
js "document.getElementById('max').value = 40"
write 'What is a tree?'
key Enter
until_true 30 "document.querySelectorAll('.reply').length === 3 && !document.getElementById('send').hidden"
is "an answer in each column" "[...document.querySelectorAll('.reply')].every((e) => e.textContent && !e.matches('.bad, .waiting'))"
is "what was asked in each column" "[...document.querySelectorAll('.mine')].map((e) => e.textContent).join() === 'What is a tree?,What is a tree?,What is a tree?'"
is "it came in pieces" "window.steps > 60"
is "tokens/s under each" "[...document.querySelectorAll('.speed')].every((e) => /^[0-9.]+ tokens\\/s/.test(e.textContent))"
is "parameters and tokens under each" "[...document.querySelectorAll('footer .facts')].every((e) => /^[0-9.]+ M parameters · 40 tokens · first after/.test(e.textContent))"
is "the end of an answer that was cut" "[...document.querySelectorAll('.ended')].every((e) => e.textContent === 'cut at the limit')"
is "the same model, the same answer" "document.querySelectorAll('.reply')[0].textContent === document.querySelectorAll('.reply')[2].textContent"
is "a pruned one, another answer" "document.querySelectorAll('.reply')[0].textContent !== document.querySelectorAll('.reply')[1].textContent"
is "the focus is back" "document.activeElement.id === 'prompt' && document.activeElement.value === ''"

echo "--- keyboard, stopping"
write 'One'
key Enter 8 # with Shift: a new line
write 'two'
is "a new line" "document.getElementById('prompt').value === 'One\\ntwo' && document.querySelectorAll('.mine').length === 3"
# Stop as soon as the first answer grows: by the key, then by the button.
for way in "document.dispatchEvent(new KeyboardEvent('keydown', {key: 'Escape', bubbles: true}))" "document.getElementById('stop').click()"; do
    js "document.getElementById('max').value = 3500; window.seen = document.querySelectorAll('.mine').length;
        new MutationObserver((_, watch) => { if ([...document.querySelectorAll('.waiting')].some((e) => e.textContent)) { watch.disconnect(); $way; } })
            .observe(document.getElementById('columns'), {subtree: true, childList: true})"
    key Enter
    until_true 30 "document.querySelectorAll('.mine').length === window.seen + 3 && !document.getElementById('send').hidden"
    is "all three stopped" "[...document.querySelectorAll('.ended')].filter((e) => e.textContent === 'stopped').length === 3"
    write 'Again'
done
for _ in $(seq 100); do # the slots are free again, long before 3 x 3500 tokens were made
    curl -s "http://127.0.0.1:$port/metrics" >.log/out
    grep -q '^espalier_slots_used 0$' .log/out && break
    sleep 0.1
done
made=$(sed -n 's/^espalier_generated_tokens_total //p' .log/out)
grep -q '^espalier_slots_used 0$' .log/out && [ "$made" -lt 10000 ] || complain "stopped answers still run: $made tokens"
js "document.getElementById('prompt').value = ''"
order=
for _ in 1 2 3 4 5 6 7 8 9 10 11; do
    key Tab
    js "document.activeElement.id || document.activeElement.textContent.trim().slice(0, 8) || 'none'"
    order+=" $value"
done
for stop in model cut model-2 clear Settings prompt send; do
    [[ " $order " == *" $stop "* ]] || complain "Tab does not come to $stop:$order"
done
js "document.getElementById('clear').click(); document.querySelectorAll('#models button')[1].click()"
is "a column less, and no messages" "document.querySelectorAll('.column').length === 2 && !document.querySelector('.mine')"

echo "--- phone, dark mode"
contrast="(() => { const rgb = (s) => s.match(/[0-9.]+/g).slice(0, 3).map((v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    const light = (s) => { const [r, g, b] = rgb(s); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
    const ground = (e) => { const c = getComputedStyle(e).backgroundColor; return c === 'rgba(0, 0, 0, 0)' ? ground(e.parentElement) : c; };
    return Math.min(...['h1', 'h2', '.facts', '.mine', '.reply', '.speed', '.speed b', '#send', '#clear', '#prompt'].map((s) => document.querySelector(s)).map((e) => {
        const a = light(getComputedStyle(e).color), b = light(ground(e)); return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05); })); })()"
for scheme in light dark; do
    tell Emulation.setEmulatedMedia "{\"features\":[{\"name\":\"prefers-color-scheme\",\"value\":\"$scheme\"}]}"
    screen 390 844 true
    open_page
    js "document.getElementById('max').value = 20"
    js "document.getElementById('prompt').focus()"
    write 'Hi'
    key Enter
    until_true 30 "document.querySelectorAll('.reply').length === 3 && !document.getElementById('send').hidden"
    is "the $scheme page is not wider than the phone" "document.documentElement.scrollWidth <= 390 && innerWidth === 390"
    is "what one asks with is on the screen" "['prompt', 'send', 'clear', 'settings'].every((id) => { const r = document.getElementById(id).getBoundingClientRect(); return r.width > 0 && r.left >= 0 && r.right <= 390 && r.top >= 0 && r.bottom <= 844; })"
    is "fingers find the buttons" "['send', 'clear'].every((id) => document.getElementById(id).getBoundingClientRect().height >= 36)"
    is "the other columns are a swipe away" "document.getElementById('columns').scrollWidth > 390"
    is "text of the $scheme page can be read" "$contrast >= 4.5"
    is "the $scheme page is $scheme" "(getComputedStyle(document.body).backgroundColor.match(/[0-9]+/)[0] < 128) === ('$scheme' === 'dark')"
    js "document.querySelector('#settings summary').click()"
    is "the settings are on the screen" "(() => { const r = document.querySelector('.fields').getBoundingClientRect(); return r.left >= 0 && r.right <= 390 && r.bottom <= 844; })()"
done

echo "--- what the browser says"
grep -E '"method":"Runtime.exceptionThrown"|"method":"Runtime.consoleAPICalled"|"method":"Log.entryAdded".*"level":"(error|warning)"' .log/events >.log/err &&
    complain "complaints: $(head -c 600 .log/err)"
grep -o '"method":"Network.requestWillBeSent".*' .log/events | grep -o '"request":{"url":"[^"]*"' | grep -v "\"http://127\.0\.0\.1:$port/" |
    grep -v '"data:' >.log/err && complain "from elsewhere: $(cat .log/err)"
grep -q '"method":"Network.requestWillBeSent"' .log/events || complain "no request was seen"
js "document.head.append(Object.assign(document.createElement('script'), {textContent: 'window.intruder = 1'}))"
is "the policy keeps other scripts out" "window.intruder === undefined"
tell Browser.getVersion
grep -q 'Content Security Policy' .log/events || complain "a script was kept out, and nothing said so"

session=
tell Browser.close
wait $chrome
kill -TERM $server && wait $server || complain "the server ended with status $?"
server= chrome=
verdict
