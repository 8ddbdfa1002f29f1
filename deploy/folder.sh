#!/bin/sh
# Colorizes what is new in a folder of scans, for cron or systemd: folder.sh FOLDER OUTPUT
# Captions come from FOLDER/captions.csv (of pictures that it leaves out: default-caption), all other settings from
# FOLDER/diffcolor-batch.toml. OUTPUT is a folder or URI.
set -eu

folder=${1:?usage: folder.sh FOLDER OUTPUT}
output=${2:?usage: folder.sh FOLDER OUTPUT}
cd "$folder"

set -- manifest build . -o "$output.parquet"
if [ -f captions.csv ]; then
    set -- "$@" --captions captions.csv
fi
code=0
diffcolor-batch "$@" || code=$?
if [ "$code" -eq 3 ]; then # none of the captions has a picture yet
    exit 0
elif [ "$code" -ne 0 ]; then
    exit "$code"
fi
exec diffcolor-batch submit "$output.parquet" --output "$output"
