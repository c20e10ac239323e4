# tinyres on an NVIDIA GPU: engines built of an exported file, proven and measured there. A GPU serves with Triton:
# `tinyres export MODEL --format triton` writes what NVIDIA's own image takes, and the command.
#
#   docker build -f docker/gpu.Dockerfile -t tinyres-gpu .
#   docker run --rm --gpus all --user "$(id -u):$(id -g)" -v "$PWD:/work" tinyres-gpu export runs/mine/export/fp32.onnx --format trt
#
# CUDA, cuDNN, TensorRT and PyTorch are those of the wheels, which name each other's versions; the machine brings the
# driver (r580 or later) and NVIDIA's container toolkit. docs/install.md has the rest.
FROM python:3.13-slim-trixie AS wheel
WORKDIR /source
COPY pyproject.toml MANIFEST.in README.md LICENSE ./
COPY tinyres tinyres
COPY export export
COPY bench bench
COPY weights weights
COPY embed embed
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /dist .

FROM python:3.13-slim-trixie
# torch.compile calls a compiler.
# hadolint ignore=DL3008
RUN apt-get update && apt-get install -y --no-install-recommends g++ && rm -rf /var/lib/apt/lists/*
COPY constraints.txt /dist/
COPY --from=wheel /dist /dist
RUN pip install --no-cache-dir --constraint /dist/constraints.txt "$(echo /dist/*.whl)[gpu,train,trt]"
# Where NVIDIA's toolkit is not told by --gpus, and a place to write for users that --user names.
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility HOME=/tmp
WORKDIR /work
USER 65532:65532
ENTRYPOINT ["tinyres"]
CMD ["doctor"]
