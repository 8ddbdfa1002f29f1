#!/bin/sh
# Colorizes what is new in a folder of scans, for cron or systemd: folder.sh FOLDER OUTPUT [SETTINGS]
# Captions come from FOLDER/captions.csv; OUTPUT is a folder or URI; all else is in SETTINGS, a diffcolor-batch.toml that
# whoever delivers scans cannot write.
set -eu

folder=$(cd "${1:?usage: folder.sh FOLDER OUTPUT [SETTINGS]}" && pwd)
output=${2:?usage: folder.sh FOLDER OUTPUT [SETTINGS]}
settings=${3:-}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

set -- manifest build "$folder" -o "$work/scans.parquet"
if [ -f "$folder/captions.csv" ]; then
    set -- "$@" --captions "$folder/captions.csv"
fi
diffcolor-batch "$@"
set -- submit "$work/scans.parquet" --output "$output"
diffcolor-batch ${settings:+--settings "$settings"} "$@" &
run=$!
trap 'kill -TERM "$run"' TERM INT # passed on: images end or are checkpointed
code=0
wait "$run" || code=$?
while kill -0 "$run" 2>/dev/null; do # a signal ends `wait`, not the run
    code=0
    wait "$run" || code=$?
done
exit "$code"
