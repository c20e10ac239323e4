#!/bin/sh
# Builds a TensorRT plan with the server's own TensorRT, for the GPU here, and lets the server take it instead of the
# ONNX file. The plan computes in the file's own precision, without TF32, but nothing has proven it: compare its answers
# with the ONNX file's on the server before relying on them.
cd "$(dirname "$0")" || exit 1
model=models/@model@
docker run --rm --gpus all -v "$PWD/models:/models" @server@ /usr/src/tensorrt/bin/trtexec \
  --onnx=/$model/1/model.onnx --saveEngine=/$model/1/model.plan --stronglyTyped --noTF32 \
  --minShapes=@least@ --optShapes=@usual@ --maxShapes=@most@ || exit 1
sed -e '1s/.*/# A plan built from the proven ONNX file; nothing has proven the plan./' -e 's/^backend: .*/backend: "tensorrt"/' -e 's/^default_model_filename: .*/default_model_filename: "model.plan"/' \
  -e 's/KIND_AUTO/KIND_GPU/' $model/config.pbtxt > $model/.config && mv $model/.config $model/config.pbtxt
