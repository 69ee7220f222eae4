#!/bin/sh
# Compress, render and measure the nine scenes of Mip-NeRF 360:
#   scripts/mipnerf360.sh DATA CHECKPOINTS OUT [further options of run_datasets.py]
set -eu
[ $# -ge 3 ] || { echo "usage: $0 DATA CHECKPOINTS OUT [options of run_datasets.py]" >&2; exit 2; }
data=$1 checkpoints=$2 out=$3
shift 3
exec "${PYTHON:-python}" "$(dirname "$0")/run_datasets.py" --mipnerf360 "$data" --checkpoints "$checkpoints" -m "$out" "$@"
