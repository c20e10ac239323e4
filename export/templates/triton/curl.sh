#!/bin/sh
# Classifies one picture with curl and ImageMagick alone: sh curl.sh PICTURE [HOST:PORT]
# ImageMagick resizes almost as training did; client.py does so to the bit.
[ -f "$1" ] || { echo "usage: sh curl.sh PICTURE [HOST:PORT]" >&2; exit 2; }
pixels=$(mktemp) || exit 1
trap 'rm -f "$pixels"' EXIT
convert "$1[0]" -auto-orient -alpha off -colorspace sRGB -filter Catrom -resize '@size@x@size@^' \
  -gravity center -extent @size@x@size@ -depth 8 "rgb:$pixels" || exit 2
header='{"inputs":[{"name":"image","shape":[1,@size@,@size@,3],"datatype":"UINT8","parameters":{"binary_data_size":@bytes@}}],
"outputs":[{"name":"probabilities","parameters":{"classification":5,"binary_data":false}}]}'
printf '%s' "$header" | cat - "$pixels" | curl --silent --show-error --fail-with-body --data-binary @- \
  --header "Inference-Header-Content-Length: ${#header}" --header 'Content-Type: application/octet-stream' \
  "http://${2:-localhost:8000}/v2/models/@model@/infer"
