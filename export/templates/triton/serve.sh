#!/bin/sh
# Serves ./models on ports 8000 (HTTP), 8001 (gRPC) and 8002 (metrics): on the GPUs, or on the CPU where there are none.
cd "$(dirname "$0")" || exit 1
gpus=$(command -v nvidia-smi > /dev/null && echo "--gpus all")
# shellcheck disable=SC2086 # two words or none
exec docker run --rm $gpus -p 8000:8000 -p 8001:8001 -p 8002:8002 -v "$PWD/models:/models:ro" \
  @server@ tritonserver --model-repository=/models "$@"
